"""Each function of the battery passes on a good module and fails on one broken in its way."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported

from pyg_peft import testing
from pyg_peft.symmetries import Symmetries
from pyg_peft.testing import Clouds, random_clouds

CHAIN = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])


def neighbors(clouds: Clouds) -> Tensor:
    """All pairs of different points of a cloud."""
    same = clouds.batch[:, None] == clouds.batch[None, :]
    return (same & ~torch.eye(len(same), dtype=torch.bool)).nonzero().T


class Good(nn.Module):
    """Adds a projection of what the others in the cloud hold, weighted by their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 8).double().requires_grad_(False)
        self.up = nn.Linear(8, 8).double()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor, *, batch_size: int) -> Tensor:
        return x + self.up(self.gather(self.frozen(x), pos, batch))

    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        offset = pos[:, None] - pos[None, :]  # [N, N, 3]
        weight = torch.exp(-offset.square().sum(-1)) * (batch[:, None] == batch[None, :])
        return weight @ h


class Leaky(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return super().gather(h, pos, torch.zeros_like(batch))


class LeakyInGradientsOnly(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        total = h.sum()
        return super().gather(h, pos, batch) + (total - total.detach())


class Blind(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return h


class Ordered(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return h * torch.arange(len(h))[:, None]


class OrderedInClouds(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        first = torch.searchsorted(batch, batch)
        return super().gather(h * (torch.arange(len(h)) - first)[:, None], pos, batch)


class Absolute(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return h * pos[:, :1]


class Directed(Good):
    """Moves along with its cloud, but sees the direction of x."""

    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return super().gather(h, pos * pos.new_tensor([3.0, 1.0, 1.0]), batch)


class Dead(Good):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))


class Drifting(Good):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8).double().requires_grad_(False)

    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.norm(super().gather(h, pos, batch))


class Moving(Good):
    def forward(self, x: Tensor, pos: Tensor, batch: Tensor, *, batch_size: int) -> Tensor:
        with torch.no_grad():
            self.frozen.bias.add_(1e-9)
        return super().forward(x, pos, batch, batch_size=batch_size)


class Constant(Good):
    def forward(self, x: Tensor, pos: Tensor, batch: Tensor, *, batch_size: int) -> Tensor:
        return x


class Breaking(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return h


class Random(Good):
    def gather(self, h: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return h + torch.rand_like(h)


class Sharing(Good):
    def __deepcopy__(self, memo: object) -> "Sharing":
        return self


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds([5, 1, 0, 4], generator=generator)


def awake(kind: type[Good], generator: torch.Generator) -> Good:
    torch.manual_seed(0)
    module = kind()
    testing.randomize_(module, generator)
    return module


def test_clouds_are_ragged_sorted_and_reproducible(generator: torch.Generator):
    clouds = random_clouds([2, 0, 3], channels=4, generator=generator)
    again = random_clouds([2, 0, 3], channels=4, generator=torch.Generator().manual_seed(0))
    assert clouds.batch.tolist() == [0, 0, 2, 2, 2] and clouds.batch_size == 3
    assert torch.equal(clouds.x, again.x) and torch.equal(clouds.pos, again.pos)
    assert torch.equal(clouds.alone(2).pos, clouds.pos[2:])
    order = testing.random_order(clouds, generator)
    assert torch.equal(clouds.batch[order], clouds.batch)
    assert sorted(order.tolist()) == list(range(5))
    many = random_clouds([9, 0, 8, 1], generator=generator)
    kept = testing.random_order(many, generator, keep_first=True)
    assert kept[[0, 9, 17]].tolist() == [0, 9, 17] and sorted(kept.tolist()) == list(range(18))
    assert kept.tolist() != list(range(18)) and torch.equal(many.batch[kept], many.batch)


def test_randomize_moves_what_is_trained_and_nothing_else(generator: torch.Generator):
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(nn.Linear(4, 4), norm, nn.BatchNorm1d(4).requires_grad_(False))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    testing.randomize_(net, generator)
    changed = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    own = {"weight", "bias", "running_mean", "running_var"}
    assert changed == {"0.weight", "0.bias"} | {f"1.{name}" for name in own}
    assert norm.running_var is not None and bool((norm.running_var > 0).all())


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        ("assert_permutation_equivariant", Ordered),
        ("assert_translation_invariant", Absolute),
        ("assert_rotation_invariant", Directed),
        ("assert_sensitive", Blind),
    ],
)
def test_symmetries(check: str, broken: type[Good], clouds: Clouds, generator: torch.Generator):
    function = getattr(testing, check)
    function(awake(Good, generator), clouds, generator=generator)
    with pytest.raises(AssertionError, match="The output"):
        function(awake(broken, generator), clouds, generator=generator)


TRUTH = Symmetries(permutation="equivariant")


@TRUTH
class Honest(Good):
    """Gathers by distance.

    Symmetries:
    """


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ({"permutation": None}, "Lying denies permutation equivariance, which holds"),
        ({"permutation": "invariant"}, "10 rows, not the 4 of one per cloud"),
        ({"first_point": True}, "Lying denies permutation equivariance if the first points change"),
        ({"translation": False}, "Lying denies translation invariance, which holds"),
        ({"rotation": False}, "Lying denies rotation invariance, which holds"),
        ({"depends_on": ("x",)}, "Lying claims independence of 'pos': The output depends on 'pos'"),
        ({"depends_on": ("pos",)}, "Lying claims independence of 'x': The output depends on 'x'"),
        ({"independent": "rows"}, "Lying claims independence of rows"),
    ],
)
def test_a_lie_about_symmetries(
    lie: dict[str, Any], found: str, clouds: Clouds, generator: torch.Generator
):
    class Lying(Honest):
        pass

    testing.assert_symmetries(awake(Honest, generator), clouds, generator=generator)
    replace(TRUTH, **lie)(Lying)
    with pytest.raises(AssertionError, match=found):
        testing.assert_symmetries(awake(Lying, generator), clouds, generator=generator)


@pytest.mark.parametrize(
    ("broken", "truth", "lie", "found"),
    [
        (
            Absolute,
            {"translation": False, "rotation": False, "independent": "rows"},
            {"rotation": False, "independent": "rows"},
            "Absolute claims translation",
        ),
        (Directed, {"rotation": False}, {}, "Directed claims rotation"),
        (OrderedInClouds, {"permutation": None}, {}, "OrderedInClouds claims permutation equi"),
        (Blind, {"depends_on": ("x",), "independent": "rows"}, {"independent": "rows"}, "of 'pos'"),
        (
            Blind,
            {"depends_on": ("x",), "independent": "rows"},
            {"depends_on": ("x",)},
            "of rows, which holds",
        ),
    ],
)
def test_symmetries_that_a_module_lacks(
    broken: type[Good],
    truth: dict[str, Any],
    lie: dict[str, Any],
    found: str,
    clouds: Clouds,
    generator: torch.Generator,
):
    module = awake(broken, generator)
    testing.assert_symmetries(module, clouds, generator=generator, claimed=replace(TRUTH, **truth))
    with pytest.raises(AssertionError, match=found):
        testing.assert_symmetries(
            module, clouds, generator=generator, claimed=replace(TRUTH, **lie)
        )


@pytest.mark.parametrize("claimed", [1, 2, 3])
def test_the_declared_reach(claimed: int, generator: torch.Generator):
    """A point sees two neighbors to its left, so two hops are neither too few nor too many."""
    clouds = random_clouds([6, 5], generator=generator)

    def left(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        order = pos[:, 0].argsort()
        order = order[batch[order].argsort(stable=True)]
        out = x.clone()
        for step in (1, 2):
            to, source = order[step:], order[:-step]
            inside = batch[to] == batch[source]
            out = out.index_add(0, to[inside], x[source[inside]])
        return out

    def reach(clouds: Clouds, num_hops: int) -> Tensor:
        order = clouds.pos[:, 0].argsort()
        order = order[clouds.batch[order].argsort(stable=True)]
        inside = clouds.batch[order[1:]] == clouds.batch[order[:-1]]
        edges = torch.stack([order[:-1][inside], order[1:][inside]])
        return testing.hops(edges, clouds.batch.numel(), num_hops)

    declared = replace(TRUTH, rotation=False, reach=claimed)
    arguments: dict[str, Any] = {"generator": generator, "claimed": declared}
    if claimed == 2:
        testing.assert_symmetries(left, clouds, reach=reach, **arguments)
    else:
        with pytest.raises(
            AssertionError, match=f"left (claims|denies) locality within {min(claimed, 2)} "
        ):
            testing.assert_symmetries(left, clouds, reach=reach, **arguments)
    with pytest.raises(ValueError, match=f"declared {claimed}"):
        testing.assert_symmetries(left, clouds, **arguments)
    with pytest.raises(ValueError, match="at most 3 points"):
        testing.assert_symmetries(
            left,
            random_clouds([3, 2], generator=generator),
            reach=lambda *_: ~torch.zeros(5, 5).bool(),
            **arguments,
        )


def test_order_given_the_first_point(clouds: Clouds, generator: torch.Generator):
    def from_the_first(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        first = torch.searchsorted(batch, batch)
        return pos - pos[first]

    check = testing.assert_permutation_equivariant
    check(from_the_first, clouds, generator=generator, keep_first=True)
    with pytest.raises(AssertionError, match="the order of the points"):
        check(from_the_first, clouds, generator=generator)
    with pytest.raises(AssertionError, match="the order of the points"):
        check(awake(Ordered, generator), clouds, generator=generator, keep_first=True)


def test_rotation_notices_a_handedness(clouds: Clouds, generator: torch.Generator):
    def handed(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return torch.linalg.det(pos[:3])[None]

    with pytest.raises(AssertionError, match="a reflection"):
        testing.assert_rotation_invariant(handed, clouds, generator=generator)


@pytest.mark.parametrize("broken", [Leaky, LeakyInGradientsOnly])
def test_batch_isolation(broken: type[Good], clouds: Clouds, generator: torch.Generator):
    testing.assert_batch_isolated(awake(Good, generator), clouds)
    with pytest.raises(AssertionError, match=r"depends on the others|gradient for"):
        testing.assert_batch_isolated(awake(broken, generator), clouds)


def test_batch_isolation_of_clouds(clouds: Clouds, generator: torch.Generator):
    def pooled(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return x.new_zeros(batch_size, x.size(1)).index_add(0, batch, x)

    def leaky(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return pooled(x, pos, batch, batch_size).softmax(dim=0)

    testing.assert_batch_isolated(pooled, clouds, rows="cloud")
    with pytest.raises(AssertionError, match="cloud 0 depends"):
        testing.assert_batch_isolated(leaky, clouds, rows="cloud")
    with pytest.raises(ValueError, match="at least two clouds"):
        testing.assert_batch_isolated(pooled, clouds.alone(0), rows="cloud")


def test_locality(generator: torch.Generator):
    clouds = random_clouds([5], generator=generator)

    def pass_on(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return x.index_add(0, CHAIN[1], x[CHAIN[0]])

    def pass_on_twice(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return pass_on(pass_on(x, pos, batch, 1), pos, batch, 1)

    testing.assert_local(pass_on, clouds, testing.hops(CHAIN, 5))
    testing.assert_local(pass_on_twice, clouds, testing.hops(CHAIN, 5, num_hops=2))
    with pytest.raises(AssertionError, match="Row 2 is influenced by point 0"):
        testing.assert_local(pass_on_twice, clouds, testing.hops(CHAIN, 5))
    with pytest.raises(AssertionError, match="locality is empty"):
        testing.assert_local(awake(Blind, generator), clouds, testing.hops(CHAIN, 5))


def test_gradients(clouds: Clouds, generator: torch.Generator):
    testing.assert_gradients(awake(Good, generator), clouds)
    with pytest.raises(AssertionError, match="Dead parameters: unused"):
        testing.assert_gradients(awake(Dead, generator), clouds)
    module = awake(Good, generator)
    module.frozen.weight.grad = torch.ones(8, 8).double()
    testing.assert_gradients(module, clouds)  # an old gradient is no finding
    assert module.frozen.weight.grad is None


@pytest.mark.parametrize(
    ("broken", "name"), [(Drifting, "norm.running_mean"), (Moving, "frozen.bias")]
)
def test_frozen_after_step(
    broken: type[Good], name: str, clouds: Clouds, generator: torch.Generator
):
    testing.assert_frozen_after_step(awake(Good, generator), clouds)
    with pytest.raises(AssertionError, match=f"Moved although frozen: {name}"):
        testing.assert_frozen_after_step(awake(broken, generator), clouds)
    with pytest.raises(AssertionError, match="Nothing is trainable"):
        testing.assert_frozen_after_step(Good().requires_grad_(False), clouds)


def test_checkpointing(clouds: Clouds, generator: torch.Generator):
    testing.assert_checkpoints(awake(Good, generator), clouds)
    calls: list[int] = []

    def counting(module: Good, clouds: Clouds) -> Tensor:
        calls.append(1)
        return testing.call_flat(module, clouds) * len(calls)

    with pytest.raises(AssertionError, match="Checkpointing changes"):
        testing.assert_checkpoints(awake(Good, generator), clouds, call=counting)


def test_identity(clouds: Clouds, generator: torch.Generator):
    testing.assert_identity_at_init(Good(), clouds, reference=clouds.x, generator=generator)
    with pytest.raises(AssertionError, match="not the identity"):
        module = awake(Good, generator)
        testing.assert_identity_at_init(module, clouds, reference=clouds.x, generator=generator)
    with pytest.raises(AssertionError, match="no effect"):
        testing.assert_identity_at_init(Constant(), clouds, reference=clouds.x, generator=generator)


def test_saving(clouds: Clouds, generator: torch.Generator):
    def save(module: nn.Module, folder):
        torch.save(module.state_dict(), folder / "all.pt")

    def save_part(module: Good, folder):
        torch.save({**Good().state_dict(), **module.up.state_dict(prefix="up.")}, folder / "all.pt")

    def load(folder) -> Good:
        torch.manual_seed(1)
        fresh = Good()
        fresh.load_state_dict(torch.load(folder / "all.pt"))
        return fresh

    module = awake(Good, generator)
    testing.assert_saved_and_loaded(module, clouds, save=save, load=load)
    with pytest.raises(AssertionError, match="Loading changes the output"):
        testing.assert_saved_and_loaded(module, clouds, save=save_part, load=load)
    with pytest.raises(AssertionError, match="the saved module itself"):
        testing.assert_saved_and_loaded(module, clouds, save=save, load=lambda folder: module)


def test_copies(clouds: Clouds, generator: torch.Generator):
    testing.assert_deepcopy_and_pickle(awake(Good, generator), clouds)
    with pytest.raises(AssertionError, match="shares memory"):
        testing.assert_deepcopy_and_pickle(awake(Sharing, generator), clouds)
    with pytest.raises(AssertionError, match="changes the output"):
        testing.assert_deepcopy_and_pickle(awake(Random, generator), clouds)


def test_compiling(clouds: Clouds, generator: torch.Generator):
    batches = [clouds, random_clouds([3, 4], generator=generator)]
    testing.assert_compiles(awake(Good, generator), batches, backend="eager")
    with pytest.raises(Unsupported):
        testing.assert_compiles(awake(Breaking, generator), batches, backend="eager")
    with pytest.raises(ValueError, match="two sizes"):
        testing.assert_compiles(awake(Good, generator), [clouds, clouds], backend="eager")


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        (lambda m: m.register_forward_hook(lambda *_: None), "hooks of the model"),
        (lambda m: setattr(m, "peft", nn.Identity()), "the module peft"),
        (lambda m: m.frozen.weight.data.add_(1e-12), "the value of frozen.weight"),
        (lambda m: setattr(m, "up", nn.Linear(8, 8).double()), "the module up"),
        (lambda m: setattr(m, "secret", 1), "attributes of the model"),
    ],
)
def test_traces(trace, found: str, clouds: Clouds, generator: torch.Generator):
    def attach(model: nn.Module) -> nn.Module:
        model.register_module("adapter", nn.Linear(2, 2))
        return model

    def detach(model: nn.Module) -> nn.Module:
        del model.adapter
        return model

    def spoil(model: nn.Module) -> nn.Module:
        trace(model)
        return detach(model)

    def pristine(model: nn.Module, clouds: Clouds) -> Tensor:
        return testing.call_flat(model, clouds).detach()

    arguments: dict[str, Any] = {"attach": attach, "generator": generator, "call": pristine}
    model = Good().requires_grad_(False)
    testing.assert_leaves_no_trace(model, clouds, detach=detach, **arguments)
    with pytest.raises(AssertionError, match=found):
        testing.assert_leaves_no_trace(model, clouds, detach=spoil, **arguments)


def test_another_object_is_a_trace(clouds: Clouds, generator: torch.Generator):
    with pytest.raises(AssertionError, match="got another object"):
        testing.assert_leaves_no_trace(
            Good().requires_grad_(False),
            clouds,
            attach=lambda model: model,
            detach=lambda model: Good(),
            generator=generator,
        )
