"""The memory bank of prompts on graphs: query, answer, and whose cloud a point is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prompted import PLACED, OneLayer, call, config, ragged, samples
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import PointNetConv
from tuned import portrait

from pyg_peft import MemoryBank, PeftModel, get_peft_model
from pyg_peft.errors import CheckpointError, PlacementError
from pyg_peft.nn.cloud_rows import CloudRows


def test_query_and_answer_are_made_once():
    clouds = ragged()
    model = PLACED["nodes"].awake(has_bank=True)
    runs: list[bool] = []
    handle = model.base.register_forward_pre_hook(
        lambda module, args: runs.append(model.active_adapter is not None)
    )
    tuned = call(model, clouds)
    assert runs == [False, True], "the frozen model, then the tuned one"
    frozen = model.precompute(
        x=clouds.x, pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size
    )
    assert list(frozen) == ["query"] and frozen["query"].shape == (6, 12)
    runs.clear()
    again = model(clouds.x, clouds.pos, clouds.batch, batch_size=6, **frozen)
    assert runs == [True] and torch.equal(again, tuned)
    other = model(clouds.x, clouds.pos, clouds.batch, batch_size=6, query=-frozen["query"])
    assert not torch.equal(other, tuned), "the answer matters"
    handle.remove()


def test_a_bank_finds_its_own_samples():
    """The query of a training cloud is the row that the bank holds for it."""
    placed = PLACED["nodes"]
    model, bank = placed.awake(has_bank=True), placed.bank()
    for data in DataLoader(samples(), batch_size=3):  # type: ignore[arg-type]
        query = model.precompute(x=data.x, pos=data.pos, batch=data.batch)["query"]
        torch.testing.assert_close(query, bank.values[data.sample_id])


def test_while_training_no_sample_retrieves_itself():
    model = PLACED["nodes"].awake(has_bank=True)
    batch: Any = Batch.from_data_list(samples()[:3])  # type: ignore[arg-type]
    priors: list[Tensor] = []
    clouds_of: Any = model.get_submodule("base.peft.adapters.default.clouds")
    model.base.levels[0].register_forward_pre_hook(  # type: ignore[index,union-attr]
        lambda module, args: priors.append(clouds_of.prior) if model.active_adapter else None
    )
    arguments = {"x": batch.x, "pos": batch.pos, "batch": batch.batch}
    bank: Any = model.memory_bank
    with pytest.raises(ValueError, match="'sample_id' while training"):
        model.train()(**arguments)
    model.train()(**arguments, sample_id=batch.sample_id)
    model.eval()(**arguments, sample_id=batch.sample_id)
    training, evaluating = priors
    assert torch.equal(evaluating[:, 2], bank.values[:3])
    for row in range(3):
        assert not (training[row, 2:] == bank.values[row]).all(1).any()


def test_the_model_inside_and_a_layer_alone_have_no_answer():
    clouds = ragged()
    model = PLACED["nodes"].awake(has_bank=True)
    with pytest.raises(RuntimeError, match="call the PeftModel"):
        model.base(clouds.x, clouds.pos, clouds.batch)
    plain = PLACED["nodes"].awake(has_bank=False)
    for tuned, works in ((plain, True), (model, False)):
        blocks: Any = tuned.get_submodule("base.levels.1.blocks")
        blocks[0] = Recomputed(blocks[0])
        out = call(tuned, clouds).sum()
        if works:
            out.backward()
        else:
            with pytest.raises(RuntimeError, match="checkpoint that model as a whole"):
                out.backward()


class Recomputed(nn.Module):
    """Runs a block, its hooks included, once more in the backward pass."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, *args: Any) -> Any:
        return checkpoint(self.run, *args, use_reentrant=False)


def test_a_saved_adapter_needs_its_bank(tmp_path: Path):
    clouds = ragged()
    placed = PLACED["sources"]
    model = placed.awake(has_bank=True)
    model.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("memory_bank.*")
    loaded = PeftModel.from_pretrained(placed.case.make(), tmp_path, memory_bank=placed.bank())
    assert torch.equal(call(loaded, clouds), call(model, clouds))
    file.unlink()
    with pytest.raises(CheckpointError, match="'memory_bank'"):
        PeftModel.from_pretrained(placed.case.make(), tmp_path)
    other = placed.bank()
    other.source = CloudRows("levels.1", "mean")
    with pytest.raises(CheckpointError, match="Expected the memory bank"):
        PeftModel.from_pretrained(placed.case.make(), tmp_path, memory_bank=other)


@pytest.mark.parametrize(
    ("source", "settings", "error", "message"),
    [
        (None, {}, ValueError, r"from_loader\(model, loader, module=...\)"),
        (CloudRows("levels.9"), {}, PlacementError, r"module 'levels.9', which it has not"),
        (CloudRows("levels.2"), {"num_prompts": None}, ValueError, r"at least 3 .* \(got None\)"),
        (CloudRows("levels.2"), {"num_prompts": 2}, ValueError, r"at least 3 .* \(got 2\)"),
        (CloudRows("levels.2"), {"prompt_depth": 0}, ValueError, "'prompt_depth' to be positive"),
        (CloudRows("levels.2"), {"num_prompts": 11}, ValueError, r"more than 9 rows \(got 8\)"),
    ],
)
def test_banks_that_do_not_fit(
    source: CloudRows | None, settings: dict[str, Any], error: type[Exception], message: str
):
    base = PLACED["nodes"].case.make()
    before = portrait(base)
    bank = MemoryBank(torch.randn(8, 12).double(), source=source)
    method = config("levels.*.blocks.*", **settings)
    with pytest.raises(error, match=message):
        get_peft_model(base, method, memory_bank=bank)
    assert portrait(base) == before


def test_clouds_that_nothing_tells():
    class Shifted(OneLayer):
        def forward(self, x: Any, pos: Any, batch: Any, edge_index: Tensor) -> Any:
            return super().forward(x, pos + 1.0, batch, edge_index)

    bank = MemoryBank(torch.randn(8, 4), source=CloudRows("conv"))
    method = config("conv", modules_to_save=())
    x, pos, batch = torch.randn(5, 4), torch.randn(5, 3), torch.tensor([0, 0, 0, 1, 1])
    edges = torch.tensor([[0, 1, 3], [1, 2, 4]])
    net = Shifted(PointNetConv(nn.Linear(7, 4)))
    with pytest.raises(ValueError, match=r"clouds of the 5 points of 'conv' to be known"):
        get_peft_model(net, method, memory_bank=bank, example=(x, pos, batch, edges))
    model = get_peft_model(net, method, memory_bank=bank).eval()
    assert model(x[:3], pos[:3], batch[:3], edges[:, :2]).shape == (3, 4), "one cloud needs none"
    net = OneLayer(PointNetConv(nn.Linear(7, 4)))
    model = get_peft_model(net, method, memory_bank=bank).eval()
    with pytest.raises(ValueError, match=r"'query' to have a row for each of 3 clouds \(got 2\)"):
        model(x, pos, batch + (batch > 0), edges, query=torch.randn(2, 4))
