"""A step leaves nothing behind in the user's model, batch and random state but the user's own training pass."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from torch import Tensor, nn

import adaug


class Stop(Exception):
    """Raised by a loss on purpose."""


class Raises:
    """A loss that raises at its n-th call."""

    def __init__(self, at: int, error: type[BaseException] = Stop) -> None:
        self.at, self.calls, self.error = at, 0, error

    def __call__(self, output: object, batch: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return nets.loss_fn(output, batch)


def frozen_parts(model: nn.Module) -> nn.Module:
    """What users do by hand: a BN layer in eval, a frozen layer, gradients that wait for the next optimizer step."""
    model.stem[1].eval()
    model.stacks[1].skip1.eval()
    model.heads[0].requires_grad_(False)
    for i, parameter in enumerate(model.parameters()):
        if parameter.requires_grad and i % 2:
            parameter.grad = torch.full_like(parameter, 0.5)
    return model


def in_mode(model: nn.Module, mode: str) -> nn.Module:
    """A model in "train", "eval" or "mixed" mode."""
    return frozen_parts(model) if mode == "mixed" else model.train(mode == "train")


# ---- nothing to do: the user's own step


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_an_empty_policy_is_the_users_own_step_bit_for_bit(network):
    def train(augmented: bool):
        torch.manual_seed(3)
        model = nets.make_network(network)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        augmenter = adaug.AdversarialAugmenter(adaug.Policy(branches=()), seed=0)
        seen = []
        for i in range(8):
            batch = nets.make_batch(6, seed=i)
            if augmented:
                result = augmenter.step(model, batch, nets.loss_fn)
                losses, loss = result.losses, result.loss
            else:
                losses = nets.loss_fn(model(batch["image"]), batch)
                loss = losses.mean()
            optimizer.zero_grad()
            loss.backward()
            seen.append((nets.cloned(losses), loss.detach(), [nets.cloned(p.grad) for p in model.parameters()]))
            optimizer.step()
        return seen, model.state_dict(), torch.get_rng_state()

    assert nets.same(train(True), train(False))


def test_a_view_that_changes_nothing_costs_one_forward_and_hands_back_the_same():
    model, batch = nets.make_network(), nets.make_batch()
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    result = adaug.AdversarialAugmenter(adaug.Policy(())).step(model, batch, nets.loss_fn)
    assert len(runs) == 1
    assert result.batch["image"] is batch["image"]
    assert nets.same(result.batch, batch)
    assert not result.branch.any()


def test_nothing_learned_costs_one_forward_a_step():
    model = nets.make_network()
    augmenter = nets.make_augmenter(adaug.policies.uniform(adaug.policies.paper([(0, 1)])))
    augmenter.bind(model, nets.make_batch())
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    for i in range(3):
        augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
    assert len(runs) == 3


def test_one_distribution_for_all_images_needs_no_look():
    model = nets.make_network()
    augmenter = nets.make_augmenter(features=(), generator=adaug.learners.OneForAll, scoring="train", update_every=4)
    augmenter.bind(model, nets.make_batch())
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    runs.clear()
    for i in range(4):
        result = augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
        assert "entropy/aho.occlude" in result.metrics
    assert len(runs) == 4 + 1  # one comparison in four steps
    assert result.view.feature_masks


# ---- looking and scoring


def before_training(augmenter: object, model: nn.Module, batch: dict[str, Tensor]) -> tuple[int, dict]:
    """Runs a step up to the call of the training forward; the traces at that moment."""
    seen: list[dict] = []

    def spy(module: nn.Module, args: tuple) -> None:
        if torch.is_grad_enabled():
            seen.append(nets.traces(model))

    handle = model.register_forward_pre_hook(spy)
    try:
        augmenter.step(model, batch, nets.loss_fn)
    finally:
        handle.remove()
    assert len(seen) == 1
    seen[0]["hooks"] -= 1  # the spy
    return seen[0]


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
@pytest.mark.parametrize("policy", ["paper", "released"])
@pytest.mark.parametrize("scoring", ["eval", "train"])
def test_looking_and_scoring_leave_no_trace(first, policy, scoring):
    model = frozen_parts(nets.make_network())
    augmenter = nets.make_augmenter(getattr(adaug.policies, policy)([(0, 1)]), scoring=scoring)
    if not first:
        augmenter.step(model, nets.make_batch(seed=1), nets.loss_fn)
    before = nets.traces(model)
    at_training = before_training(augmenter, model, nets.make_batch())
    if first:
        at_training["hooks"] = before["hooks"]  # binding attaches the library's own
    assert nets.differences(before, at_training) == []


class Listener(nn.Module):
    """Remembers in which behaviour, and with how many rows, its network ran."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.heard = inner, []

    def forward(self, image: Tensor) -> Tensor:
        self.heard.append((self.training, torch.is_grad_enabled(), len(image)))
        return self.inner(image)


@pytest.mark.parametrize("difficulty", [None, lambda output, batch: -nets.loss_fn(output, batch)], ids=["loss", "difficulty"])
def test_scoring_in_training_takes_the_adversarial_losses_from_the_training_pass(difficulty):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Dropout(), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    listener, shown = Listener(model), []
    real = adaug.RewardPenalty()

    def update(p, chosen, harder):
        shown.append(harder)
        return real(p, chosen, harder)

    arguments = {"scoring": "train", "difficulty": difficulty, "update": update}
    augmenter = nets.make_augmenter(features=["inner.1"], occlude=["inner.1"], **arguments)
    augmenter.bind(listener, nets.make_batch())
    augmenter.step(listener, nets.make_batch(), nets.loss_fn)  # the first checks the loss as well
    listener.heard.clear(), shown.clear()
    measured = []

    def loss_fn(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        measured.append(nets.loss_fn(output, batch).detach())
        return nets.loss_fn(output, batch)

    result = augmenter.step(listener, nets.make_batch(seed=1), loss_fn)
    on_trial = torch.cat([torch.nonzero(result.branch == i).flatten() for i in (1, 2)])
    looks = [(False, False, 6)]
    assert listener.heard == [*looks, (True, False, 6), (True, True, 9)]  # references, then the training pass
    if difficulty is None:
        usual, trained = measured
        asr_scale, asr_rotate, aho = shown
        assert torch.equal(asr_scale, asr_rotate)
        assert torch.equal(torch.cat([asr_scale, aho]), trained[on_trial] > usual)


def test_scoring_in_training_takes_a_single_row():
    """One row has no batch statistics where a feature map is a single pixel."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    learned = adaug.learners.Paper(features=["0"], scoring="train")
    policy = adaug.Policy([adaug.Branch("asr", [adaug.Rotate(-30, 30, 9)], 0.5, learned)], [adaug.Flip([(0, 1)])])
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    for i in range(4):
        result = augmenter.step(model, nets.make_batch(2, seed=i), lambda output, batch: output.square().sum(1))
        assert result.branch.sum() == 1
        assert "reward_rate/asr" in result.metrics


def test_scoring_in_training_refuses_statistics_of_all_ranks():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nets.make_network())
    with pytest.raises(ValueError, match=r"SyncBatchNorm.*use scoring='eval'"):
        nets.make_augmenter(scoring="train").bind(model, nets.make_batch())
    assert nets.count_hooks(model) == 0


def test_scoring_in_training_writes_no_buffer_that_a_pending_backward_needs():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
            self.register_buffer("table", torch.ones(1, 4, 16, 16))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, image: Tensor) -> Tensor:
            self.calls += self.training
            x = self.body[1](self.body[0](image))
            return self.body[2](x * self.table)

    model, augmenter = Positions(), nets.make_augmenter(features=["body.1"], occlude=["body.1"], scoring="train")
    first, second = (augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn).loss for i in range(2))
    assert model.calls == 2
    assert model.body[1].num_batches_tracked == 2
    (first + second).backward()  # two steps, one backward pass, as with accumulated losses


@pytest.mark.parametrize("model_mode", ["train", "eval", "mixed"])
def test_a_step_leaves_flags_and_grads_and_hooks(model_mode):
    model = nets.make_network()
    model = in_mode(model, model_mode)
    augmenter = nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    before = nets.traces(model)
    for i in range(3):
        augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
    changed = set(nets.differences(before, nets.traces(model)))
    assert changed <= ({"random", "buffers"} if model_mode != "eval" else set())  # the training passes' own


@pytest.mark.parametrize("act", ["bind", "distributions", "pretrain", "random"])
def test_everything_but_a_step_leaves_no_trace_at_all(act):
    model, batch = frozen_parts(nets.make_network()), nets.make_batch()
    augmenter, before, copied = nets.make_augmenter(), nets.traces(model), nets.cloned(batch)
    if act == "bind":
        augmenter.bind(model, batch)
    elif act == "distributions":
        augmenter.distributions(model, batch)
    elif act == "pretrain":
        augmenter.pretrain(model, [batch], nets.loss_fn, steps=2, max_views=4)
    else:
        augmenter.random(batch)
    assert set(nets.differences(before, nets.traces(model))) <= {"hooks"}
    assert nets.same(batch, copied)


def test_the_batch_that_was_given_is_not_changed():
    batch = nets.make_batch() | {"id": [str(i) for i in range(9)]}
    copied, kept, model, augmenter = nets.cloned(batch), dict(batch), nets.make_network(), nets.make_augmenter()
    for _ in range(3):
        result = augmenter.step(model, batch, nets.loss_fn)
        result.loss.backward()
    assert batch.keys() == kept.keys()
    assert all(batch[key] is kept[key] for key in kept)
    assert nets.same(batch, copied)
    assert result.batch is not batch
    assert result.batch["id"] == batch["id"]


def test_a_frozen_batch_norm_stays_frozen():
    class Frozen(nn.BatchNorm2d):
        def train(self, mode: bool = True):
            return super().train(False)

        def eval(self):
            raise AssertionError("the library should not call a user's eval()")

    model = nets.make_network()
    model.stem[1] = Frozen(8).train()
    before = nets.cloned(dict(model.stem[1].named_buffers()))
    augmenter = nets.make_augmenter()
    for i in range(3):
        augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn).loss.backward()
    assert not model.stem[1].training
    assert nets.same(dict(model.stem[1].named_buffers()), before)


# ---- the training pass


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_the_training_pass_is_a_masked_forward_of_the_augmented_batch(mode):
    model = nets.make_network()
    model = in_mode(model, mode)
    for parameter in model.parameters():
        parameter.grad = None
    augmenter = nets.make_augmenter()
    for i in range(3):
        twin, state = nets.clean_copy(model), torch.get_rng_state()
        model.zero_grad()
        result = augmenter.step(model, nets.make_batch(12, seed=i), nets.loss_fn)
        result.loss.backward()
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        losses = nets.replayed(twin, result)
        losses.mean().backward()
        assert any(not mask.all() for _, mask in result.view.feature_masks)
        assert torch.equal(losses, result.losses)
        assert torch.equal(result.loss, result.losses.mean())
        for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None) == (not mine.requires_grad), name
            assert mine.grad is None or torch.equal(mine.grad, theirs.grad), name
        assert nets.same(dict(model.named_buffers()), dict(twin.named_buffers()))
        assert torch.equal(torch.get_rng_state(), after)


def test_only_rows_of_an_occlusion_branch_are_occluded():
    result = nets.make_augmenter().step(nets.make_network(), nets.make_batch(24), nets.loss_fn)
    ((_, mask),) = result.view.feature_masks
    hidden = (mask == 0).flatten(1).sum(1)
    occluded = result.branch == 2
    assert occluded.sum() == 8
    assert not hidden[~occluded].any()
    assert ((hidden[occluded] == 1) | (hidden[occluded] == 2)).all()


# ---- outside a step


@pytest.mark.parametrize(
    "moment", ["bound", "after a step", "after backward", "raised in score", "raised in train", "interrupted"]
)
def test_outside_a_step_the_model_is_never_masked(moment):
    model, batch = nets.make_network(), nets.make_batch()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    if moment == "after a step":
        augmenter.step(model, batch, nets.loss_fn)
    elif moment == "after backward":
        augmenter.step(model, batch, nets.loss_fn).loss.backward()
    elif moment != "bound":
        at, error = {"raised in score": (1, Stop), "raised in train": (2, Stop), "interrupted": (2, KeyboardInterrupt)}[moment]
        with pytest.raises(error):
            augmenter.step(model, batch, Raises(at, error))
    model.zero_grad()
    for mode in (True, False):
        module = model.train(mode)
        twin, state = nets.clean_copy(module), torch.get_rng_state()
        expected = twin(batch["image"])
        torch.set_rng_state(state)
        found = module(batch["image"])
        assert torch.equal(found, expected)
        found.sum().backward()
        expected.sum().backward()
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(module.parameters(), twin.parameters(), strict=True))
        module.zero_grad()


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2])  # in the pass that scores, in training
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_a_loss_that_raises_leaves_the_model_as_it_was(first, at, error):
    model, batch = frozen_parts(nets.make_network()), nets.make_batch()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    if not first:
        augmenter.step(model, batch, nets.loss_fn)
    before, steps, learned, copied = nets.traces(model), augmenter.steps, nets.generators(augmenter), nets.cloned(batch)
    with pytest.raises(error):
        augmenter.step(model, batch, Raises(at, error))
    own = {"buffers", "random"} if at == 2 else set()  # the training pass itself had run
    assert set(nets.differences(before, nets.traces(model))) <= own
    assert augmenter.steps == steps
    assert nets.same(batch, copied)
    if at < 2:
        assert nets.same(nets.generators(augmenter), learned)
    assert torch.isfinite(augmenter.step(model, batch, nets.loss_fn).losses).all()


@pytest.mark.parametrize("at", range(1, 4))
def test_a_loss_that_raises_in_the_first_step_leaves_a_model_that_still_works(at):
    model, batch = frozen_parts(nets.make_network()), nets.make_batch()
    twin, before, augmenter = nets.clean_copy(model), nets.traces(model), nets.make_augmenter()
    with pytest.raises(Stop):
        augmenter.step(model, batch, Raises(at))
    allowed = {"hooks"} | ({"buffers", "random"} if at == 3 else set())
    assert set(nets.differences(before, nets.traces(model))) <= allowed
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(batch["image"]), twin.eval()(batch["image"]))


def test_a_forward_that_raises_is_passed_on_and_cleaned_up():
    model, batch = nets.make_network(), nets.make_batch()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    before = nets.traces(model)
    handle = model.heads[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        augmenter.step(model, batch, nets.loss_fn)
    handle.remove()
    assert nets.differences(before, nets.traces(model)) == []
    assert torch.equal(model.eval()(batch["image"]), nets.clean_copy(model)(batch["image"]))


def test_hooks_do_not_pile_up():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    hooks = nets.count_hooks(model)
    for i in range(4):
        augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn).loss.backward()
        augmenter.distributions(model, nets.make_batch(seed=i))
    augmenter.pretrain(model, [nets.make_batch()], nets.loss_fn, steps=1, max_views=4)
    assert nets.count_hooks(model) == hooks


# ---- the early stop of a look


class Cautious(nets.Hourglass):
    """A user's forward that falls back when anything fails."""

    def forward(self, image: Tensor) -> Tensor:
        try:
            return super().forward(image)
        except Exception:
            return image.new_zeros(len(image), 2, 16, 16)


def test_a_forward_that_catches_exceptions_does_not_swallow_the_early_stop():
    torch.manual_seed(0)
    model, reached = Cautious(), []
    model.heads[1].register_forward_hook(lambda *_: reached.append(torch.is_grad_enabled()))
    augmenter = nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    reached.clear()
    augmenter.distributions(model, nets.make_batch())
    assert reached == []  # stopped early
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert [graph for graph in reached if graph] == [True]  # scored without a graph, trained once with one


def test_the_look_stops_after_the_last_layer_that_is_read():
    model, ran = nets.make_network(), []
    augmenter = nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    augmenter.distributions(model, nets.make_batch())
    assert any(name.startswith("stacks.0") for name in ran)
    assert not any(name.startswith(("stacks.1", "heads")) for name in ran)


@pytest.mark.parametrize("act", ["step", "pretrain", "distributions"])
def test_a_generator_with_dropout_draws_from_noise_of_its_own(act):
    class Drops(adaug.Generator):
        def forward(self, features):
            return super().forward([torch.nn.functional.dropout(feature) for feature in features])

    model, batch = nets.make_network().eval(), nets.make_batch(12)
    augmenter = nets.make_augmenter(generator=lambda shapes, layouts: Drops(shapes, layouts, width=16, size=8))
    augmenter.bind(model, batch)
    acts = {
        "step": lambda: augmenter.step(model, batch, nets.loss_fn),
        "pretrain": lambda: augmenter.pretrain(model, [batch], nets.loss_fn, steps=1, max_views=4),
        "distributions": lambda: augmenter.distributions(model, batch),
    }
    before = torch.get_rng_state()
    acts[act]()
    assert torch.equal(torch.get_rng_state(), before)
