"""Values that depend on the view: vectors turn, the sums of densities stay, and functions move the rest."""

import math

import hypothesis.strategies as st
import networks as nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given

import adaug
from adaug import Augment, Branch, Flip, Policy, Rotate, Scale, Shear, Target, Translate

VIEWS = st.tuples(st.floats(-90, 90), st.floats(0.6, 1.8), st.floats(-0.3, 0.3), st.floats(-20, 20)).map(
    lambda v: [(Rotate(-90, 90, 9), v[0]), (Scale(0.5, 2, 9), v[1]), (Translate(-1, 1, 9), v[2]), (Shear(-30, 30, 9), v[3])]
)
MIRROR = Policy((), (Flip((), p=1.0),))


def seen(batch, policy, **targets):
    return adaug.AdversarialAugmenter(policy, seed=0, targets=targets).random({"image": torch.rand(2, 3, 24, 24), **batch})


UNITS = st.sampled_from(["pixels", "unit", "signed", "direction", (0, 4)])


@given(VIEWS, st.integers(3, 6), st.integers(3, 6), st.sampled_from([1, 2, 4]), UNITS,
       st.sampled_from(["xy", "xyz", None]), st.integers(1, 3))  # fmt: skip
def test_vectors_turn_with_their_image(views, rows, columns, stride, unit, form, count):
    size, side = (4 * rows, 4 * columns), (4 * rows * stride, 4 * columns * stride)
    parts = 3 if form == "xyz" else 2
    fields = torch.rand(2, count * parts, *size, dtype=torch.float64) - 0.5
    if form is None and fields.shape[1] % 2:
        return
    target = Target("vectors", unit=unit, format=form)
    made, matrix = nets.view_of({"image": torch.rand(2, 3, *side), "flow": fields}, views, targets={"flow": target})
    lengths = {"unit": (side[1], side[0]), "signed": (side[1] / 2, side[0] / 2), (0, 4): (4, 4)}.get(unit, (1, 1))
    scale = np.array(lengths, float)[:, None, None]
    for i in range(count):
        field = fields[0, i * parts : i * parts + 2].numpy() * scale
        expected = reference.vectors(field, matrix, size, stride, kept=unit == "direction") / scale
        found = made["flow"][0, i * parts : (i + 1) * parts].numpy()
        np.testing.assert_allclose(found[:2], expected, atol=2e-3)
        if parts == 3:
            z, _ = reference.warped(fields[0, i * parts + 2].numpy(), reference.at_stride(matrix, stride), size, 1)
            np.testing.assert_allclose(found[2], z, atol=1e-3)


def test_a_mirrored_flow_points_to_the_other_side():
    flow = torch.rand(2, 2, 24, 24)
    made = seen({"flow": flow}, MIRROR, flow="vectors")["flow"]
    torch.testing.assert_close(made, flow.flip(-1) * torch.tensor([-1.0, 1])[:, None, None], atol=1e-5, rtol=0)


def test_normals_keep_their_length():
    normals = (
        torch.nn.functional.normalize(torch.tensor([0.6, 0.0, 0.8]), dim=0)[:, None, None].expand(2, 3, 24, 24).contiguous()
    )
    made = adaug.apply_view(
        {"image": torch.rand(2, 3, 24, 24), "normals": normals},
        [(Rotate(-90, 90, 9), 90.0), (Scale(0.5, 2, 9), 1.7)],
        targets={"normals": "vectors"},
    )
    torch.testing.assert_close(made["normals"][0, :, 12, 12], torch.tensor([0.0, -0.6, 0.8]), atol=1e-4, rtol=0)


@given(VIEWS, st.integers(3, 6), st.integers(3, 6), st.sampled_from([1, 2, 4]), st.booleans(), st.integers(0, 99))
def test_sums_of_densities_stay(views, rows, columns, stride, dots, seed):
    size, side = (4 * rows, 4 * columns), (4 * rows * stride, 4 * columns * stride)
    noise = np.random.default_rng(seed)
    mass = (noise.random(size) < 0.1).astype(float) if dots else noise.random(size)
    batch = {"image": torch.rand(2, 3, *side), "density": torch.from_numpy(mass).expand(2, 1, *size)}
    made, matrix = nets.view_of(batch, views, targets={"density": "density"})
    least, most = reference.stays(mass, matrix, size, stride)
    assert least - 1e-3 <= float(made["density"][0].sum()) <= most + 1e-3
    assert float(made["density"].min()) >= 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("shape", [(2, 24, 24), (2, 3, 24, 24), (2, 1, 6, 6)])
def test_densities_turn_exactly(turns, shape):
    density = torch.rand(shape)
    made = adaug.apply_view(
        {"image": torch.rand(2, 3, 24, 24), "density": density},
        [(Rotate(-90, 90, 9), 90.0 * turns)],
        targets={"density": "density"},
    )["density"]
    torch.testing.assert_close(made, density.rot90(turns, (-2, -1)), atol=1e-5, rtol=0)


def test_a_density_is_where_its_people_are():
    points = torch.tensor([[[6.0, 9.0], [15.0, 12.0]]])
    dots = torch.zeros(1, 24, 24)
    dots[0, points[0, :, 1].long(), points[0, :, 0].long()] = 1
    batch = {"image": torch.rand(1, 3, 24, 24), "keypoints": points, "density": dots}
    made = adaug.apply_view(batch, [(Rotate(-90, 90, 9), 30.0), (Scale(0.5, 2, 9), 0.6)], targets={"density": "density"})
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    middle = torch.stack([(made["density"][0] * x).sum(), (made["density"][0] * y).sum()]) / made["density"].sum()
    torch.testing.assert_close(middle, made["keypoints"][0].mean(0), atol=0.2, rtol=0)
    assert float(made["density"].sum()) == pytest.approx(2)


# ---- functions


def angle_after(angle, view):
    """A direction in degrees, counter-clockwise, [B]."""
    turn = torch.deg2rad(angle)
    x, y = torch.cos(turn), -torch.sin(turn)
    linear = view.matrix[:, :2, :2]
    new_x, new_y = (linear[:, i, 0] * x + linear[:, i, 1] * y for i in range(2))
    return torch.rad2deg(torch.atan2(-new_y, new_x))


def area_after(area, view):
    return area * torch.linalg.det(view.matrix[:, :2, :2]).abs()


def intrinsics_after(camera, view):
    return view.matrix @ camera


@given(st.floats(-170, 170), st.floats(0.5, 2))
def test_functions_move_angles_areas_and_cameras(turn, scale):
    batch = {"image": torch.rand(3, 3, 24, 24), "angle": torch.tensor([0.0, 20, 40]), "area": torch.tensor([1.0, 2, 3])}
    batch["camera"] = torch.eye(3).expand(3, 3, 3).clone()
    before = {name: value.clone() for name, value in batch.items()}
    targets = {
        "angle": Target(move=angle_after),
        "area": Target(move=area_after),
        "camera": Target("other", move=intrinsics_after),
    }
    made, matrix = nets.view_of(batch, [(Rotate(-90, 90, 9), turn), (Scale(0.5, 2, 9), scale)], targets=targets)
    wrapped = (made["angle"] - batch["angle"] - turn + 180) % 360 - 180
    torch.testing.assert_close(wrapped, torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(made["area"], batch["area"] * scale**2, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(made["camera"][0].numpy(), matrix, atol=1e-3)
    assert all(torch.equal(batch[name], value) for name, value in before.items())


@pytest.mark.parametrize("value", [np.float32([0.5]), torch.tensor(20.0), [[1.0, 2.0], [3.0, 4.0]], "text"], ids=str)
def test_functions_get_what_a_sample_holds(value):
    shown = []

    def move(value, view):
        shown.append(value)
        assert len(view.matrix) == 1
        return value

    turn = Augment(Policy([Branch("turn", [Rotate(20, 30, 2)], 1.0)]), seed=0, targets={"it": Target(move=move)})
    made = turn({"image": torch.rand(3, 24, 24), "it": value})["it"]
    assert type(made) is type(value)
    assert made == value if isinstance(value, (str, list)) else (np.asarray(made) == np.asarray(value)).all()
    assert len(shown) == 1


def test_a_function_must_keep_the_rows():
    batch = {"image": torch.rand(3, 3, 24, 24), "it": torch.rand(3, 2)}
    with pytest.raises(ValueError, match=r"`move` of 'it' should return one row for each of 3 images. Found \(2, 2\)"):
        adaug.apply_view(batch, [(Rotate(-9, 9, 2), 5.0)], targets={"it": Target(move=lambda value, view: value[:2])})
    adaug.apply_view(batch, [(Rotate(-9, 9, 2), 5.0)], targets={"it": Target(move=lambda value, view: value[:, :1])})


def test_the_error_for_an_unknown_entry_names_what_there_is():
    batch = {"image": torch.rand(3, 3, 24, 24), "flow": torch.rand(3, 2, 24, 24)}
    with pytest.raises(
        ValueError, match=r"'flow' without one.*vectors, density, label, other, or with adaug.Target\(move=\.\.\.\)"
    ):
        adaug.apply_view(batch, [])


@pytest.mark.parametrize(("kind", "shape", "fits"), [
    ("vectors", (2, 2, 24, 24), True), ("vectors", (2, 3, 24, 24), True), ("vectors", (2, 5, 24, 24), False),
    ("vectors", (2, 24, 24, 2), False), ("vectors", (2, 24, 24), False), ("density", (2, 24, 24, 1), False),
    ("density", (2, 12, 12), True), ("density", (2, 9, 9), False),
])  # fmt: skip
def test_fields_need_their_shape(kind, shape, fits):
    batch = {"image": torch.rand(2, 3, 24, 24), "it": torch.rand(shape)}
    if fits:
        assert adaug.apply_view(batch, [], targets={"it": kind})["it"].shape == shape
    else:
        with pytest.raises(ValueError, match=rf"'it', of kind {kind}, should have"):
            adaug.apply_view(batch, [], targets={"it": kind})


def test_an_option_belongs_to_its_kinds():
    for options in ({"move": len}, {"stride": 4}, {"unit": "direction"}, {"rows": "x"}):
        kind = "image" if "rows" in options else "boxes"
        with pytest.raises(ValueError, match="should be"):
            Target(kind, **options)
    assert Target(move=len).kind == "other"
    assert math.isclose(Target("vectors", stride=2).stride, 2)
