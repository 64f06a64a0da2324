"""Layers of any PyG model by name: where geometry comes from, and what is refused."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyg_models import DGCNNClassifier, PointTransformerClassifier, SetAbstraction, seed_fps
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch
from torch_geometric.nn import (
    MLP,
    EdgeConv,
    GravNetConv,
    PointNetConv,
    PointTransformerConv,
    PPFConv,
    Sequential,
    XConv,
    global_max_pool,
)
from tuned import portrait, tiny_base

from pyg_peft import PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.geometry import enable_pyg_ops, knn_graph
from pyg_peft.testing import (
    assert_batch_isolated,
    assert_compiles,
    assert_deepcopy_and_pickle,
    assert_local,
    assert_sensitive,
    hops,
    random_clouds,
    randomize_,
)
from pyg_peft.testing.clouds import Clouds
from pyg_peft.tuners.engine.dry_run import measure_widths
from pyg_peft.tuners.graphs import adapter as graph_adapter

K = 3


@pytest.fixture(autouse=True)
def pyg_ops():
    with enable_pyg_ops():
        yield


def config(*targets: Any, **settings: Any) -> PointPEFTConfig:
    small: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "k": 4}
    small["modules_to_save"] = ()
    small.update(settings)
    return PointPEFTConfig(target_modules=targets, **small)


class OneLayer(nn.Module):
    """A layer between two linear ones, called the way that its kind is called."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.first = LAYERS[kind]()
        self.lift = nn.Linear(8, 8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.last(self.first(self.conv, self.lift(x), pos, batch))


def graph(pos: Tensor, batch: Tensor) -> Tensor:
    return knn_graph(pos.detach(), K, batch)


def normal(pos: Tensor) -> Tensor:
    return nn.functional.normalize(pos + 1.0, dim=-1)


Made = tuple[nn.Module, Callable[..., Tensor]]
LAYERS: dict[str, Callable[[], Made]] = {
    "PointNetConv": lambda: (
        PointNetConv(MLP([11, 8]), MLP([8, 8])),
        lambda conv, x, pos, batch: conv(x, pos, graph(pos, batch)),
    ),
    "PointTransformerConv": lambda: (
        PointTransformerConv(8, 8),
        lambda conv, x, pos, batch: conv(x, pos, graph(pos, batch)),
    ),
    "PPFConv": lambda: (
        PPFConv(MLP([12, 8])),
        lambda conv, x, pos, batch: conv(x, pos, normal(pos), graph(pos, batch)),
    ),
    "EdgeConv": lambda: (
        EdgeConv(MLP([16, 8])),
        lambda conv, x, pos, batch: conv(x, graph(pos, batch)),
    ),
    "GravNetConv": lambda: (
        GravNetConv(8, 8, 3, 4, k=2),
        lambda conv, x, pos, batch: conv(x, batch),
    ),
    "bipartite": lambda: (
        PointNetConv(MLP([11, 8]), add_self_loops=False),
        lambda conv, x, pos, batch: conv((x, x), (pos, pos.clone()), graph(pos, batch)),
    ),
    "Linear": lambda: (nn.Linear(8, 8), lambda conv, x, pos, batch: conv(x)),
}
every_kind = pytest.mark.parametrize("kind", LAYERS)


def awake(kind: str) -> PeftModel:
    torch.manual_seed(0)
    net = OneLayer(kind).double()
    call(net, clouds([6]))  # statistics of batch norms
    model = get_peft_model(net, config("conv"))
    return randomize_(model, torch.Generator().manual_seed(0)).eval()  # type: ignore[return-value]


def clouds(sizes: list[int], seed: int = 0) -> Clouds:
    return random_clouds(sizes, generator=torch.Generator().manual_seed(seed))


def call(model: Any, c: Clouds) -> Tensor:
    return model(c.x, c.pos, c.batch)


# ---- every kind of layer -------------------------------------------------------------------------


@every_kind
def test_each_kind_of_layer(kind: str):
    c = clouds([9, 1, 5])
    net = OneLayer(kind).double().eval()
    reference, before = call(net, c), portrait(net)
    model = get_peft_model(net, config("conv"), example=(c.x, c.pos, c.batch))
    assert torch.equal(call(model, c), reference)
    randomize_(model, torch.Generator().manual_seed(0))
    call(model.train(), c).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not torch.equal(call(model.eval(), c), reference)
    with model.disable_adapter():
        assert torch.equal(call(model, c), reference)
    model.unload()
    assert portrait(net) == before


@every_kind
@pytest.mark.parametrize("sizes", [[9, 1, 5], [1, 1], [2, 0, 12, 1]])
def test_clouds_do_not_see_each_other(kind: str, sizes: list[int]):
    assert_batch_isolated(awake(kind), clouds(sizes), call=call)


@pytest.mark.parametrize("kind", ["PointTransformerConv", "PointNetConv", "EdgeConv", "PPFConv"])
def test_along_edges_a_point_sees_three_steps_far(kind: str):
    c = clouds([14])
    reach = hops(graph(c.pos, c.batch), 14, 3)
    assert not bool(reach.all())
    assert_local(awake(kind), c, reach, call=call)


@every_kind
def test_positions_matter(kind: str):
    generator = torch.Generator().manual_seed(1)
    assert_sensitive(awake(kind), clouds([9, 6]), generator=generator, call=call)


def test_copies():
    torch.manual_seed(0)
    model = get_peft_model(PointTransformerClassifier().double(), config("transformer*.**.lin_out"))
    randomize_(model, torch.Generator().manual_seed(0))

    def seeded(model: Any, c: Clouds) -> Tensor:
        seed_fps()
        return model(None, c.pos, c.batch)

    assert_deepcopy_and_pickle(model.eval(), clouds([9, 12]), call=seeded)


def test_x_conv_in_a_sequential_of_pyg():
    torch.manual_seed(0)
    net = Sequential("x, pos, batch", [(XConv(3, 8, 3, 4, 4), "x, pos, batch -> x")])
    model = get_peft_model(net.eval(), config("*"))
    c = clouds([9, 7])
    reference = net(c.pos.float(), c.pos.float(), c.batch)
    randomize_(model, torch.Generator().manual_seed(0))
    out = model(c.pos.float(), c.pos.float(), c.batch)
    assert out.shape == (16, 8) and not torch.equal(out, reference)


# ---- geometry once -------------------------------------------------------------------------------


def test_layers_of_a_level_share_one_structure(monkeypatch: pytest.MonkeyPatch):
    count = {"edge_structure": 0, "build_structure": 0, "bipartite_structure": 0}

    def counting(name: str) -> Callable[..., Any]:
        run = getattr(graph_adapter, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            count[name] += 1
            return run(*args, **kwargs)

        return counted

    for name in count:
        monkeypatch.setattr(graph_adapter, name, counting(name))
    c = clouds([20, 20])
    model = get_peft_model(DGCNNClassifier().eval(), config("conv*"))
    for _ in range(2):
        model(Batch(pos=c.pos.float(), batch=c.batch))
    assert count == {"edge_structure": 0, "build_structure": 2, "bipartite_structure": 0}
    model = get_peft_model(
        PointTransformerClassifier().eval(),
        config(PointTransformerConv, "transformers_down.*", "transformer_input"),
    )
    model(None, c.pos.float(), c.batch)
    assert count["edge_structure"] == 2, "one a level"


# ---- where geometry comes from -------------------------------------------------------------------


class Renamed(nn.Module):
    """Calls positions and cloud ids otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, coords: Tensor, cloud: Tensor | None = None) -> Tensor:
        return self.head(global_max_pool(self.lift(coords), cloud))


class Pooled(nn.Module):
    """A layer without positions, on what another module has sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.sample = SetAbstraction(0.5, 2.0, [3, 8])
        self.lift, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        x, _, batch = self.sample(None, pos, batch)
        return self.head(global_max_pool(self.lift(x), batch))


def test_other_names():
    pos = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(PlacementError, match=r"'pos' and 'batch'.*Linear with input.*do: none"):
        get_peft_model(Renamed(), config("lift"))
    model = get_peft_model(
        Renamed().eval(), config("lift", pos_name="coords", batch_name="cloud"), example=pos
    )
    randomize_(model, torch.Generator().manual_seed(0))
    with model.disable_adapter():
        reference = model(pos)
    assert not torch.equal(model.eval()(pos), reference)


class Graph(nn.Module):
    """A model that is called with a batch of graphs, under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, scene: Any) -> Tensor:
        return self.head(global_max_pool(self.lift(scene.pos), scene.batch))


def test_a_wrong_attribute_of_a_parameter_is_refused():
    c = clouds([12, 10])
    graphs = Batch(pos=c.pos.float(), batch=c.batch)
    with pytest.raises(PlacementError, match=r"of the model \(got 'scnee.pos'; .*scene\)"):
        get_peft_model(Graph(), config("lift", pos_name="scnee.pos"))
    typo = config("lift", pos_name="scene.position")
    message = r"'pos_name' to name an attribute of 'scene' \(got 'scene.position'; .* batch, pos\)"
    with pytest.raises(ValueError, match=message):
        get_peft_model(Graph().eval(), typo, example=graphs)
    model = get_peft_model(Graph().eval(), typo)
    for given in (graphs, argparse.Namespace(pos=graphs.pos, batch=graphs.batch)):
        with pytest.raises(ValueError, match=message):
            model(given)


def test_an_attribute_of_a_parameter():
    c = clouds([12, 10])
    graphs = Batch(pos=c.pos.float(), batch=c.batch)
    with pytest.raises(PlacementError, match=r"Linear with input.*'pos_name'.*do: none"):
        get_peft_model(Graph(), config("lift"))
    model = get_peft_model(Graph().eval(), config("lift", pos_name="scene.pos"), example=graphs)
    randomize_(model, torch.Generator().manual_seed(0))
    together, (first,) = model.eval()(graphs), c.alone(0).pos.float()[None]
    alone = model(Batch(pos=first, batch=torch.zeros(12, dtype=torch.long)))
    torch.testing.assert_close(together[:1], alone)


def test_the_user_names_the_source():
    c = clouds([12, 10])
    call_net = (c.pos.float(), c.batch)
    with pytest.raises(ValueError, match=r"position for each of its 11 rows .got 22.*'pos_from'"):
        get_peft_model(Pooled().eval(), config("lift"), example=call_net)
    model = get_peft_model(Pooled().eval(), config("lift", pos_from="sample"), example=call_net)
    randomize_(model, torch.Generator().manual_seed(0))
    seed_fps()
    tuned = model.eval()(*call_net)
    with model.disable_adapter():
        seed_fps()
        assert not torch.equal(model(*call_net), tuned)
    for module in model.base.modules():
        assert not getattr(module, "held", []), "nothing is kept after the forward"
    with pytest.raises(PlacementError, match=r"nearest paths: sample"):
        get_peft_model(Pooled(), config("lift", pos_from="sampel"))


def test_no_geometry_lists_the_modules_that_have_some():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = OneLayer("Linear"), nn.Linear(5, 2)

        def forward(self, points: Tensor) -> Tensor:
            return self.head(self.encoder(points[:, 3:], points[:, :3], None))

    with pytest.raises(PlacementError, match=r"'head', or a module around it.*do: encoder$"):
        get_peft_model(Nested(), config("head"))
    get_peft_model(Nested(), config("encoder.lift"))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("transformers_dwn.*",), "nearest paths: transformers_down"),
        (("transformers_down",), "container ModuleList"),
        ((nn.Conv1d,), "got Conv1d; the model holds"),
        (("re:transformers_down",), "container ModuleList"),
    ],
)
def test_targets_that_do_not_fit(targets: tuple[Any, ...], message: str):
    net = PointTransformerClassifier().eval()
    before = portrait(net)
    with pytest.raises(PlacementError, match=message):
        get_peft_model(net, config(*targets))
    assert portrait(net) == before


def test_a_layer_whose_rows_are_no_points_is_named():
    c = clouds([12, 10])
    example = (None, c.pos.float(), c.batch)
    with pytest.raises(ValueError, match=r"'transformer_input.attn_nn' to have a position"):
        get_peft_model(
            PointTransformerClassifier(), config("**.transformer.attn_nn"), example=example
        )
    with pytest.raises(ValueError, match=r"'mlp_output' to have a position for each of its 2"):
        get_peft_model(PointTransformerClassifier(), config("mlp_output"), example=example)


def test_widths_are_measured_and_saved(tmp_path: Any):
    class Odd(nn.Module):
        """Its last linear layer is not its output."""

        def __init__(self) -> None:
            super().__init__()
            self.b, self.a = nn.Linear(3, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
            h = self.b(x)
            return h + self.a(h).sum(1, keepdim=True)

    torch.manual_seed(0)
    net, c = Sequential("x, pos, batch", [(Odd(), "x, pos, batch -> x")]).eval(), clouds([9, 7])
    example = (c.pos.float(), c.pos.float(), c.batch)
    with pytest.raises(ValueError, match=r"return 5 channels.*.got 8.*'example'"):
        get_peft_model(net, config("*"))(*example)
    torch.manual_seed(0)
    net = Sequential("x, pos, batch", [(Odd(), "x, pos, batch -> x")]).eval()
    model = get_peft_model(net, config("*"), example=example)
    randomize_(model, torch.Generator().manual_seed(0))
    tuned = model.eval()(*example)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model.unload(), tmp_path)
    assert torch.equal(loaded(*example), tuned)
    assert loaded.peft_config["default"].to_dict()["channels"] == {"module_0": 8}


# ---- errors, checkpoints, compilers --------------------------------------------------------------


def test_nothing_is_left_after_an_error(monkeypatch: pytest.MonkeyPatch):
    model, c = awake("EdgeConv"), clouds([9])
    expected = call(model, c)

    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.base.get_submodule("last"), "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            call(model, c)
    for module in model.base.modules():
        assert not getattr(module, "held", []) and not getattr(module, "built", None)
    assert torch.equal(call(model, c), expected)


@pytest.mark.parametrize(("kind", "works"), [("PointTransformerConv", True), ("EdgeConv", False)])
def test_recomputed_layers(kind: str, works: bool):
    model, c = awake(kind), clouds([9])
    call(model, c).sum().backward()
    plain = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    net: Any = model.base
    run = net.first
    net.first = lambda *args: checkpoint(run, *args, use_reentrant=False)
    out = call(model, c).sum()
    if not works:  # the model has returned, and with it the geometry that the layer does not see
        with pytest.raises(RuntimeError, match="checkpoint it as a whole"):
            out.backward()
        return
    out.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, plain[name], msg=name)


@pytest.mark.slow
def test_compiles_on_shared_edges(generator: torch.Generator):
    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = PointTransformerConv(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
            return self.b(self.a(x, pos, edge_index))

    model = get_peft_model(Levels().double(), config("a", "b", k=K + 1))
    randomize_(model, generator)

    def call_edges(model: Any, c: Clouds) -> Tensor:
        return model(c.x, c.pos, graph(c.pos, c.batch))

    batches = [clouds([20, 30]), clouds([12, 25, 9])]
    assert_compiles(model.eval(), batches, call=call_edges, backend="eager")


# ---- token blocks --------------------------------------------------------------------------------


def test_some_blocks_of_a_token_backbone():
    model = get_peft_model(tiny_base(), config("blocks.1", num_prompts=3, prompt_depth=2))
    paths = {n.partition(".peft.")[0] for n, _ in model.base.named_parameters() if ".peft." in n}
    assert any(p.startswith("blocks.1") for p in paths)
    assert not any(p.startswith("blocks.0") for p in paths)
    example = {"pos": torch.randn(40, 3)}
    with pytest.raises(ValueError, match=r"'patch_embed' to return features \[N, C\]"):
        get_peft_model(tiny_base(), config("patch_embed"), example=example)


def test_a_width_that_nothing_tells():
    class Inner(nn.Module):
        def forward(self, x: Tensor | None = None) -> Tensor:
            return torch.ones(2, 5)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner() + x

    widths = measure_widths(Outer(), torch.ones(2, 5))
    assert widths is not None
    assert (widths.inputs["inner"], widths.outputs["inner"]) == (0, 5)
