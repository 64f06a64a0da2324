"""The property battery over every public component: a component without a recipe fails."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import scatter, to_dense_batch

from pyg_peft import nn, testing
from pyg_peft.geometry import build_structure
from pyg_peft.symmetries import symmetries_of
from pyg_peft.testing import Call, Clouds, Reach, Rows, random_clouds

CHANNELS = 8
SIZES = [7, 1, 0, 5]
POINTS = st.integers(0, 9)


@dataclass(frozen=True)
class Recipe:
    """How a component is built and called; its symmetries are those that it declares."""

    build: Callable[[], Any]
    call: Call
    rows: Rows = "point"
    # What a fresh component returns, if it claims to be an identity.
    identity: Callable[[Clouds], Tensor] | None = None
    reach: Reach | None = None
    # How a compiled component is called, if some of its work stays outside of the graph.
    call_compiled: Call | None = None


class Asking(torch.nn.Module):
    """A memory bank behind a trained projection: training asks it, and must not move it."""

    def __init__(self, bank: torch.nn.Module) -> None:
        super().__init__()
        self.project = torch.nn.Linear(CHANNELS, CHANNELS)
        self.bank = bank

    def forward(self, x: Tensor) -> Tensor:
        return self.bank(self.project(x), 3).flatten(1)


def table() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    keys = torch.randn(20, CHANNELS, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(keys, dim=-1), keys


def attend_within_clouds(module: Any, clouds: Clouds) -> Tensor:
    size = int(clouds.batch.bincount().max())
    x, mask = to_dense_batch(clouds.x, clouds.batch, 0.0, size, clouds.batch_size)
    return module(x, mask)[mask]


def prompt_from_means(module: Any, clouds: Clouds) -> Tensor:
    mean = scatter(clouds.x, clouds.batch, 0, clouds.batch_size, "mean")
    prior = mean[:, None] * torch.arange(1, 5)[:, None]
    return module(clouds.batch_size, prior=prior)


def adapter_reach(clouds: Clouds, num_hops: int) -> Tensor:
    """A point sees itself, and the centers that it receives from; in two hops their members."""
    structure = build_structure(clouds.pos, clouds.batch, k=3, batch_size=clouds.batch_size)
    num_nodes, num_centers = clouds.batch.numel(), structure.center_index.numel()
    member = torch.zeros(num_centers, num_nodes, dtype=torch.float64)
    if num_hops > 1:
        member[structure.edge_index[1], structure.edge_index[0]] = 1
    else:
        member[torch.arange(num_centers), structure.center_index] = 1
    receives = torch.zeros(num_nodes, num_centers, dtype=torch.float64)
    receives[structure.interp_index[1], structure.interp_index[0]] = 1
    return (receives @ member > 0) | torch.eye(num_nodes, dtype=torch.bool)


def adapter_with_structure(module: Any, clouds: Clouds) -> Tensor:
    size = clouds.batch_size
    structure = build_structure(clouds.pos, clouds.batch, k=3, batch_size=size)
    return module(clouds.x, structure=structure)


RECIPES = {
    "Bottleneck": Recipe(
        build=lambda: nn.Bottleneck(CHANNELS, 4),
        call=lambda module, clouds: module(clouds.x),
        identity=lambda clouds: clouds.x,
    ),
    "GeometryAwareAdapter": Recipe(
        build=lambda: nn.GeometryAwareAdapter(CHANNELS, 4, k=3, attention_channels=6, num_heads=2),
        call=testing.call_flat,
        identity=lambda clouds: clouds.x,
        reach=adapter_reach,
        call_compiled=adapter_with_structure,
    ),
    "LowRankHeteroLinear": Recipe(
        build=lambda: nn.LowRankHeteroLinear(CHANNELS, 6, 3, rank=2),
        call=lambda module, clouds: module(clouds.x, (clouds.x[:, 0] * 5).long() % 3),
        identity=lambda clouds: clouds.x.new_zeros(len(clouds.x), 6),
    ),
    "LowRankLinear": Recipe(
        build=lambda: nn.LowRankLinear(CHANNELS, 6, rank=2),
        call=lambda module, clouds: module(clouds.x),
        identity=lambda clouds: clouds.x.new_zeros(len(clouds.x), 6),
    ),
    "MemoryBank": Recipe(
        build=lambda: Asking(nn.MemoryBank(*table())),
        call=lambda module, clouds: module(clouds.x),
    ),
    "NeighborAttention": Recipe(
        build=lambda: nn.NeighborAttention(CHANNELS, 6, num_heads=2),
        call=attend_within_clouds,
    ),
    "PointPriorPrompt": Recipe(
        build=lambda: nn.PointPriorPrompt(CHANNELS, 4, bottleneck_channels=2),
        call=prompt_from_means,
        rows="cloud",
    ),
    "PromptTokens": Recipe(
        build=lambda: nn.PromptTokens(4, CHANNELS),
        call=lambda module, clouds: module(clouds.batch_size),
        rows="cloud",
    ),
    "parameter_free_attention": Recipe(
        build=lambda: nn.parameter_free_attention,
        call=lambda function, clouds: function(clouds.x, *table(), 3)[0],
    ),
    "quick_gelu": Recipe(
        build=lambda: nn.quick_gelu,
        call=lambda function, clouds: function(clouds.x),
    ),
}
MODULES = sorted(name for name in nn.__all__ if inspect.isclass(getattr(nn, name)))


def build(name: str, *, awake: bool = True) -> Any:
    """Build a component in double precision and eval mode, with random weights."""
    torch.manual_seed(0)
    module = RECIPES[name].build()
    if isinstance(module, torch.nn.Module):
        module = module.double().eval()
        if awake:
            testing.randomize_(module, torch.Generator().manual_seed(1))
    return module


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds(SIZES, CHANNELS, generator=generator)


every_name = pytest.mark.parametrize("name", nn.__all__)
every_module = pytest.mark.parametrize("name", MODULES)


def test_every_component_has_a_recipe_and_declares_its_own_symmetries():
    assert sorted(RECIPES) == sorted(nn.__all__)
    assert [name for name in RECIPES if "symmetries" not in vars(getattr(nn, name))] == []


@every_module
def test_identity_where_claimed_and_nowhere_else(
    name: str, clouds: Clouds, generator: torch.Generator
):
    recipe, module = RECIPES[name], build(name, awake=False)
    documented = "dentity at init" in (getattr(nn, name).__doc__ or "")
    if recipe.identity is not None:
        reference = recipe.identity(clouds)
        testing.assert_identity_at_init(
            module, clouds, reference=reference, generator=generator, call=recipe.call
        )
        assert documented or "Zero at init" in (getattr(nn, name).__doc__ or "")
    else:
        output = recipe.call(module, clouds)
        assert output.shape != clouds.x.shape or not torch.equal(output, clouds.x)


@every_name
@settings(max_examples=10)
@given(
    sizes=st.lists(POINTS, min_size=2, max_size=4).filter(lambda sizes: sum(map(bool, sizes)) > 1),
    seed=st.integers(0, 2**31),
)
def test_clouds_do_not_see_each_other(name: str, sizes: list[int], seed: int):
    recipe, module = RECIPES[name], build(name)
    clouds = random_clouds(sizes, CHANNELS, generator=torch.Generator().manual_seed(seed))
    testing.assert_batch_isolated(module, clouds, call=recipe.call, rows=recipe.rows)
    if symmetries_of(getattr(nn, name)).independent == "rows":
        rows = replace(clouds, batch=torch.arange(len(clouds.x)), batch_size=len(clouds.x))
        testing.assert_batch_isolated(module, rows, call=recipe.call, rows=recipe.rows)


@every_name
@settings(max_examples=10)
@given(
    sizes=st.lists(POINTS.filter(lambda size: size != 2), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 2**31),
)
def test_symmetries(name: str, sizes: list[int], seed: int):
    # Two points are equally far from their centroid: a tie of the canonical start, and left out.
    recipe, module = RECIPES[name], build(name)
    generator = torch.Generator().manual_seed(seed)
    clouds = random_clouds(sizes, CHANNELS, generator=generator)
    common: dict[str, Any] = {"generator": generator, "call": recipe.call}
    declared = symmetries_of(getattr(nn, name))
    testing.assert_permutation_equivariant(
        module, clouds, rows=recipe.rows, keep_first=declared.first_point, **common
    )
    if declared.translation:
        testing.assert_translation_invariant(module, clouds, **common)
    if declared.rotation:
        testing.assert_rotation_invariant(module, clouds, **common)


@every_name
@pytest.mark.parametrize("sizes", [[30, 0, 20], [24]])
@pytest.mark.usefixtures("every_warning")
def test_memory_layout_never_matters(name: str, sizes: list[int], generator: torch.Generator):
    clouds = random_clouds(sizes, CHANNELS, generator=generator)
    testing.assert_layout_invariant(build(name), clouds, call=RECIPES[name].call)


@every_name
def test_what_is_declared_holds_and_what_is_denied_does_not(name: str, generator: torch.Generator):
    recipe = RECIPES[name]
    testing.assert_symmetries(
        build(name),
        random_clouds([9, 1, 0, 6], CHANNELS, generator=generator),
        generator=generator,
        claimed=symmetries_of(getattr(nn, name)),
        call=recipe.call,
        reach=recipe.reach,
    )


@every_module
def test_gradients(name: str, clouds: Clouds):
    testing.assert_gradients(build(name), clouds, call=RECIPES[name].call)


@every_module
def test_nothing_frozen_moves(name: str, clouds: Clouds):
    testing.assert_frozen_after_step(build(name), clouds, call=RECIPES[name].call)


@every_module
def test_saved_and_loaded(name: str, clouds: Clouds):
    def save(module: torch.nn.Module, folder: Any) -> None:
        torch.save(module.state_dict(), folder / "state.pt")

    def load(folder: Any) -> torch.nn.Module:
        fresh = RECIPES[name].build().double()
        fresh.load_state_dict(torch.load(folder / "state.pt"))
        return fresh

    call = RECIPES[name].call
    testing.assert_saved_and_loaded(build(name), clouds, save=save, load=load, call=call)


@every_module
def test_copies(name: str, clouds: Clouds):
    testing.assert_deepcopy_and_pickle(build(name), clouds, call=RECIPES[name].call)


@every_module
def test_checkpointing(name: str, clouds: Clouds):
    testing.assert_checkpoints(build(name), clouds, call=RECIPES[name].call)


@pytest.mark.slow
@every_module
def test_compiles(name: str, clouds: Clouds, generator: torch.Generator):
    batches = [clouds, random_clouds([4, 6, 2], CHANNELS, generator=generator)]
    call = RECIPES[name].call_compiled or RECIPES[name].call
    testing.assert_compiles(build(name), batches, call=call, backend="eager")


@every_module
def test_resetting_is_reproducible(name: str):
    module = RECIPES[name].build()
    if not hasattr(module, "reset_parameters"):
        assert not list(module.bank.parameters()), f"{name} has parameters that it cannot reset"
        return
    states: list[dict[str, Tensor]] = []
    for _ in range(2):
        torch.manual_seed(3)
        module.reset_parameters()
        states.append({key: value.clone() for key, value in module.state_dict().items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.slow
def test_geometry_is_compiled_with_the_adapter(generator: torch.Generator):
    def one_cloud(module: Any, clouds: Clouds) -> Tensor:
        return module(clouds.x, clouds.pos)

    batches = [random_clouds([size], CHANNELS, generator=generator) for size in (9, 12)]
    adapter = build("GeometryAwareAdapter")
    testing.assert_compiles(adapter, batches, call=one_cloud, backend="eager")


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_geometry_of_ragged_clouds_is_compiled_too(train: bool, generator: torch.Generator):
    def several(module: Any, clouds: Clouds) -> Tensor:
        return module(clouds.x, clouds.pos, clouds.batch, batch_size=clouds.batch_size)

    batches = [random_clouds(sizes, CHANNELS, generator=generator) for sizes in ([9, 4], [5, 12])]
    adapter = build("GeometryAwareAdapter").train(train)
    testing.assert_compiles(adapter, batches, call=several, backend="eager")
