"""A layer is not adapted on the positions of other points, where a model sorts its rows."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, EdgeConv, fps

from pyg_peft import PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.geometry import enable_pyg_ops, knn_graph
from pyg_peft.testing import randomize_
from pyg_peft.tuners.graphs.geometry import Names
from pyg_peft.tuners.graphs.row_order import _reordered

POS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
BATCH = torch.arange(2).repeat_interleave(30)


def sorted_by_place(pos: Tensor, batch: Tensor) -> Tensor:
    """A serialization: along one axis, cloud by cloud."""
    order = pos[:, 0].argsort()
    return order[batch[order].argsort(stable=True)]


def all_by_distance(pos: Tensor, batch: Tensor) -> Tensor:
    return fps(pos, batch, ratio=1.0, random_start=False)


def as_they_are(pos: Tensor, batch: Tensor) -> Tensor:
    return torch.arange(len(pos))


ORDERS = {"sorted": sorted_by_place, "sampled": all_by_distance, "none": as_they_are}


@pytest.fixture(autouse=True)
def pyg_ops():
    with enable_pyg_ops():
        yield


reordered = pytest.mark.parametrize("order", ["sorted", "sampled"])


class Net(nn.Module):
    """``lin`` is handed features in an order of the model's own, and no positions.

    Args:
        order: Of the points.
        tells: Whether ``block`` is handed the positions in that order.
    """

    def __init__(self, order: str, *, tells: bool = False) -> None:
        super().__init__()
        self.order, self.tells = order, tells
        self.lift, self.block, self.head = nn.Linear(3, 8), Block(), nn.Linear(8, 2)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        order = ORDERS[self.order](pos, batch)
        x = self.lift(pos)[order]
        if self.tells:
            return self.head(self.block(x, pos[order], batch[order]))
        return self.head(self.block.lin(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.lin(x)


class OnData(nn.Module):
    """Is called with a batch of graphs, and along their edges."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.conv, self.lin = EdgeConv(MLP([6, 8])), nn.Linear(8, 8)

    def forward(self, data: Any) -> Tensor:
        x = self.conv(data.pos, data.edge_index)
        return self.lin(x[ORDERS[self.order](data.pos, data.batch)])


def config(*targets: str, **settings: Any) -> PointPEFTConfig:
    small: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "k": 4}
    return PointPEFTConfig(target_modules=targets, modules_to_save=(), **small, **settings)


def attach(base: nn.Module, example: Any, *targets: str, **settings: Any) -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(base, config(*targets, **settings), example=example)


@reordered
def test_rows_in_another_order_are_refused(order: str):
    base = Net(order)
    with pytest.raises(PlacementError, match=r"rows of 'block\.lin' to be in the order of the pos"):
        attach(base, (POS, BATCH), "block.lin", pos_from="")
    assert not [name for name, _ in base.named_modules() if "peft" in name]
    data = Batch(pos=POS, batch=BATCH, edge_index=knn_graph(POS, 3, BATCH))
    with pytest.raises(PlacementError, match="rows of 'lin' to be in the order of the positions"):
        attach(OnData(order), data, "lin")
    with pytest.raises(PlacementError, match="rows of 'lin'"):
        attach(OnData(order), {"data": data}, "lin")


@reordered
def test_rows_that_are_told_their_own_order_are_adapted(order: str):
    """The positions around the layer are in the order of its rows: the answer is no guess."""
    model = attach(Net(order, tells=True), {"pos": POS, "batch": BATCH}, "block.lin")
    plain = attach(Net("none", tells=True), (POS, BATCH), "block.lin")
    plain.load_state_dict(randomize_(model, torch.Generator().manual_seed(1)).state_dict())
    rows = ORDERS[order](POS, BATCH)
    torch.testing.assert_close(model.eval()(POS, BATCH), plain.eval()(POS, BATCH)[rows])


def test_rows_as_they_came_are_adapted():
    data = Batch(pos=POS, batch=BATCH, edge_index=knn_graph(POS, 3, BATCH))
    before = [data.pos.clone(), data.edge_index.clone()]
    for base, example, target in (
        (Net("none", tells=True), (POS, BATCH), "block.lin"),
        (OnData("none"), data, "lin"),
    ):
        assert attach(base, example, target).active_adapter == "default"
    assert torch.equal(data.pos, before[0]) and torch.equal(data.edge_index, before[1])


def test_points_that_cannot_be_told_apart_decide_nothing():
    base = Net("sorted")
    same = torch.zeros_like(POS)
    assert attach(base, (same, BATCH), "lift").active_adapter == "default"
    few = torch.randn(2, 3), torch.zeros(2, dtype=torch.long)
    assert attach(Net("none", tells=True), few, "block.lin").active_adapter == "default"


def test_points_that_send_to_others_have_no_common_order():
    class Between(nn.Module):
        def forward(self, x: Tensor, pos: Any, edge_index: Tensor) -> Tensor:
            return x

    pos = torch.rand(4, 3)
    call = {"x": torch.rand(4, 2), "edge_index": torch.tensor([[0, 1], [1, 0]])}
    assert _reordered(Between(), {**call, "pos": (pos, pos[:2])}, Names()) is None
    moved = _reordered(Between(), {**call, "pos": pos}, Names())
    assert not torch.equal(moved["pos"], pos)
    assert torch.equal(moved["pos"].sort(dim=0).values, pos.sort(dim=0).values)
