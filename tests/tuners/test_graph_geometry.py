"""What calls and outputs say of the geometry, and what they are not taken to say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import PointTransformerConv

from pyg_peft import AdapterConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.geometry import knn_graph
from pyg_peft.nn.cloud_rows import level_of
from pyg_peft.testing import Clouds, assert_batch_isolated, random_clouds, randomize_
from pyg_peft.tuners.graphs import adapter as graph_adapter
from pyg_peft.tuners.graphs.geometry import CallReader, Names

WIDTH = 8


def config(*targets: Any, **settings: Any) -> PointPEFTConfig:
    small: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "k": 4}
    return PointPEFTConfig(target_modules=targets, modules_to_save=(), **{**small, **settings})


def awake(base: nn.Module, *targets: Any, **settings: Any) -> PeftModel:
    model = get_peft_model(base.double(), config(*targets, **settings))
    return randomize_(model, torch.Generator().manual_seed(0)).eval()  # type: ignore[return-value]


def clouds(*sizes: int) -> Clouds:
    return random_clouds(list(sizes), WIDTH, generator=torch.Generator().manual_seed(0))


def call(model: Any, c: Clouds) -> Tensor:
    return model(c.x, c.pos, c.batch)


def graph(pos: Tensor, batch: Tensor) -> Tensor:
    return knn_graph(pos.detach(), 3, batch)


# ---- ids that a call leaves out ------------------------------------------------------------------


class Block(nn.Module):
    """A layer that can do without cloud ids, with one in it that is told nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.lin(x)


class Halved(nn.Module):
    """Every second point, in a block that is handed no ids of them."""

    def __init__(self, *, tells: bool = False) -> None:
        super().__init__()
        self.block, self.tells = Block(), tells

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None) -> Tensor:
        if batch is None or not self.tells:
            return self.block(x[::2], pos[::2])
        return self.block(x[::2], pos[::2], batch[::2])


class Outer(nn.Module):
    """Hands ids on, or leaves them out, under the name ``inner``."""

    def __init__(self, inner: nn.Module, *, tells: bool = True) -> None:
        super().__init__()
        self.inner, self.tells = inner, tells

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.inner(x, pos, batch) if self.tells else self.inner(x, pos)


@pytest.mark.parametrize("target", ["inner.inner", "inner.inner.lin"])
def test_ids_come_from_the_nearest_call_that_has_them(target: str):
    model = awake(Outer(Outer(Block(), tells=False), tells=False), target)
    assert_batch_isolated(model, clouds(9, 6, 1), call=call)
    one = clouds(9)
    assert torch.allclose(model(one.x, one.pos), call(model, one)), "nobody has any: one cloud"


@pytest.mark.parametrize("target", ["block", "block.lin"])
def test_ids_of_other_points_are_not_taken_for_one_cloud(target: str):
    two = clouds(8, 6)
    one = two.alone(0)
    net = Halved()
    model = awake(net, target)
    with pytest.raises(ValueError, match=rf"'{target}'.*ids of its 7 points \(got ids of 14\)"):
        call(model, two)
    alone = call(model, one)
    net.tells = True
    assert torch.equal(call(model, one), alone), "of one cloud they are all the same"
    assert torch.allclose(call(model, two)[:4], alone)


class Needs(Block):
    """Is always handed ids, be they ``None``."""

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None) -> Tensor:
        return self.lin(x)


@pytest.mark.parametrize("handed", [True, False])
def test_required_ids_are_looked_for_in_the_models_call_alone(handed: bool):
    """A module in between may never be called, as where a model calls its parts itself."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer = Outer(Needs())

        def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
            return self.outer.inner(x, pos, batch if handed else None)

    assert_batch_isolated(awake(Whole(), "outer.inner"), clouds(9, 6, 1), call=call)


# ---- outputs -------------------------------------------------------------------------------------


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.zeros(shape) for shape in shapes]


X, POS = tensors((4, 8), (4, 3))
IDS = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("output", "is_level"),
    [
        ((X, POS, IDS), True),
        ([X, POS, IDS, "more"], True),
        ((X, POS, None), True),
        ((X, POS), False),
        (X, False),
        ((X, POS, torch.zeros(2, 9, dtype=torch.long)), False),  # edges
        ((X, POS, torch.zeros(9, dtype=torch.long)), False),
        ((X, POS, torch.zeros(4)), False),
        ((X, POS, torch.zeros(4, dtype=torch.bool)), False),
        ((X, POS, "ids"), False),
        ((X, POS[:2], None), False),
        ((X, torch.zeros(4, 5), IDS), False),
        ((X, POS.long(), IDS), False),
        ((None, POS, IDS), False),
    ],
)
def test_which_outputs_are_a_level(output: Any, is_level: bool):
    assert (level_of(output) is not None) == is_level


class Sampled(nn.Module):
    """Every second point, and no ids of them beside."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.lin(x[::2]), pos[::2], None


class First(nn.Module):
    """Of what a layer ``inner`` returns the features, passed through one more."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.last(self.inner(x, pos, batch)[0])


@pytest.mark.parametrize("settings", [{}, {"pos_from": "inner"}])
def test_an_output_without_ids(settings: dict[str, Any]):
    """Those of its call are of other points, so that several clouds cannot be told apart."""
    target = "last" if settings else "inner"
    model = awake(First(Sampled()), target, **settings)
    with pytest.raises(ValueError, match=rf"'{target}'.*ids of its 7 points \(got ids of 14\)"):
        call(model, clouds(8, 6))
    assert call(model, clouds(8)).shape == (4, WIDTH)


class Moved(Sampled):
    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.lin(x), pos + 1.0, None


@pytest.mark.parametrize(("target", "pos_from"), [("inner", None), ("last", "inner")])
def test_an_output_without_ids_of_as_many_points(target: str, pos_from: str | None):
    model = awake(First(Moved()), target, pos_from=pos_from)
    assert_batch_isolated(model, clouds(9, 6, 1), call=call)


class FeaturesOnly(Sampled):
    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> list[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self.lin(x)]


def test_an_output_without_positions_tells_nothing():
    """Its rows need not be the points that it was called with."""
    model = awake(First(FeaturesOnly()), "last", pos_from="inner")
    with pytest.raises(ValueError, match=r"a position for each of its 8 rows \(got none\)"):
        call(model, clouds(8))


class ReturnsData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, data: Any) -> Any:
        data.x = self.lin(data.x)
        return data


def test_data_is_no_features():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = ReturnsData()

        def forward(self, data: Any) -> Tensor:
            return self.block(data).x

    c = clouds(6)
    batch = Batch(x=c.x.float(), pos=c.pos.float(), batch=c.batch)
    settings: dict[str, Any] = {"target_modules": ("block",), "modules_to_save": ()}
    for kind in (PointPEFTConfig, AdapterConfig):
        model = get_peft_model(Net(), kind(bottleneck_channels=4, **settings)).eval()
        with pytest.raises(ValueError, match=r"'block' to return features.*\(got DataBatch"):
            model(batch)


# ---- names ---------------------------------------------------------------------------------------


class Own(nn.Module):
    """Has names of its own, and a layer of PyG."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.conv = nn.Linear(WIDTH, WIDTH), PointTransformerConv(WIDTH, WIDTH)

    def forward(self, x: Tensor, xyz: Tensor, cloud: Tensor) -> Tensor:
        return self.conv(self.lift(x), xyz, graph(xyz, cloud))


@pytest.mark.parametrize("num_prompts", [0, 3])
def test_the_usual_names_are_known_besides(num_prompts: int):
    names = {"pos_name": "xyz", "batch_name": "cloud", "edge_index_name": "adj"}
    model = awake(Own(), "lift", "conv", num_prompts=num_prompts, **names)
    assert_batch_isolated(model, clouds(9, 6, 1), call=call)


def read(forward: Callable[..., Any], *args: Any, names: Names | None = None, **kwargs: Any) -> Any:
    module = type("Module", (nn.Module,), {"forward": forward})()
    return CallReader(module, names or Names())(args, kwargs)


def test_reading_calls():
    pos, other = torch.zeros(4, 3), torch.ones(4, 3)
    found = read(lambda this, x, pos, batch=None: x, X, pos, IDS)
    assert found.pos[0] is pos and found.batch is IDS and found.knows_batch
    both = Names(pos="xyz", batch="cloud")
    found = read(lambda self, pos, xyz, cloud, batch: pos, other, pos, IDS, None, names=both)
    assert found.pos[0] is pos and found.batch is IDS, "names of one's own go first"
    for data in ({"pos": pos, "batch": IDS}, Batch(pos=pos, batch=IDS)):
        found = read(lambda self, data: data, data)
        assert found.pos[0] is pos and found.batch is IDS
        found = read(lambda self, data, pos: data, data, pos=other)
        assert found.pos[0] is other and found.batch is IDS, "a layer's own arguments go first"
    of_batch = Names(pos="batch.pos")
    assert read(lambda self, batch: 0, Batch(pos=pos, batch=IDS), names=of_batch).batch is IDS
    found = read(lambda self, x, pos, batch: 0, X, pos, IDS, names=of_batch)
    assert found.batch is IDS, "elsewhere it is the ids themselves"
    assert not read(lambda self, x: x, X).knows_batch


def test_the_first_parameter_is_the_module():
    class Odd(Own):
        def forward(this, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:  # pyright: ignore[reportSelfClsParameterName, reportIncompatibleMethodOverride]
            return this.conv(this.lift(x), pos, graph(pos, batch))

    assert_batch_isolated(awake(Odd(), "lift"), clouds(9, 6), call=call)


# ---- edges ---------------------------------------------------------------------------------------


class Edges(nn.Module):
    """Two layers along the edges that it is handed."""

    def __init__(self, flow: str = "source_to_target") -> None:
        super().__init__()
        settings: dict[str, Any] = {"add_self_loops": False, "flow": flow}
        self.a = PointTransformerConv(WIDTH, WIDTH, **settings)
        self.b = PointTransformerConv(WIDTH, WIDTH, **settings)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Any) -> Tensor:
        return self.b(self.a(x, pos, edge_index), pos, edge_index)


def edges_model(flow: str = "source_to_target") -> PeftModel:
    torch.manual_seed(0)
    return awake(Edges(flow), "a", "b")


@pytest.mark.parametrize("form", ["edges", "flipped", "sparse"])
def test_a_level_has_one_structure_whatever_its_edges(form: str, monkeypatch: pytest.MonkeyPatch):
    c, count, build = clouds(9, 6), [0], graph_adapter.edge_structure
    edges = graph(c.pos, c.batch)
    expected = edges_model()(c.x, c.pos, edges)

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return build(*args, **kwargs)

    monkeypatch.setattr(graph_adapter, "edge_structure", counted)
    model = edges_model("target_to_source" if form == "flipped" else "source_to_target")
    given: Any = edges.flip(0) if form == "flipped" else edges
    if form == "sparse":
        ones = torch.ones(edges.size(1))
        given = torch.sparse_coo_tensor(edges.flip(0), ones, (15, 15), check_invariants=True)
        given = given.coalesce()
    torch.testing.assert_close(model(c.x, c.pos, given), expected)
    assert count == [1]


def test_edges_of_another_kind_name_the_layer():
    class Any_(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor, pos: Tensor, edge_index: Any) -> Tensor:
            return self.lin(x)

    c = clouds(6)
    with pytest.raises(ValueError, match=r"edges of 'lin' to be a tensor .* \(got list\)"):
        awake(Any_(), "lin")(c.x, c.pos, [[0], [1]])


def test_a_point_of_too_many_edges_names_the_layer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graph_adapter, "MOST_MEMBERS", 5)
    c = clouds(9)
    edges_model()(c.x, c.pos, graph(c.pos, c.batch))
    hub = torch.stack([torch.arange(1, 9), torch.zeros(8, dtype=torch.long)])
    with pytest.raises(ValueError, match=r"no point of 'a' to have more than 5 edges \(got 9\)"):
        edges_model()(c.x, c.pos, hub)


# ---- widths --------------------------------------------------------------------------------------


class Doubled(nn.Module):
    """Returns twice as many channels as its linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lin(x)
        return torch.cat([h, h], dim=1)


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Doubled()

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("kind", [AdapterConfig, PointPEFTConfig])
def test_widths_that_were_guessed_wrong(kind: type[AdapterConfig | PointPEFTConfig]):
    c = clouds(6)
    example = (c.x.float(), c.pos.float(), c.batch)
    settings: dict[str, Any] = {"target_modules": ("layer",), "modules_to_save": ()}
    with pytest.raises(PlacementError, match=r"at most 4, as 'layer' returns \(got 8\).*'example'"):
        get_peft_model(OneLayer(), kind(bottleneck_channels=8, **settings))
    model = get_peft_model(OneLayer(), kind(bottleneck_channels=4, **settings)).eval()
    with pytest.raises(ValueError, match=r"'layer' to return 4 channels.*\(got 8\).*'example'"):
        model(*example)
    get_peft_model(OneLayer(), kind(bottleneck_channels=8, **settings), example=example)
