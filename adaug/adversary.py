"""One branch's player: its generator, how it draws, and how it learns from comparisons."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adaug.generator import Generator, Head, Shape
from adaug.operations import Binned
from adaug.policy import Branch, Settings
from adaug.reward import kl_divergence
from adaug.sampling import Stream, seeded

GeneratorFactory = Callable[[Sequence[Shape], Mapping[str, Head]], nn.Module]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
LogProbs = dict[str, Tensor]
HUGE = 1e9  # its square, summed over a map, is still a number in float32


def default_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam at 1e-3: generators that follow the network without a stage of their own. The paper's is RMSProp at 5e-5."""
    own = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in own)  # many small tensors: one call for all
    return torch.optim.Adam(own, lr=1e-3, fused=fused)


class Adversary:
    """The generator of one branch and its optimizer, apart from the user's."""

    def __init__(
        self,
        branch: Branch,
        shapes: Sequence[Shape],
        make_generator: GeneratorFactory | None,
        make_optimizer: OptimizerFactory | None,
        stream: Stream,
        device: torch.device,
    ) -> None:
        self.branch = branch
        with seeded(stream.seed), torch.device("cpu"):  # made alike wherever it will be
            self.generator = (make_generator or Generator)(shapes, branch.heads).to(device, torch.float32)
        if dist_size() > 1:
            for tensor in [*self.generator.parameters(), *self.generator.buffers()]:
                dist.broadcast(tensor.detach(), 0)
        self.optimizer = (make_optimizer or default_optimizer)(self.generator.parameters())

    def predict(self, features: Sequence[Tensor]) -> LogProbs:
        """Log-probabilities [n, k] of each head from feature maps, in float32 also inside autocast.

        Features that are not finite count as 0, huge ones are cut: a broken image must not break the generator for all.
        """
        rows = [torch.nan_to_num(feature.detach().float(), 0.0, 0.0, 0.0).clamp(-HUGE, HUGE) for feature in features]
        with torch.autocast(rows[0].device.type, enabled=False):
            logits: dict[str, Tensor] = self.generator(rows)
        for name, head in self.branch.heads.items():
            k = head if isinstance(head, int) else head[0] * head[1]
            found = tuple(logits[name].shape) if name in logits else "nothing"
            if found != (len(rows[0]), k):
                raise ValueError(f"The generator should return logits {(len(rows[0]), k)} for {name!r}. Found {found}.")
        return {name: torch.log_softmax(logits[name].float(), 1) for name in self.branch.heads}

    def learn(self, pairs: Mapping[str, tuple[Tensor, Tensor]], valid: Tensor) -> None:
        """One step on the KL divergence of Eq. (3) and (4) between targets and predictions, averaged over rows.

        pairs: head -> (target [n, k], log-probabilities [n, k] with graph). valid [n] bool: rows that count. All ranks
        give the same generators the mean over all their rows.
        """
        parameters = [p for p in self.generator.parameters() if p.requires_grad]
        for target, log_probs in pairs.values():
            valid = valid & torch.isfinite(target).all(1) & torch.isfinite(log_probs.detach()).all(1)
        total = torch.zeros((), device=valid.device)
        for target, log_probs in pairs.values():
            safe = torch.where(valid[:, None], target, 0), torch.where(valid[:, None], log_probs, 0)
            total = total + kl_divergence(*safe).sum()
        grads: Sequence[Tensor | None] = [None] * len(parameters)
        if total.requires_grad:
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
        flat = torch.cat([
            *(torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, grads, strict=True)),
            valid.sum()[None].float(),
        ])  # fmt: skip
        if dist_size() > 1:
            dist.all_reduce(flat)
        if flat.device.type == "cpu" and not flat[-1]:
            return  # nothing to learn from; on a GPU asking would wait for it, and the gradients are zero
        mean = flat[:-1] / flat[-1].clamp(min=1)
        mean = torch.where(torch.isfinite(mean).all(), mean, 0)  # one row beyond float32 must not end the generator
        for parameter, grad in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimizer's state."""
        return {"generator": self.generator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when a state does not fit, before anything is loaded."""
        owner = f"A state of branch {self.branch.name!r}"
        if not isinstance(state, Mapping) or not {"generator", "optimizer"} <= set(state):
            raise ValueError(f"{owner} should hold `generator` and `optimizer`. Found {state!r:.60}.")
        mine = {name: tuple(tensor.shape) for name, tensor in self.generator.state_dict().items()}
        saved = {name: tuple(tensor.shape) for name, tensor in state["generator"].items()}
        if mine != saved:
            name = next(name for name in [*mine, *saved] if mine.get(name) != saved.get(name))
            raise ValueError(
                f"{owner} should fit its generator. Found {name} of shape {saved.get(name)} for {mine.get(name)}; "
                "use the layers in `features` (and the generator) that it was saved with."
            )
        sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        found = [len(group["params"]) for group in state["optimizer"].get("param_groups", ())]
        if sizes != found:
            raise ValueError(f"{owner} should fit its optimizer, parameter groups of {sizes}. Found groups of {found}.")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # which would go on using these very tensors


def uniform(branch: Branch, n: int, device: torch.device) -> LogProbs:
    """Log-probabilities [n, k] of each head that prefer nothing."""
    heads = {operation.name: operation.bins for operation in branch.operations}
    return {name: torch.full((n, k), 1 / k, device=device).log() for name, k in heads.items()}


@dataclass(frozen=True)
class Draw:
    """What a branch drew for its rows: adversarial settings, the occlusions to compare with, the chosen bins."""

    adversarial: Settings
    reference: Settings
    chosen: dict[str, Tensor]


def draw(branch: Branch, log_probs: LogProbs, stream: Stream) -> Draw:
    """Draws the bins and cells of a branch's operations from its predictions.

    An occlusion is compared with one of as many cells, drawn uniformly: an open view shows all that a hidden one does, and
    more, so that the comparison would say nothing of where.
    """
    drawn = Draw({}, {}, {})
    for operation in branch.operations:
        name, key = operation.name, f"{branch.name}.{operation.name}"
        prediction = log_probs[name].detach()
        n, k = prediction.shape
        if isinstance(operation, Binned):
            drawn.chosen[name] = operation.choose(prediction, stream.uniform(n, k))
            drawn.adversarial[key] = operation.magnitude(drawn.chosen[name], stream.uniform(n))
            if operation.rest is not None and branch.learned:  # at rest elsewhere, but compared like with like
                drawn.reference[key] = operation.random_magnitude(stream.uniform(n))
        else:
            count = operation.count(stream.uniform(n))
            drawn.chosen[name] = operation.choose(prediction, stream.uniform(n, operation.fields, k), count)
            drawn.adversarial[key] = operation.mask(drawn.chosen[name], stream.uniform(n, 2))
            cells = operation.choose(torch.zeros_like(prediction), stream.uniform(n, operation.fields, k), count)
            drawn.reference[key] = operation.mask(cells, stream.uniform(n, 2))
    return drawn


def dist_size() -> int:
    """The number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def dist_rank() -> int:
    """This process among them."""
    return dist.get_rank() if dist_size() > 1 else 0
