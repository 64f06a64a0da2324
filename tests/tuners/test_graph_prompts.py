"""Prompts as virtual nodes of a graph: by hand, against a loop, and the laws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flat_backbones import CHANNELS
from hypothesis import given, settings
from hypothesis import strategies as st
from prompted import PLACED, OneLayer, call, config, either_way, every_place, ragged
from torch import Tensor, nn
from torch_geometric.nn import PointNetConv, PointTransformerConv, SimpleConv
from tuned import portrait

from pyg_peft import MemoryBank, PeftModel, get_peft_model, testing
from pyg_peft.geometry import knn_graph
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.testing import Clouds, random_clouds, randomize_
from pyg_peft.tuners.graphs import adapter as graph_adapter


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_sum_by_hand(flow: str):
    """Each point receives the sum over its edges, and both prompts."""
    edges = torch.tensor([[0, 1, 3], [1, 0, 2]])
    edges = edges.flip(0) if flow == "target_to_source" else edges
    widths = {"channels": {"conv": 1}, "in_channels": {"conv": 1}, "bottleneck_channels": 1}
    method = config("conv", modules_to_save=(), num_prompts=2, **widths)
    model = get_peft_model(OneLayer(SimpleConv(aggr="sum", flow=flow)), method).eval()
    prompt: Any = model.get_submodule("base.conv.peft.adapters.default.prompt.prompt")
    prompt.weight.data = torch.tensor([[100.0], [20.0]])
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    pos, batch = torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])
    out = model(x, pos, batch, edges)
    assert out.flatten().tolist() == [122.0, 121.0, 124.0, 120.0]
    with model.disable_adapter():
        assert model(x, pos, batch, edges).flatten().tolist() == [2.0, 1.0, 4.0, 0.0]


def test_a_bank_by_hand():
    """Each cloud's own prompts: tokens, and what the bank answers for it."""
    conv = SimpleConv(aggr="sum")
    bank = MemoryBank(
        torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 5.0]]), source=CloudRows("conv")
    )
    widths = {"channels": {"conv": 2}, "in_channels": {"conv": 2}, "bottleneck_channels": 1}
    method = config("conv", modules_to_save=(), num_prompts=3, **widths)
    model = get_peft_model(OneLayer(conv), method, memory_bank=bank).eval()
    prompt: Any = model.get_submodule("base.conv.peft.adapters.default.prompt.prompt.tokens")
    prompt.weight.data = torch.tensor([[10.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    x, pos = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]), torch.zeros(3, 3)
    edges, batch = torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.tensor([0, 1, 1])
    out = model(x, pos, batch, edges)
    # Of each cloud: its points, the token, the query (the largest values), twice the row found.
    first = torch.tensor([1.0 + 10 + 1 + 2 * 1, 0.0])
    second = torch.tensor([10.0, 2 + 2 * 5.0])
    assert torch.equal(out, torch.stack([first, second + torch.tensor([0.0, 2.0]), second + x[2]]))


@pytest.mark.parametrize("aggr", ["max", "mean", "sum"])
def test_bipartite_edges_against_a_loop(aggr: str):
    """Prompts are sources at learned positions; targets are not more than they were."""
    torch.manual_seed(0)
    conv = PointNetConv(nn.Linear(5 + 3, 6), aggr=aggr, add_self_loops=False).double()
    net = OneLayer(conv)
    method = config("conv", modules_to_save=(), num_prompts=3, train_biases=False)
    model = get_peft_model(net, method).eval()
    assert model.peft_config["default"].num_prompts == 3  # type: ignore[attr-defined]
    prompts: Any = model.get_submodule("base.conv.peft.adapters.default.prompt")
    x, pos, center = (torch.randn(n, c).double() for n, c in ((7, 5), (7, 3), (2, 3)))
    edges = torch.tensor([[0, 1, 5, 6, 2], [0, 1, 1, 1, 0]])
    out = model((x, None), (pos, center), None, edges)
    assert out.shape == (2, 6)
    for target in range(2):
        own = edges[0][edges[1] == target]
        features = torch.cat([x[own], prompts.prompt.weight])
        places = torch.cat([pos[own], prompts.prompt_pos]) - center[target]
        messages = conv.local_nn(torch.cat([features, places], dim=1))  # type: ignore[operator]
        expected = messages.amax(0) if aggr == "max" else getattr(messages, aggr)(0)
        torch.testing.assert_close(out[target], expected)


# ---- laws ----------------------------------------------------------------------------------------


@either_way
@every_place
@settings(max_examples=3)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3), seed=st.integers(0, 2**31))
def test_clouds_do_not_see_each_other(name: str, has_bank: bool, sizes: list[int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    clouds = random_clouds([9, *sizes, 1], CHANNELS, generator=generator)
    model, rows = PLACED[name].awake(has_bank=has_bank), PLACED[name].case.rows
    testing.assert_batch_isolated(model, clouds, call=call, rows=rows)


@either_way
@every_place
def test_order_of_points(name: str, has_bank: bool, generator: torch.Generator):
    model, rows = PLACED[name].awake(has_bank=has_bank), PLACED[name].case.rows
    clouds = random_clouds([16, 1, 7], CHANNELS, generator=generator)
    testing.assert_permutation_equivariant(model, clouds, generator=generator, call=call, rows=rows)


@either_way
@every_place
def test_gradients_and_nothing_frozen_moves(name: str, has_bank: bool):
    clouds = ragged()
    model, case = PLACED[name].awake(has_bank=has_bank), PLACED[name].case
    copy = ".peft.adapters.default.trained"  # the adapter's own version of a parameter of the base
    names = [name for name, _ in model.named_parameters()]
    canceled = [n for n in names if n.replace(copy, "").endswith(case.canceled or ("none",))]
    testing.assert_gradients(model, clouds, call=call, may_be_zero=canceled)
    before = {key: value.clone() for key, value in case.make().state_dict().items()}
    own = [n for n, _ in model.named_buffers() if ".peft." in n]
    testing.assert_frozen_after_step(model, clouds, call=call, moving_buffers=own)
    after = model.unload().state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@either_way
@every_place
def test_coming_and_going(name: str, has_bank: bool):
    clouds = ragged()
    placed = PLACED[name]
    base = placed.case.make()
    reference, before = call(base, clouds), portrait(base)
    model = placed.attach(base, has_bank=has_bank).eval()
    assert not torch.equal(call(model, clouds), reference), "prompts are no identity"
    with model.disable_adapter():
        assert torch.equal(call(model, clouds), reference)
    model.unload()
    assert portrait(base) == before
    model = placed.attach(base, has_bank=False, num_prompts=0).eval()
    assert torch.equal(call(model, clouds), reference), "without prompts it is one"


@either_way
@every_place
def test_saved_copied_checkpointed(name: str, has_bank: bool):
    clouds = ragged()
    placed = PLACED[name]
    model = placed.awake(has_bank=has_bank)

    def load(folder: Path) -> PeftModel:
        torch.manual_seed(4)
        return PeftModel.from_pretrained(placed.case.make(), folder)

    testing.assert_saved_and_loaded(
        model, clouds, save=lambda m, folder: m.save_pretrained(folder), load=load, call=call
    )
    testing.assert_deepcopy_and_pickle(model, clouds, call=call)
    testing.assert_checkpoints(model, clouds, call=call)
    for module in model.base.modules():
        assert not getattr(module, "held", []) and not getattr(module, "told", [])
        assert getattr(module, "prior", None) is None, "nothing is kept after the forward"


@pytest.mark.slow
@either_way
def test_compiles(has_bank: bool):
    """With a bank from a query that is handed in: the frozen forward is no part of the graph."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = PointTransformerConv(8, 8)

        def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
            return self.a(x, pos, edge_index)

    bank = MemoryBank(torch.eye(8).double(), source=CloudRows("a")) if has_bank else None
    method = config("a", modules_to_save=())
    model = get_peft_model(Net().double(), method, memory_bank=bank)
    randomize_(model, torch.Generator().manual_seed(0)).eval()

    def call_edges(model: Any, c: Clouds) -> Tensor:
        query = torch.eye(8)[: c.batch_size].double() + 1.0
        more = {"query": query} if has_bank else {}
        edge_index = knn_graph(c.pos.detach(), 3, c.batch)
        return model(x=c.x, pos=c.pos, edge_index=edge_index, batch=c.batch, **more)

    generator = torch.Generator().manual_seed(1)
    batches = [random_clouds(sizes, generator=generator) for sizes in ([20, 30], [12, 25, 9])]
    testing.assert_compiles(model, batches, call=call_edges, backend="eager")


def test_geometry_once(monkeypatch: pytest.MonkeyPatch):
    """Adapters of a level share the structure of its edges, whatever prompts its layers have."""
    count, build = [0], graph_adapter.edge_structure

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return build(*args, **kwargs)

    monkeypatch.setattr(graph_adapter, "edge_structure", counted)
    call(PLACED["nodes"].awake(has_bank=True), ragged())
    assert count == [3], "one for each of three levels, of which one has two blocks"
