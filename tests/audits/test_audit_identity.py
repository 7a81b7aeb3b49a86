"""What identifies an audit: nothing that scores depend on changes unseen, and what stays the same is not computed again."""

from __future__ import annotations

import functools
import itertools
import operator
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import Audit, Flip, Policy, Rotate, Scale
from adaug._runtime.identity import UnknownError, fingerprint
from adaug.audits.plan import Axis
from adaug.audits.records import FamilyTable, Picture

THRESHOLD = 0.5


def loader(**changes: Any) -> list[dict[str, Any]]:
    batch = nets.make_batch(4)
    batch["mask"] = (batch["image"].mean(1) > 0.2).long()
    return [batch | changes]


def score(output: Any, batch: dict[str, Any]) -> Tensor:
    return output.mean((1, 2, 3)) + batch["label"] + THRESHOLD


def other_score(output: Any, batch: dict[str, Any]) -> Tensor:
    return output.mean((1, 2, 3)) - batch["label"] + THRESHOLD


def scaled(by: Any) -> Callable[..., Tensor]:
    return lambda output, batch: by * output.mean((1, 2, 3))


def light(power: int) -> Any:
    def light(image: Tensor, amount: Tensor) -> Tensor:
        return image * amount.reshape(-1, 1, 1, 1) ** power

    return light


class Net(nn.Module):
    """A network with a setting, a buffer that is not saved and a function."""

    def __init__(self, gain: float = 1.0, bias: float = 0.0, act: Any = torch.relu) -> None:
        super().__init__()
        self.gain, self.act = gain, act
        self.layer = nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("bias", torch.tensor(bias), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.act(self.gain * self.layer(image) + self.bias)
        return out


class OtherCode(Net):
    def forward(self, image: Tensor) -> Tensor:
        return 2 * super().forward(image)


FILL = {"mask": adaug.Target("mask", fill=0)}
USUAL: dict[str, Any] = {
    "model": Net(), "loader": loader(), "score": score, "views": [Rotate(-60, 60, 3)], "num_draws": 2, "targets": FILL,
}  # fmt: skip
APPLY = functools.partial(adaug.operations.Apply, 0.5, 1.5, 3)
CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"model": nn.Sequential(Net())},
    "a setting": {"model": Net(gain=2.0)},
    "a buffer that is not saved": {"model": Net(bias=1.0)},
    "a function of the network": {"model": Net(act=torch.tanh)},
    "a layer's code": {"model": OtherCode()},
    "a function's network": {"model": lambda x, net=Net(gain=2.0): net(x)},  # noqa: B008
    "the score": {"score": other_score},
    "a captured variable": {"score": scaled(2.0)},
    "a default": {"score": types.FunctionType(score.__code__, globals() | {"THRESHOLD": 0.25})},
    "output_size": {"output_size": 24},
    "fill": {"targets": {"mask": adaug.Target("mask", fill=255)}},
    "a kind": {"targets": FILL | {"label": "other"}},
    "labels": {"loader": loader(label=torch.tensor([2, 2, 1, 0]))},
    "masks": {"loader": loader(mask=torch.zeros(4, 32, 32).long())},
    "something beside": {"loader": loader(names=list("abcd"))},
    "bins": {"views": [Rotate(-60, 60, 5)]},
    "a range of equal names": {"views": [Rotate(-60.1, 60.1, 3)]},
    "draws": {"num_draws": 3},
    "the seed": {"seed": 1},
    "what is better": {"higher_is_better": False},
    "pairs of a flip": {"views": Policy([adaug.Branch("a", [Rotate(-60, 60, 3)], 1.0)], [Flip([(0, 1)])])},
}  # fmt: skip


def audited(path: Any, **changes: Any) -> Audit:
    return adaug.audit(**USUAL | changes, path=path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_is_not_taken_for_another_audit(change: str, tmp_path: Any) -> None:
    path = tmp_path / "one.audit"
    audited(path)
    held = path.read_bytes()
    with pytest.raises(ValueError, match=r"should (hold an audit|give the images).*Found.*delete (it|the file) or name an"):
        audited(path, **CHANGES[change])
    assert path.read_bytes() == held
    other = tmp_path / "other.audit"
    first = audited(other, **CHANGES[change])  # the same change goes on from its own file
    again = audited(other, **CHANGES[change])
    np.testing.assert_array_equal(first.scores, again.scores)


FUNCTIONS = {"code": (APPLY(function=light(1)), APPLY(function=light(2)))}
FUNCTIONS["spread"] = (Rotate(-60, 60, 3), Rotate(-60, 60, 3, random=adaug.operations.ClippedNormal(0, 1, -60, 60)))
FUNCTIONS["scale"] = (Scale(0.5, 2.0, 3), Scale(0.5, 2.0, 3, log=True))


@pytest.mark.parametrize("pair", FUNCTIONS.values(), ids=FUNCTIONS)
def test_views_are_known_by_all_that_they_do(pair: Any, tmp_path: Any) -> None:
    one, other = pair
    before = audited(tmp_path / "one.audit", views=[one])
    with pytest.raises(ValueError, match="another `views`"):
        audited(tmp_path / "one.audit", views=[other])
    with pytest.raises(ValueError, match=r"same (views|families) to be compared"):
        before.compare(adaug.audit(**USUAL | {"views": [other]}))
    before.compare(audited(tmp_path / "one.audit", views=[one]))


def test_what_is_the_same_is_not_computed_again(tmp_path: Any) -> None:
    passes: list[int] = []
    for model in (Net(), Net(), nn.Identity().eval() and Net().train()):  # made anew, and in another mode
        handle = nn.modules.module.register_module_forward_pre_hook(lambda *_: passes.append(1))
        before = len(passes)
        audited(tmp_path / "one.audit", model=model, loader=loader(), num_pictures=0, views=[Rotate(-60, 60, 3)])
        handle.remove()
        assert bool(len(passes) - before) == (before == 0)


def test_audits_of_other_sizes_are_not_compared() -> None:
    whole, small, named = (adaug.audit(**USUAL | {"output_size": size}) for size in (None, 24, 32))
    with pytest.raises(ValueError, match=r"same output_size to be compared\. Found different"):
        whole.compare(small)
    whole.compare(named)
    small.compare(small)


class Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))[:, :, None, None]


def test_a_file_whose_arguments_nobody_can_read_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "one.audit"
    audited(path, model=Locked())
    with pytest.raises(ValueError, match=r"arguments that adaug can compare.*model holds _thread\.lock.*delete it or name"):
        audited(path, model=Locked())
    path.unlink()
    assert len(audited(path, model=Locked())) == 4


# ---- fingerprints


def pairs() -> Iterator[tuple[Any, Any]]:
    """Pairs of values that differ in one thing, and could be taken for the same."""
    values: list[Any] = [
        0,
        0.0,
        False,
        None,
        "",
        b"",
        (),
        {},
        torch.zeros(1),
        torch.zeros(1).double(),
        np.zeros(1),
        1,
        "1",
        "a",
    ]
    values += [
        torch.zeros(1, 1),
        torch.tensor([]),
        frozenset(),
        {1},
        {"a": 1},
        {"a": 2},
        {"b": 1},
        torch.float32,
        int,
        len,
        sum,
    ]
    values += [torch.sigmoid, torch.tanh, operator.add, operator.sub, functools.partial(score), functools.partial(score, None)]
    values += [score, other_score, scaled(1), scaled(2), scaled(scaled(1)), Net().forward, Net(2.0).forward, Net, OtherCode]
    values += [functools.wraps(score)(lambda *given: score(*given)), functools.wraps(score)(lambda *given: other_score(*given))]
    values += [range(3), slice(3), 1 + 2j, np.float32(1), [[1], 2]]
    values += [[1, [2]], [1, 2], torch.Generator().manual_seed(1), torch.Generator().manual_seed(2), torch.device("cpu"), ...]
    yield from itertools.combinations(values, 2)


def test_different_things_have_different_fingerprints() -> None:
    alike = [(a, b) for a, b in pairs() if fingerprint(a) == fingerprint(b)]
    assert alike == []


@pytest.mark.parametrize("make", [
    lambda: scaled(2), Net, lambda: Net().forward, lambda: functools.partial(score, batch=3),
    lambda: [torch.ones(2), {"a": {1, 2}}],
    lambda: torch.compile(Net(), backend="eager"), lambda: torch.fx.symbolic_trace(Net()),
    lambda: adaug.policies.wide([(0, 1)]), lambda: adaug.keypoints.normalized_error,
])  # fmt: skip
def test_equal_things_have_equal_fingerprints(make: Callable[[], Any]) -> None:
    assert fingerprint(make()) == fingerprint(make())


def test_a_value_inside_itself_has_an_end() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [2]
    other.append(other)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    "value", [threading.Lock(), (i for i in "a"), memoryview(b"a"), torch.zeros(1, device="meta")], ids=nets.name_of
)
def test_what_cannot_be_read_has_none(value: Any) -> None:
    for holder in (value, [value], functools.partial(score, value), scaled(value)):
        with pytest.raises(UnknownError):
            fingerprint(holder)


# ---- every field comes back as it was

NAMES = st.text(min_size=1, max_size=4).filter(lambda text: "\0" not in text and not text.isspace())
COUNTS = st.integers(0, 2**40)


@st.composite
def audits(draw: Any) -> Audit:
    n, parts = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    views = tuple(f"v{i}" for i in range(draw(st.integers(1, 3))))
    axis = Axis(
        "turn",
        "°",
        views,
        tuple(draw(st.floats(allow_nan=False)) for _ in views),
        draw(st.sampled_from([len(views), (1, len(views))])),
    )
    families = [
        FamilyTable("as it is", ("as it is",), 0),
        FamilyTable("turn", views, 1, (axis,), draw(st.sampled_from([(), views]))),
    ]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    several = draw(st.sampled_from([list, tuple, np.array]))
    pixels = random.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    return Audit(
        random.random((n, 1 + len(views), *([parts] if parts else []))),
        draw(st.sampled_from([list, tuple]))(families),
        draw(st.booleans()),
        {name: several(range(parts)) for name in draw(st.lists(NAMES, max_size=2))},
        [str(i) for i in range(n)],
        draw(st.sampled_from([int, np.int64]))(draw(st.integers(0, 2**40))),
        draw(st.dictionaries(NAMES, COUNTS, max_size=2)),
        [Picture(0, 1, pixels, {"label": np.array(1)}, {"keypoints": random.random((2, 2)).astype(np.float32)})],
        list("abc")[:n],
        draw(st.dictionaries(NAMES, NAMES, max_size=2)),
    )


def same(one: Any, other: Any) -> bool:
    """Equal values of equal types, in whatever they hold."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    return one == other or (one != one and other != other)


@hypothesis.given(audits())
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_every_field_keeps_its_value_and_its_type(tmp_path_factory: Any, audit: Audit) -> None:
    read = Audit.load(audit.save(tmp_path_factory.mktemp("a") / "one.audit"))
    for name in audit.__dataclass_fields__:
        assert same(getattr(audit, name), getattr(read, name)), name
    audit.compare(read)
    read.compare(audit)


def test_a_gate_with_groups_holds_after_a_load(tmp_path: Any) -> None:
    def joints(output: Any, batch: dict[str, Any]) -> Tensor:
        return (output.mean((2, 3)) > batch["keypoints"].mean(2) / 60).float()

    made = [adaug.audit(**USUAL | {"score": joints, "groups": {"a": groups}}) for groups in ([0], (0,), range(1))]
    for audit in [*made, Audit.load(made[0].save(tmp_path / "one.audit"))]:
        assert audit.groups == {"a": (0,)}
        assert made[0].compare(audit).worse() == audit.compare(made[0]).worse() == []
