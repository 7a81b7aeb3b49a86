"""Small networks, batches and losses for the life-cycle tests, and what a test needs to compare two states of a model."""

# ruff: noqa: NPY002
from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import adaug
from adaug._batches.parse import parse
from adaug.learners.paper import PaperState
from adaug.learners.running import RunningState

torch.set_num_threads(1)

SIDE = 32
FEATURES = ["stacks.0.skip*", "stacks.0.neck"]
OCCLUDE = ["stacks.*.skip*", "stacks.*.neck"]
BRIDGES = ("skip0", "skip1", "neck")  # at 16, 8 and 4 pixels


class Stack(nn.Module):
    """One hourglass: skips at 16 and 8 pixels, a neck at 4."""

    def __init__(self, width: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.skip0, self.skip1, self.neck = (_block(width, norm, dropout) for _ in BRIDGES)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.skip0(x)
        middle = self.skip1(F.max_pool2d(x, 2))
        coarse = self.neck(F.max_pool2d(x, 4))
        return fine + F.interpolate(middle + F.interpolate(coarse, scale_factor=2), scale_factor=2)


def _block(width: int, norm: bool, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout)
    )


class Hourglass(nn.Module):
    """Conv, BN, dropout and skips. returns: the "sum" of the stacks' heat maps, a "list" or a "dict" of them.

    checkpointing: None, or `use_reentrant` of the checkpoint around each stack.
    """

    def __init__(
        self, *, norm: bool = True, dropout: float = 0.2, returns: str = "sum", checkpointing: bool | None = None
    ) -> None:
        super().__init__()
        self.returns, self.checkpointing = returns, checkpointing
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU())
        self.stacks = nn.ModuleList(Stack(8, norm, dropout) for _ in range(2))
        self.heads = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(2))

    def forward(self, image: Tensor) -> Any:
        x, outputs = self.stem(image), []
        for stack, head in zip(self.stacks, self.heads, strict=True):
            y = stack(x) if self.checkpointing is None else checkpoint(stack, x, use_reentrant=self.checkpointing)
            x = x + y
            outputs.append(head(x))
        if self.returns == "list":
            return outputs
        return {"stack0": outputs[0], "heatmaps": outputs[1]} if self.returns == "dict" else sum(outputs)


class Classifier(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * 64, 3))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(image))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hourglass": Hourglass,
    "without BN": lambda: Hourglass(norm=False),
    "list of stacks": lambda: Hourglass(returns="list"),
    "dict": lambda: Hourglass(returns="dict"),
    "classifier": Classifier,
}


class Noise:
    """A stream that gives the noise that it was given."""

    def __init__(self, noise: Tensor) -> None:
        self.noise, self.device = noise, noise.device

    def uniform(self, *shape: int) -> Tensor:
        assert tuple(self.noise.shape) == shape
        return self.noise


def make_network(name: str = "hourglass", seed: int = 0) -> nn.Module:
    """A network in training mode whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name]().train()


def layers(name: str) -> dict[str, list[str]]:
    """`features` and `occlude` of a network."""
    if name == "classifier":
        return {"features": ["features.2", "features.5"], "occlude": ["features.2", "features.5"]}
    return {"features": FEATURES, "occlude": OCCLUDE}


def make_batch(n: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Images in [0, 1] with two joints, each a bright blob in its colour."""
    g = torch.Generator().manual_seed(seed)
    points = 6 + 20 * torch.rand(n, 2, 2, generator=g)
    image = 0.2 * torch.rand(n, 3, SIDE, SIDE, generator=g)
    image[:, :2] += 0.8 * adaug.keypoints.render_heatmaps(points, SIDE, 2.0)
    visibility = (torch.rand(n, 2, generator=g) < 0.9).float()
    return {"image": image, "keypoints": points, "visibility": visibility, "label": torch.randint(0, 3, (n,), generator=g)}


def loss_fn(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Heat-map error of every stack per sample, or cross-entropy for class scores. [B]."""
    if isinstance(output, Tensor) and output.ndim == 2:
        return F.cross_entropy(output.float(), batch["label"], reduction="none")
    stacks = list(output.values()) if isinstance(output, dict) else output if isinstance(output, list) else [output]
    target = adaug.keypoints.render_heatmaps(batch["keypoints"], 16, stride=2, visibility=batch["visibility"])
    return torch.stack([(stack.float() - target).square().flatten(1).mean(1) for stack in stacks]).sum(0)


def make_augmenter(
    policy: adaug.Policy | None = None, *, network: str = "hourglass", seed: int | None = 0, **kwargs: Any
) -> Any:
    """An augmenter for a network of this file."""
    policy = adaug.policies.paper(flip_pairs=[(0, 1)]) if policy is None else policy
    arguments = {**layers(network), "generator": SmallGenerator, **kwargs}
    policy = by_paper(policy, **{name: arguments.pop(name) for name in OF_PAPER & arguments.keys()})
    return adaug.AdversarialAugmenter(policy, seed=seed, **arguments)


OF_PAPER = {field.name for field in dataclasses.fields(adaug.learners.Paper)}


def by_paper(policy: adaug.Policy, **arguments: Any) -> adaug.Policy:
    """The policy whose branches that learn by the paper do so with these settings."""
    how = adaug.learners.Paper(**arguments)
    branches = [dataclasses.replace(one, learned=how) if one.learned is True else one for one in policy.branches]
    return dataclasses.replace(policy, branches=branches)


class SmallGenerator(nn.Module):
    """A generator of few tensors for what holds with any: a convolution for each feature map, and heads."""

    def __init__(self, shapes: Any, layouts: Any) -> None:
        super().__init__()
        self.entries = nn.ModuleList(nn.Conv2d(channels, 8, 1) for channels, _, _ in shapes)
        self.heads = nn.ModuleDict()
        for name, layout in layouts.items():
            if isinstance(layout, int):
                self.heads[name] = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, layout))
            else:
                self.heads[name] = nn.Sequential(nn.AdaptiveAvgPool2d(layout), nn.Conv2d(8, 1, 1), nn.Flatten())
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Any) -> dict[str, Tensor]:
        maps = [entry(F.adaptive_avg_pool2d(x, 4)) for entry, x in zip(self.entries, features, strict=True)]
        x = torch.relu(sum(maps[1:], start=maps[0]))
        return {name: head(x) for name, head in self.heads.items()}


def library_generator(shapes: Any, layouts: Any) -> nn.Module:
    """The library's generator at a size for tests."""
    return adaug.Generator(shapes, layouts, width=16, size=8)


def upscaled(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [n, 1, 4, 4] over a feature map, cell by cell."""
    return mask.repeat_interleave(size[0] // 4, 2).repeat_interleave(size[1] // 4, 3)


@contextmanager
def masked_by_hand(model: nn.Module, names: list[str], masks: list[Tensor]) -> Iterator[None]:
    """The paper's occlusion without the library: layers multiplied by the masks [n, 1, 4, 4]."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        for mask in masks:
            output = output * upscaled(mask, (output.shape[-2], output.shape[-1])).to(output.dtype)
        return output

    handles = [module.register_forward_hook(hook) for name, module in model.named_modules() if name in names]
    assert len(handles) == len(names)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


HOURGLASS_BRIDGES = [f"stacks.{i}.{bridge}" for i in range(2) for bridge in BRIDGES]


def replayed(model: nn.Module, result: adaug.StepResult, names: list[str] = HOURGLASS_BRIDGES) -> Tensor:
    """The losses of a step's training pass, made again from its batch and masks on another copy of the model."""
    masks = [mask for _, mask in result.view.feature_masks]
    with masked_by_hand(model, names, masks):
        return loss_fn(model(result.batch["image"]), result.batch)


def clean_copy(model: nn.Module) -> nn.Module:
    """A copy with the same weights, buffers and training flags, and no hook."""
    copy = type(model)(**({"returns": model.returns, "norm": _has_norm(model)} if isinstance(model, Hourglass) else {}))
    copy.load_state_dict(model.state_dict())
    for mine, theirs in zip(copy.modules(), model.modules(), strict=True):
        mine.training = theirs.training
    for mine, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return copy


def _has_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def cloned(value: Any) -> Any:
    """A copy of tensors in mappings, lists and tuples."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: cloned(item) for key, item in value.items()}
    return type(value)(cloned(item) for item in value) if isinstance(value, (list, tuple)) else value


def same(a: Any, b: Any) -> bool:
    """Bit-equality of nested structures of tensors and plain values; NaN equals NaN."""
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))  # NaN is not equal to itself


def traces(model: nn.Module) -> dict[str, Any]:
    """Everything that looking and scoring must leave as it is."""
    return {
        "parameters": {name: p.detach().clone() for name, p in model.named_parameters()},
        "buffers": {name: b.clone() for name, b in model.named_buffers()},
        "grads": {name: cloned(p.grad) for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "hooks": count_hooks(model),
        "random": random_states(),
        "autograd": (torch.is_grad_enabled(), torch.is_autocast_cache_enabled(), torch.is_autocast_enabled("cpu")),
    }


def random_states() -> dict[str, Any]:
    """The global ones."""
    numpy = [value.tolist() if isinstance(value, np.ndarray) else value for value in np.random.get_state()]
    return {"torch": torch.get_rng_state(), "numpy": numpy, "python": random.getstate()}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what changed between two `traces`."""
    return [key for key in before if not same(before[key], after[key])]


def count_hooks(model: nn.Module) -> int:
    """All the hooks on a model's modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def adversaries(augmenter: Any) -> dict[str, Any]:
    """Name of a branch -> its generator and optimizer. Empty if no branch learns by the paper, or before binding."""
    states = augmenter._state.learners.values()
    return next((state.adversaries for state in states if isinstance(state, PaperState)), {})


def running(augmenter: Any) -> RunningState:
    """What running difficulty has learned."""
    return next(state for state in augmenter._state.learners.values() if isinstance(state, RunningState))


def saved_generators(state: Any) -> Any:
    """The part of a state that has the generators and their optimizers, by the names of their branches."""
    return next(part for part in state["learners"].values() if part is not None and "sums" not in part)


def generators(augmenter: Any) -> Any:
    """Copies of what the generators are now, as a state says. None before binding."""
    parts = augmenter.state_dict()["learners"].values()
    return cloned(next((part for part in parts if part is None or "sums" not in part), {}))


def gradients(model):
    """Copies of the gradients by name."""
    return {name: cloned(p.grad) for name, p in model.named_parameters()}


def close_gradients(found, expected):
    """Equal but for the order in which they were summed."""
    scale = max(float(grad.norm()) for grad in expected.values())
    return found.keys() == expected.keys() and all(float((found[n] - expected[n]).norm()) <= 1e-5 * scale for n in found)


def occluding(share=1.0, **kwargs):
    """Every row occluded, nothing else: what is easiest to compare."""
    return make_augmenter(adaug.Policy([adaug.Branch("aho", [adaug.OccludeFeatures()], share)]), **kwargs)


# ---- a smaller one, with every kind of state


class Small(nn.Module):
    """Has every kind of state that a look could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layers(image)
        return result


def small_batches(n: int = 5, canvas: int = 24) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(m, 3, canvas, canvas, generator=generator),
            "keypoints": torch.rand(m, 4, 2, generator=generator) * (canvas - 1),
            "visibility": torch.ones(m, 4),
        }
        for m in (n, 2)
    ]


def small_loss(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return output.square().mean((1, 2, 3)) + batch["keypoints"][..., 0].mean(1) + batch["visibility"].mean(1)


def view_of(batch, pairs, **options):
    """What a view makes of a batch, and its matrix in float64."""
    parsed = parse(batch, options.get("targets"))
    view = adaug.apply.view_of(parsed, pairs, parsed.size)
    matrix = reference.scaled(view.matrix[0].double().numpy(), parsed.size)
    return adaug.apply_view(batch, view, **options), matrix


def name_of(value: Any) -> str:
    """A name for a test, the same in every process: without an address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
