"""The laws at every kind of site, with methods that are no identity any more.

A method must not let clouds see each other, nor points beyond its stated steps, nor make the order
of points matter where the layer below does not. What PyG's own layers do not keep is stated too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import flat_backbones
import pyg_models
import pytest
import torch
import torch_geometric
from backbone_recipes import shuffled
from flat_backbones import CASES
from graph_sites import (
    SITES,
    WIDTH,
    K,
    Reach,
    Site,
    bipartite,
    fps_from_first,
    make_base,
    on_edges,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyg_models import MODELS, call_model
from torch import Tensor, nn
from torch_geometric.nn import (
    MLP,
    DynamicEdgeConv,
    EdgeConv,
    PointNetConv,
    PointTransformerConv,
    fps,
)
from tuned import CHANNELS, WAYS, Way, tiny_base

from pyg_peft import PeftModel, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.geometry import enable_pyg_ops
from pyg_peft.testing import (
    Clouds,
    Rows,
    assert_batch_isolated,
    assert_local,
    assert_permutation_equivariant,
    assert_sensitive,
    random_clouds,
    randomize_,
)
from pyg_peft.tuners import (
    METHODS,
    AdapterConfig,
    BitFitConfig,
    LoRAConfig,
    MethodConfig,
    PointPEFTConfig,
)

# Sizes of the methods that change layers of any model.
SIZES: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {
    "adapter": (AdapterConfig, {"bottleneck_channels": 2}),
    "bitfit": (BitFitConfig, {}),
    "lora": (LoRAConfig, {"rank": 2}),
    "point_peft": (
        PointPEFTConfig,
        {"bottleneck_channels": 2, "attention_channels": 6, "k": 4, "num_prompts": 0},
    ),
}
# The others, and why they are none of these.
NOT_AT_LAYERS = {
    "full_fine_tuning": "adds nothing",
    "linear_probe": "adds nothing",
    "vpt": "is for tokens",
}
every_method = pytest.mark.parametrize("method", SIZES)
every_site = pytest.mark.parametrize("kind", SITES)


@pytest.fixture(autouse=True, scope="module")
def pyg_ops() -> Iterator[None]:
    """PyG's searches without compiled extras, and sampling that a cloud has alone as in company."""
    with enable_pyg_ops(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyg_models, "fps", fps_from_first)
        yield


def test_every_method_is_here():
    assert set(SIZES) | set(NOT_AT_LAYERS) == set(METHODS)


def tune(base: nn.Module, method: str, *targets: Any, **more: Any) -> PeftModel:
    """Attach a method with random weights, so that it is no identity."""
    kind, sizes = SIZES[method]
    settings = {**sizes, **more}
    if method != "bitfit":  # which takes all layers
        settings["target_modules"] = targets
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(base, kind(modules_to_save=(), **settings)).double()
    randomize_(model, torch.Generator().manual_seed(2))
    return model.eval()


def tuned_site(kind: str, method: str, **more: Any) -> PeftModel:
    site = SITES[kind]
    target = site.plain if method == "adapter" else "conv"
    return tune(make_base(site), method, target, **more)


def call(model: Any, clouds: Clouds) -> Tensor:
    return model(clouds.x, clouds.pos, clouds.batch)


def clouds_of(sizes: list[int], seed: int, channels: int = WIDTH) -> Clouds:
    return random_clouds(sizes, channels, generator=torch.Generator().manual_seed(seed))


def ragged(least: int = 1) -> Any:
    """Two clouds that have points, one as small as can be, others of any size, none included.

    Two points are as far from their centroid: a tie between the starts of an adapter's sampling.
    """
    size = st.sampled_from([0, *(size for size in range(least, 13) if size != 2)])
    return st.lists(size, max_size=2).map(lambda more: [9, *more[:1], least, *more[1:]])


seeds = st.integers(0, 2**31)
methods = st.sampled_from(sorted(SIZES))


# ---- every layer ---------------------------------------------------------------------------------


@every_method
@every_site
@settings(max_examples=2)
@given(data=st.data(), seed=seeds)
def test_clouds_and_the_order_of_points(kind: str, method: str, data: Any, seed: int):
    site, model = SITES[kind], tuned_site(kind, method)
    clouds = clouds_of(data.draw(ragged(site.least)), seed)
    assert_batch_isolated(model, clouds, call=call)
    generator = torch.Generator().manual_seed(seed)
    assert_permutation_equivariant(
        model, clouds, generator=generator, call=call, keep_first=site.from_first
    )


@every_method
@every_site
def test_the_method_has_an_effect_and_sees_what_it_should(kind: str, method: str):
    model, clouds = tuned_site(kind, method), clouds_of([14, 9], 0)
    tuned = call(model, clouds)
    assert len(tuned[:14].unique(dim=0)) > 1 or SITES[kind].sees_cloud
    with model.disable_adapter():
        base = call(model, clouds)
    changed = (tuned - base).abs().amax(1)
    assert (changed > 1e-6).all(), "every point's scores are changed"
    generator = torch.Generator().manual_seed(1)
    assert_sensitive(model, clouds, generator=generator, to="x", call=call)
    if method == "point_peft":
        assert_sensitive(model, clouds, generator=generator, to="pos", call=call)


LOCAL = [kind for kind, site in SITES.items() if site.reach is not None]


@pytest.mark.parametrize("kind", LOCAL)
@example(method="point_peft", more=[1], seed=0)
@settings(max_examples=3)
@given(method=methods, more=st.lists(st.integers(K, 12), max_size=1), seed=seeds)
def test_points_see_as_far_as_stated(kind: str, method: str, more: list[int], seed: int):
    least = SITES[kind].least
    clouds, model = (
        clouds_of([16, *(max(size, least) for size in more)], seed),
        tuned_site(kind, method),
    )
    reach = reach_of(kind, clouds).of_points(adapted=method == "point_peft")
    if reach.sum() == len(reach):  # a linear layer: each point sees itself
        with pytest.raises(AssertionError, match="No point influences another"):
            assert_local(model, clouds, reach, call=call)
        return
    assert_local(model, clouds, reach, call=call)


@pytest.mark.parametrize("kind", LOCAL)
def test_the_adapter_sees_farther_than_its_layer(kind: str):
    """The steps that are allowed for above are taken: the statement is no empty one."""
    clouds = clouds_of([16], 0)
    reach, model = reach_of(kind, clouds), tuned_site(kind, "point_peft")
    assert not bool(reach.of_points(adapted=True).all()), "every point reaches every other"
    with pytest.raises(AssertionError, match="out of reach"):
        assert_local(model, clouds, reach.of_points(adapted=False), call=call)


def reach_of(kind: str, clouds: Clouds) -> Reach:
    reach = SITES[kind].reach
    assert reach is not None
    return reach(clouds)


@every_method
@every_site
@settings(max_examples=2)
@given(size=st.integers(6, 10), seed=seeds)
def test_islands_of_one_cloud(kind: str, method: str, size: int, seed: int):
    """Points far away in space and in features do not count; this holds where edges are dynamic."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.tensor([0.0, 30.0], dtype=torch.float64).repeat_interleave(size)[:, None]
    clouds = random_clouds([2 * size], WIDTH, generator=generator)
    clouds = replace(clouds, x=clouds.x + offset, pos=clouds.pos + offset)
    # Every row a center, so that each island has enough of them.
    settings = {"ratio": 1.0, "k": 3} if method == "point_peft" else {}
    model = tuned_site(kind, method, **settings)
    there = torch.arange(2 * size) >= size
    noise = torch.randn(clouds.x.shape, generator=generator, dtype=torch.float64)
    before = call(model, clouds)
    after = call(model, replace(clouds, x=clouds.x + noise * there[:, None]))
    assert not torch.allclose(after[there], before[there])
    assert torch.allclose(after[~there], before[~there], 1e-9, 1e-9) != SITES[kind].sees_cloud


def test_a_norm_that_is_told_no_ids():
    """The default of its parameter does not hide the ids that the model was called with."""

    def block() -> nn.Module:
        return MLP([WIDTH, WIDTH, WIDTH], norm="layer_norm", norm_kwargs={"mode": "node"})

    base = make_base(Site(block, lambda conv, x, pos, batch: conv(x)))
    model = tune(base, "point_peft", "conv.norms.0", channels={"conv.norms.0": WIDTH})
    clouds = clouds_of([9, 1, 6], 0)
    assert_batch_isolated(model, clouds, call=call)
    with model.disable_adapter():
        base = call(model, clouds)
    assert not torch.allclose(call(model, clouds), base)


# ---- whole models --------------------------------------------------------------------------------

CONVOLUTIONS = (PointNetConv, PointTransformerConv, DynamicEdgeConv)


def tuned_model(name: str, method: str) -> PeftModel:
    build, _, _, targets, _ = MODELS[name]
    torch.manual_seed(0)
    base = randomize_(build().double(), torch.Generator().manual_seed(0)).eval()
    if method == "adapter":
        targets = tuple(c for c in CONVOLUTIONS if any(isinstance(m, c) for m in base.modules()))
    # As in PyG's example, two layers that nothing calls.
    idle = (
        {"exclude_modules": ("lin[12]",)} if (name, method) == ("pointnet2 seg", "bitfit") else {}
    )
    return tune(base, method, *targets, **idle)


@pytest.mark.parametrize("name", MODELS)
@example(method="point_peft", sizes=[9, 0, 7, 1], seed=0)
@settings(max_examples=3)
@given(method=methods, sizes=ragged(), seed=seeds)
def test_models_in_the_style_of_pygs_examples(name: str, method: str, sizes: list[int], seed: int):
    model, generator = tuned_model(name, method), torch.Generator().manual_seed(seed)
    if find_spec("torch_cluster") and torch_geometric.__version__ < "2.8":
        sizes = [size or 1 for size in sizes]  # its ``fps`` reads beyond an empty cloud
    clouds = clouds_of(sizes, seed)
    settings: dict[str, Any] = {"rows": "point" if MODELS[name][2] else "cloud"}
    settings["call"] = lambda model, c: call_model(name, model, c.pos, c.batch)
    assert_batch_isolated(model, clouds, **settings)
    settings |= {"generator": generator, "keep_first": "dgcnn" not in name}
    assert_permutation_equivariant(model, clouds, **settings)


# What of the library's own backbones returns a plain tensor.
TENSORS = {
    "PointNet": ("levels.*",),
    "PointNetPlusPlus": (PointNetConv,),
    "PointTransformer": (PointTransformerConv,),
    "DGCNN": (EdgeConv,),
}


@pytest.mark.parametrize("name", CASES)
@example(method="point_peft", sizes=[9, 0, 7, 1, 0], seed=0)
@settings(max_examples=2)
@given(method=methods, sizes=ragged(), seed=seeds)
def test_levels_of_our_backbones(name: str, method: str, sizes: list[int], seed: int):
    case, generator = CASES[name], torch.Generator().manual_seed(seed)
    targets: tuple[Any, ...] = ("levels.*", "decoder.*") if case.segments else ("levels.*",)
    if method == "adapter":
        targets = TENSORS[name.split()[0].removesuffix("Segmentation")]
    model = tune(case.make(), method, *targets)
    clouds = clouds_of(sizes, seed, flat_backbones.CHANNELS)
    settings: dict[str, Any] = {"call": case.call, "rows": case.rows}
    assert_batch_isolated(model, clouds, **settings)
    assert_permutation_equivariant(model, clouds, generator=generator, **settings)
    with model.disable_adapter():
        base = case.call(model, clouds)
    assert not torch.allclose(case.call(model, clouds), base)


# ---- token blocks --------------------------------------------------------------------------------


BASES: dict[str, tuple[Callable[[], Any], Rows]] = {
    "PointMAE": (tiny_base, "cloud"),
    "PointMAESegmentation": (
        lambda: PointMAESegmentation(
            4, CHANNELS, 2, 3, 6, 4, num_levels=2, head_channels=16, drop_path=0.0
        ),
        "point",
    ),
}
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_base = pytest.mark.parametrize("name", BASES)


def tuned_tokens(name: str, way: Way) -> PeftModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        base = randomize_(BASES[name][0](), torch.Generator().manual_seed(0)).eval()
        model = way.attach(base).double()
    randomize_(model, torch.Generator().manual_seed(3))
    return model.eval()


def call_tokens(model: Any, clouds: Clouds, **more: Any) -> Tensor:
    """Call with the query that a bank is asked with, so that the rest has gradients."""
    flat = {"pos": clouds.pos, "batch": clouds.batch, "batch_size": clouds.batch_size}
    if model.memory_bank is not None:
        more["query"] = model.precompute(**flat)["query"]
    return model(**{**flat, **more})


@every_way
@every_base
@settings(max_examples=2)
@given(data=st.data(), seed=seeds)
def test_tokens(name: str, way: Way, data: Any, seed: int):
    """Given the first point, where sampling starts, and given the patches.

    That clouds are isolated is in the battery, ``test_battery.py``.
    """
    model, generator = tuned_tokens(name, way), torch.Generator().manual_seed(seed)
    clouds, rows = clouds_of([*data.draw(ragged()), 0], seed), BASES[name][1]
    assert_permutation_equivariant(
        model, clouds, generator=generator, call=call_tokens, rows=rows, keep_first=True
    )
    patches = model.base.make_patches(clouds.pos, clouds.batch, clouds.batch_size)  # type: ignore[operator]
    other, _ = shuffled(patches, generator, members=True)
    expected = call_tokens(model, clouds)
    found = call_tokens(model, clouds, patches=other)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@every_way
def test_tokens_see_their_whole_cloud(way: Way):
    """Attention is global, with any method: no locality is claimed for these backbones."""
    model = tuned_tokens("PointMAESegmentation", way)
    clouds = clouds_of([30, 9], 0).leaves()
    index = model.base.make_patches(clouds.pos, clouds.batch).center_index[0]  # type: ignore[operator]
    out = call_tokens(model, clouds)
    (grad,) = torch.autograd.grad(out[0].square().sum(), clouds.pos)
    assert bool(grad[index].any(1).all()) and not bool(grad[30:].any())


def test_an_input_gets_the_gradient_that_it_gets_with_a_query():
    """What is frozen is made once and without gradients, but not where an input asks for one."""
    model = tuned_tokens("PointMAESegmentation", Way("point_peft", has_bank=True))
    clouds = clouds_of([30], 0).leaves()
    query = model.precompute(pos=clouds.pos, batch_size=1)["query"]
    outs = (model(pos=clouds.pos, batch_size=1, **given) for given in ({"query": query}, {}))
    given, found = (torch.autograd.grad(out[0].sum(), clouds.pos)[0] for out in outs)
    assert torch.equal(given, found)
    assert int(found.any(1).sum()) > 1


# ---- what PyG's layers do not keep ---------------------------------------------------------------


def breaks_isolation(site: Site, clouds: Clouds) -> None:
    """The layer itself breaks the law, without a method and with any."""
    base = make_base(site)
    for model in (base, *(tune(make_base(site), method, "conv") for method in SIZES)):
        with pytest.raises(AssertionError, match="depends on the others"):
            assert_batch_isolated(model, clouds, call=call)


def test_a_graph_norm_on_edges_sees_the_whole_batch():
    """PyG's ``LayerNorm`` is handed no ids inside a convolution: it takes the batch for one graph.

    ``layer_norm`` of PyG's ``MLP`` is this one. By node, it keeps clouds apart.
    """

    def with_norm(**options: Any) -> Site:
        options = {"norm": "layer_norm", "norm_kwargs": options}
        return Site(lambda: PointNetConv(MLP([WIDTH + 3, WIDTH, WIDTH], **options)), on_edges)

    clouds = clouds_of([9, 1, 6], 0)
    breaks_isolation(with_norm(), clouds)
    for method in SIZES:
        model = tune(make_base(with_norm(mode="node")), method, "conv")
        assert_batch_isolated(model, clouds, call=call)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: PointNetConv(MLP([WIDTH + 3, WIDTH])),
        lambda: PointTransformerConv(WIDTH, WIDTH),
    ],
    ids=["PointNetConv", "PointTransformerConv"],
)
def test_self_loops_between_two_sets_join_strangers(layer: Any):
    """PyG adds them by default: target 5 gets source 5, which may lie in another cloud.

    With ``add_self_loops=False`` both keep clouds apart, as tested above.
    """
    breaks_isolation(Site(layer, bipartite), clouds_of([9, 1, 8], 0))


def test_x_conv_wants_as_many_points_as_its_kernel():
    clouds = clouds_of([9, K - 1, 6], 0)
    for model in (make_base(SITES["XConv"]), tuned_site("XConv", "point_peft")):
        with pytest.raises(RuntimeError, match="invalid for input of size"):
            call(model, clouds)


def test_a_random_start_is_drawn_batch_by_batch(monkeypatch: pytest.MonkeyPatch):
    """Under one seed a cloud alone is sampled from another point than in company.

    So a PyG model with ``fps`` as it is keeps the law only given its start.
    """
    monkeypatch.setattr(pyg_models, "fps", fps)
    model = tuned_model("pointnet2 cls", "point_peft")

    def seeded(model: Any, c: Clouds) -> Tensor:
        return call_model("pointnet2 cls", model, c.pos, c.batch)

    with pytest.raises(AssertionError, match="depends on the others"):
        assert_batch_isolated(model, clouds_of([12, 11, 13], 0), call=seeded, rows="cloud")


def test_a_tie_of_the_start_is_decided_by_the_order():
    """Two points are equally far from their centroid: the lower row is the adapter's center.

    Where a layer has edges, every point is a center and nothing ties.
    """
    swap = clouds_of([2], 0)
    swapped = swap.permuted(torch.tensor([1, 0]))
    for kind, same in {"Linear": False, "PointTransformerConv": True, "EdgeConv": True}.items():
        model = tuned_site(kind, "point_peft")
        assert torch.allclose(call(model, swapped).flip(0), call(model, swap)) == same
