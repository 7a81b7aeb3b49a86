"""Which measure follows from an output and a batch: every structure of outputs with every form of targets."""

import collections
import dataclasses
import logging
import types
from pathlib import Path
from typing import Any, NamedTuple

import networks as nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adaug
from adaug import policies
from adaug._batches.parse import parse
from adaug._batches.tree import map_leaves
from adaug.keypoints import render_heatmaps
from adaug.learners.measures import measure_of, measured

B, SIDE, K, C = 3, 32, 4, 5


@dataclasses.dataclass(frozen=True)
class Task:
    """A form of targets: its entries, what is said about them, a right and a wrong output, and the measure."""

    entries: dict[Any, Tensor]
    right: Tensor
    wrong: Tensor
    about: str
    targets: dict[Any, Any] = dataclasses.field(default_factory=dict)
    stride: int = 1

    @property
    def batch(self) -> dict[Any, Tensor]:
        return {"image": torch.full((B, 3, SIDE, SIDE), 0.5), **self.entries}

    def parsed(self) -> Any:
        return parse(self.batch, self.targets)


def ids() -> Tensor:
    return torch.tensor([0, 3, 4])


def segments() -> Tensor:
    """A class map [B, H, W] in which each image has two classes."""
    mask = torch.zeros(B, SIDE, SIDE, dtype=torch.long)
    for i, place in enumerate((slice(0, 8), slice(8, 24), slice(16, 32))):
        mask[i, place, 8:24] = i + 1
    return mask


def planes(mask: Tensor, classes: int = C) -> Tensor:
    return F.one_hot(mask, classes).movedim(-1, 1).float()


def people(factor: float = 1.0) -> Tensor:
    """Keypoints [B, K, 2] in pixels around the centre."""
    around = torch.tensor([[-6.0, -5.0], [6.0, -4.0], [-3.0, 6.0], [2.0, 3.0]])
    return SIDE / 2 - 0.5 + factor * around + torch.tensor([[[0.0, 0.0]], [[0.4, 0.2]], [[-0.3, 0.5]]])


def missed(factor: float = 1.0) -> Tensor:
    return people(factor) + factor * torch.tensor([2.0, 1.0])


def logits(right: Tensor) -> Tensor:
    return right.float() * 20 - 10


def class_tasks() -> dict[str, Task]:
    one, several = F.one_hot(ids(), C), torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 1, 0, 0, 1]])
    soft = 0.7 * one + 0.3 * F.one_hot(ids().flip(0), C)
    by_class, by_labels = (
        "1 - the probability of the true class",
        "how far the probabilities of the classes lie from the labels",
    )
    forms = {"ids": ids(), "float ids": ids().float(), "ids [B, 1]": ids()[:, None]}
    found = {name: Task({"label": form}, logits(one), logits(one.roll(1, 1)), by_class) for name, form in forms.items()}
    for name, form in {"one-hot": one, "float one-hot": one.float(), "bool one-hot": one.bool()}.items():
        found[name] = Task({"label": form}, logits(one), logits(one.roll(1, 1)), by_labels)
    found["mixed up"] = Task({"label": soft}, soft.clamp(min=1e-6).log(), logits(one.roll(1, 1)), by_labels)
    found["several"] = Task({"label": several.float()}, logits(several), logits(1 - several), by_labels)
    side = torch.tensor([0, 1, 1])
    for name, form in {"sides": side, "float sides": side.float(), "sides [B, 1]": side[:, None].float()}.items():
        found[name] = Task({"label": form}, logits(side[:, None]), logits(1 - side[:, None]), by_class)
    return found


def mask_tasks() -> dict[str, Task]:
    mask, about = segments(), "1 - the mean IoU of the classes in the image"
    ignored = mask.clone()
    ignored[:, :, 28:] = 255
    maps = {
        "map": mask, "map with 255": ignored, "uint8 map [B, 1, H, W]": mask[:, None].byte(), "float map": mask.float(),
        "planes": planes(mask), "bool planes": planes(mask).bool(),
    }  # fmt: skip
    right, wrong = logits(planes(mask)), logits(planes(mask).roll(1, 1))
    found = {name: Task({"mask": form}, right, wrong, about) for name, form in maps.items()}
    found["coarse map"] = Task({"mask": mask}, right[..., ::4, ::4], wrong[..., ::4, ::4], about)
    found["fine planes"] = Task(
        {"mask": planes(mask)}, F.interpolate(right, scale_factor=2), F.interpolate(wrong, scale_factor=2), about
    )
    overlap = torch.stack([mask > 0, torch.ones_like(mask, dtype=torch.bool)], 1).float()
    overlap[:, 1, :, :4] = 0
    found["planes that overlap"] = Task({"mask": overlap}, logits(overlap), logits(1 - overlap), about)
    side = (mask > 0)[:, None]
    binary = {"float [B, 1, H, W]": side.float(), "float [B, H, W]": side[:, 0].float(), "bool": side, "integer": side.long()}
    for name, form in binary.items():
        found[f"0 and 1, {name}"] = Task({"mask": form}, logits(side), logits(~side), about)
    found["0 and 1, probabilities"] = Task({"mask": side.float()}, side.float(), 1 - side.float(), about)
    return found


def place_tasks(factor: float = 1.0) -> dict[str, Task]:
    points, off, about = people(factor), missed(factor), "the error of the keypoints over the size of their box"
    third, weight = torch.full((B, K, 1), 2.0), torch.ones(B, K, 1)
    found = {}
    for unit, (offset, scale) in {"pixels": (0, 1), "unit": (0.5, SIDE), "signed": (0.5 - SIDE / 2, SIDE / 2)}.items():
        (p, o), more = ((given + offset) / scale for given in (points, off)), {"points": adaug.Target("keypoints", unit=unit)}
        with_third = [torch.cat([given, third], -1) for given in (p, o)]
        flat = [given.flatten(1) for given in with_third]
        found |= {
            f"[B, K, 2] in {unit}": Task({"points": p}, p, o, about, more),
            f"[B, 2K] in {unit}": Task({"points": p.flatten(1)}, p.flatten(1), o.flatten(1), about, more),
            f"[B, K, 3] in {unit}": Task({"points": with_third[0]}, *with_third, about, more),
            f"[B, 2K] for [B, K, 2] in {unit}": Task({"points": p}, p.flatten(1), o.flatten(1), about, more),
            f"[B, 3K] for one person in {unit}": Task({"points": p[:, None]}, *flat, about, more),
        }  # fmt: skip
    maps, wrong = (render_heatmaps(given, SIDE // 2, 1.5 * factor, stride=2) for given in (points, off))
    peaks, true = (
        f"the error of the heat maps' peaks over the size of the {whose} box" for whose in ("keypoints'", "true peaks'")
    )
    found |= {
        "maps for keypoints": Task({"keypoints": points}, maps, wrong, peaks),
        "maps for keypoints of one person": Task({"keypoints": points[:, None]}, maps, wrong, peaks),
        "maps for maps": Task({"heatmaps": maps, "target_weight": weight}, maps, wrong, true),
        "maps for larger maps": Task({"heatmaps": render_heatmaps(points, SIDE, 3.0 * factor)}, maps, wrong, true),
        "maps for maps and keypoints": Task({"heatmaps": maps, "keypoints": points}, maps, wrong, peaks),
        "maps for maps and two sets of points": Task({"heatmaps": maps, "keypoints": points, "pts": points}, maps, wrong, true),
        "maps for keypoints and a mask": Task({"keypoints": points, "mask": segments()}, maps, wrong, peaks),
    }  # fmt: skip
    return found


def box_tasks() -> dict[str, Task]:
    corners = torch.tensor([[4.0, 5, 20, 24], [2, 2, 10, 30], [8, 0, 31, 9]])
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) / SIDE
    said = {"boxes": adaug.Target("boxes", unit="unit", format="cxcywh")}
    about = "1 - the IoU of the box"
    return {
        "box in pixels": Task({"boxes": corners[:, None]}, corners, corners + 5, about),
        "box in unit": Task({"boxes": boxes[:, None]}, boxes[:, None], boxes[:, None] + 0.1, about, said),
    }


TASKS = class_tasks() | mask_tasks() | place_tasks() | box_tasks()


class Heads(NamedTuple):
    logits: Any
    aux_logits: Any


@dataclasses.dataclass
class Record:
    loss: Any = None
    logits: Any = None
    hidden_states: Any = None


STRUCTURES = {
    "tensor": lambda one, other: one,
    "out and aux": lambda one, other: collections.OrderedDict(out=one, aux=other),
    "logits": lambda one, other: {"loss": torch.zeros(()), "logits": one, "features": other[:, :1]},
    "named tuple": Heads,
    "dataclass": lambda one, other: Record(torch.zeros(()), one),
    "attribute": lambda one, other: types.SimpleNamespace(logits=one, loss=None),
    "stacks": lambda one, other: [other, other, one],
    "a loss first": lambda one, other: (torch.zeros(()), one),
    "nested": lambda one, other: {"head": {"logits": one, "aux_logits": other}},
    "stacks of mappings": lambda one, other: [{"out": other, "aux": one}, {"out": one}],
    "mapping of stacks": lambda one, other: {"out": (other, one), "loss": None},
}
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@EVERY
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_every_structure_and_every_target_have_their_measure(structure, task):
    batch = task.parsed()
    right, wrong = structure(task.right, task.wrong), structure(task.wrong, task.right)
    assert {measure_of(output, batch).about for output in (right, wrong)} == {task.about}
    low, high = measured(right, batch), measured(wrong, batch)
    assert low.shape == (B,)
    assert low.dtype == high.dtype == torch.float32
    assert (low < 0.02).all(), low
    assert (high > low + 0.1).all(), high
    assert torch.equal(low, measured(task.right, batch))


@EVERY
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_nothing_waits_for_the_device(structure, task):
    """Tensors on the device meta have no values, so whatever asks for one fails."""
    batch = parse({name: value.to("meta") for name, value in task.batch.items()}, task.targets)
    output = map_leaves(
        lambda _, leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, structure(task.right, task.wrong)
    )
    if isinstance(output, (Record, types.SimpleNamespace)):
        output.logits = output.logits.to("meta")
    assert measured(output, batch).shape == (B,)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_outputs_of_autocast_are_measured(dtype, task):
    batch = task.parsed()
    assert (measured(task.right.to(dtype), batch) + 0.05 < measured(task.wrong.to(dtype), batch)).all()


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.right.ndim == 4])
def test_of_parts_with_other_shapes_the_first_counts(name):
    task = TASKS[name]
    coarse = task.wrong[..., ::2, ::2]
    batch = task.parsed()
    assert torch.equal(measured((task.right, coarse), batch), measured(task.right, batch))
    assert torch.equal(measured([task.wrong, coarse, task.right], batch), measured(task.right, batch))


def test_the_documentation_names_every_measure():
    page = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    for task in TASKS.values():
        assert f"| {task.about} |" in page


@pytest.mark.parametrize("name", place_tasks())
def test_a_person_twice_as_large_is_as_hard(name):
    small, large = (place_tasks(factor)[name] for factor in (1.0, 2.0))
    assert torch.allclose(measured(small.wrong, small.parsed()), measured(large.wrong, large.parsed()), rtol=0.03)


@pytest.mark.parametrize("name", [name for name, task in place_tasks().items() if "target_weight" not in task.entries])
@pytest.mark.parametrize("shape", [(B, K), (B, K, 1), (B, K, 2)], ids=str)
def test_keypoints_that_nobody_labelled_do_not_count(name, shape):
    task = TASKS[name]
    seen = torch.ones(shape)
    seen[:, 0] = 0
    wrong = task.wrong.clone()
    lost = wrong[:, : K * 2].view(B, -1)
    hidden = dataclasses.replace(task, entries={**task.entries, "seen": seen}, targets={**task.targets, "seen": "other"})
    batch = hidden.parsed()
    batch.kinds["seen"] = adaug.Target("visibility")
    before = measured(wrong, batch)
    if wrong.ndim == 4:
        wrong[:, 0] = wrong[:, 0].flip(-1)
    elif wrong.shape[-1] in (2, 3):
        wrong[..., 0, :2] += 100
    else:
        lost[:, :2] += 100
    assert torch.equal(before, measured(wrong, batch))
    assert not torch.equal(measured(task.wrong, task.parsed()), measured(wrong, task.parsed()))


@pytest.mark.parametrize("place", [None, (-6.0, 10.0), (40.0, 40.0)], ids=["nowhere", "left", "below"])
def test_maps_of_points_that_the_image_does_not_show_do_not_count(place):
    """Of a point outside the frame, the map may still show the rim of its peak."""
    task, points = TASKS["maps for larger maps"], people()
    points[:, 0] = torch.nan if place is None else torch.tensor(place)
    maps = render_heatmaps(points, SIDE, 3.0)
    assert place != (-6.0, 10.0) or (maps[:, 0].amax((1, 2)) > 0.1).all()
    output = task.right.clone()
    output[:, 0] = output[:, 0].flip(-1)
    assert (measured(output, parse({**task.batch, "heatmaps": maps}, None)) < 0.02).all()


def test_one_hot_labels_get_the_number_of_their_ids():
    output = torch.randn(B, C)
    by_id, one_hot = (TASKS[name].parsed() for name in ("ids", "float one-hot"))
    assert torch.allclose(measured(output, by_id), measured(output, one_hot), atol=1e-6)


def test_planes_get_the_number_of_their_map_also_under_a_view():
    """A view leaves places without any class, but what the image had there decides whether planes are one-hot."""
    output = torch.randn(B, C, 8, 8)
    by_map, by_planes = (TASKS[name].batch for name in ("map", "planes"))
    view = adaug.policies.wide().view({}, B, (SIDE, SIDE), (SIDE, SIDE))
    view = dataclasses.replace(view, matrix=torch.eye(3).mul(torch.tensor([0.5, 0.5, 1.0])).expand(B, 3, 3).contiguous())
    moved = [parse(batch, targets).apply(view, (SIDE, SIDE)) for batch, targets in
             ((by_map, {"mask": adaug.Target("mask", fill=255)}), (by_planes, None))]  # fmt: skip
    assert (moved[1].entries["mask"].sum(1) == 0).any()
    assert torch.allclose(*(measured(output, batch) for batch in moved), atol=1e-6)


@pytest.mark.parametrize(("label", "output"), [
    (torch.tensor([0, -100, 9]), torch.zeros(B, C)), (torch.tensor([[0.0], [-1.0], [7.0]]), torch.zeros(B, 1)),
    (torch.tensor([[0.0, 1.0], [-1.0, 2.0], [0.0, 5.0]]), torch.zeros(B, 2)),
], ids=["ids", "sides", "several"])  # fmt: skip
def test_labels_that_are_none_do_not_count(label, output):
    found = measured(output, parse({"image": torch.zeros(B, 3, 8, 8), "label": label}, None))
    assert found.isnan().tolist() == [False, True, True]


# ---- in training


class Of(nn.Module):
    """A model whose output has the shape and the structure of an example. It depends on the image."""

    def __init__(self, example: Tensor, structure: Any) -> None:
        super().__init__()
        self.example, self.structure = example, structure
        self.weight = nn.Parameter(torch.tensor(0.1))

    def forward(self, image: Tensor) -> Any:
        one = self.example + self.weight * image.mean((1, 2, 3)).view(-1, *[1] * (self.example.ndim - 1))
        return self.structure(one, one.flip(0))


@EVERY
def test_a_step_and_two_lines_learn_the_same(task):
    states = []
    for way in ("step", "lines"):
        augmenter = adaug.AdversarialAugmenter(policies.robust(), targets=task.targets, rest="other", seed=0)
        model = Of(task.wrong, STRUCTURES["out and aux"])
        for _ in range(2):
            if way == "step":
                augmenter.step(model, task.batch, lambda output, batch: output["out"].flatten(1).mean(1))
            else:
                augmenter.observe(model(augmenter.draw(task.batch)["image"]))
        assert augmenter.measure == task.about
        assert f"difficulty={task.about}" in repr(augmenter)
        states.append(augmenter.state_dict())
    assert nets.same(*states)


def observed(output: Any, entries: dict[Any, Tensor], targets: Any = None) -> None:
    augmenter = adaug.AdversarialAugmenter(policies.robust(()), targets=targets, seed=0)
    augmenter.draw({"image": torch.rand(B, 3, SIDE, SIDE), **entries})
    augmenter.observe(output)


MAPS, MASK, LABEL, BOTH = {"keypoints": people()}, {"mask": segments()}, {"label": ids()}, "nothing decides between "
POSE, PIXELS, CLASS, NUMBER = torch.zeros(B, K, 8, 8), torch.zeros(B, 3, 8, 8), torch.zeros(B, C), torch.zeros(())
CROWD = people()[:, None].expand(B, 2, K, 2)
UNKNOWN = {
    "losses of a detector": ({"loss_box": NUMBER, "loss_mask": NUMBER}, MASK, "'loss_box': a number for the whole batch"),
    "two tasks": (
        {"pose": POSE, "mask": PIXELS},
        MAPS | MASK,
        BOTH + r"output\['mask'\] .*; output\['pose'\] with 'keypoints'",
    ),
    "two heads": (
        {"a": {"out": PIXELS}, "b": {"out": PIXELS}},
        MASK,
        BOTH + r"output\['a'\]\['out'\] .*; output\['b'\]\['out'\]",
    ),
    "tasks in a tuple": ((POSE, CLASS), MAPS | LABEL, BOTH + r"output\[0\] with 'keypoints' .*; output\[1\] with 'label'"),
    "features beside logits": ((torch.zeros(B, 64), CLASS), LABEL, BOTH + r"output\[0\] .* output\[1\]"),
    "features in a mapping": ({"embedding": torch.zeros(B, 64)}, LABEL, r"dict with 'embedding': a tensor of shape \(3, 64\)"),
    "two masks": (PIXELS, MASK | {"seg": segments()}, BOTH + "output with 'mask' .* output with 'seg'"),
    "as many classes as coordinates": (torch.zeros(B, 2 * K), MAPS | LABEL, "output with 'keypoints' .*; output with 'label'"),
    "losses": (torch.zeros(B), LABEL, r"a tensor of shape \(3,\) for a batch with image, label"),
    "other keypoints": (torch.zeros(B, K + 1, 8, 8), MAPS, "a tensor of shape .* for a batch with image, keypoints"),
    "several people": (POSE, {"keypoints": CROWD}, "a tensor of shape"),
    "nothing to compare with": ([CLASS], {}, r"list of a tensor of shape \(3, 5\) for a batch with image;"),
}


@pytest.mark.parametrize(("output", "entries", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_unknown_or_unclear_is_said(output, entries, message):
    with pytest.raises(ValueError, match=message) as caught:
        observed(output, entries)
    assert "pass the part of the output that counts, or difficulty=losses" in str(caught.value)
    assert "`difficulty` function" in str(caught.value)


TURNS = policies.running(adaug.Policy([adaug.Branch("turn", [adaug.Rotate(-9, 9, 3)], 0.5)]))


@pytest.mark.parametrize("policy", [policies.robust(()), TURNS], ids=["robust", "turns"])
def test_a_step_says_once_that_the_loss_is_all_there_is(policy, caplog):
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    model = Of(torch.zeros(B, 64), lambda one, other: {"embedding": one})
    with caplog.at_level(logging.WARNING, "adaug"):
        for _ in range(3):
            augmenter.step(
                model, {"image": torch.rand(B, 3, SIDE, SIDE), **LABEL}, lambda output, _: output["embedding"].mean(1)
            )
    (said,) = [record.message for record in caplog.records if "uses the loss" in record.message]
    assert "Found dict with 'embedding': a tensor of shape (3, 64) for a batch with image, label; give" in said
    assert augmenter.measure == "the loss"


# ---- loops of others


def test_loops_of_others_are_measured():
    maps = render_heatmaps(people(), SIDE // 4, 1.0, stride=4)
    landmarks = people().flatten(1) / SIDE
    unit = {"landmarks": adaug.Target("keypoints", unit="unit"), "angle": "other"}
    bodyparts = {"bodypart": {"heatmap": maps, "locref": torch.zeros(B, 2 * K, 8, 8)}}
    crop = {"heatmaps": maps, "target_weight": torch.ones(B, K, 1), "center": torch.zeros(B, 2), "scale": torch.ones(B)}
    side = (segments() > 0)[:, None]
    loops = {
        "torchvision": (collections.OrderedDict(out=torch.zeros(B, 21, 32, 32), aux=torch.zeros(B, 21, 32, 32)), MASK, None),
        "simple-HRNet": (maps, {"heatmaps": maps, "visibility": torch.ones(B, K)}, None),
        "HRNet-Face": (maps, crop | {"pts": people()}, {"pts": "other"}),
        "PFLD": ((torch.zeros(B, 64, 8, 8), landmarks), {"landmarks": landmarks, "angle": torch.zeros(B, 3)}, unit),
        "timm": (torch.zeros(B, C), LABEL, None),
        "timm's mixup": (torch.zeros(B, C), {"label": F.one_hot(ids(), C) * 0.9 + 0.02}, None),
        "MONAI": (torch.zeros(B, 1, 32, 32), {"label": side.float()}, {"label": "mask"}),
        "smp": (torch.zeros(B, 1, 32, 32), {"mask": side.long()}, None),
        "DeepLabCut": (bodyparts, {"keypoints": torch.cat([people(), torch.full((B, K, 1), 2.0)], -1)[:, None]}, None),
    }  # fmt: skip
    for output, entries, targets in loops.values():
        observed(output, entries, targets)
