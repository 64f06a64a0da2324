"""A bank filled from a module of any model."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, global_max_pool
from torch_geometric.utils import scatter

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointNetPlusPlus
from pyg_peft.nn import MemoryBank
from pyg_peft.nn.batch_call import call_on_batch
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.testing import randomize_


class Level(NamedTuple):
    x: Tensor
    pos: Tensor
    batch: Tensor


class Halve(nn.Module):
    """Every second point, as a level that has points of its own."""

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Level:
        return Level(x[::2], pos[::2], batch[::2])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.halve, self.drop = nn.Linear(3, 4), Halve(), nn.Dropout(0.5)
        self.twice, self.never, self.head = nn.Identity(), nn.Linear(2, 2), nn.Linear(4, 2)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        x = self.twice(self.twice(self.drop(self.lift(pos))))
        x, _, batch = self.halve(x, pos, batch)
        return self.head(global_max_pool(x, batch))


def samples(count: int = 7) -> list[Data]:
    generator = torch.Generator().manual_seed(0)
    return [
        Data(
            pos=torch.rand(2 * i + 2, 3, generator=generator),
            y=torch.tensor([i % 2]),
            sample_id=torch.tensor([10 * i]),
        )
        for i in range(count)
    ]


def loader(data: list[Data], **kwargs: Any) -> DataLoader:
    return DataLoader(data, batch_size=3, **kwargs)  # type: ignore[arg-type]


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_rows_of_points(pool: str):
    model, data = net().train(), samples()
    bank = MemoryBank.from_loader(model, loader(data), module="lift", pool=pool)
    assert model.training and model.drop.training, "modes come back"
    rows = [model.lift(item.pos) for item in data]
    expected = torch.stack([r.amax(0) if pool == "max" else r.mean(0) for r in rows]).detach()
    torch.testing.assert_close(bank.values, expected)
    torch.testing.assert_close(bank.keys, nn.functional.normalize(expected, dim=1))
    assert bank.sample_id is not None and bank.sample_id.tolist() == [10 * i for i in range(7)]
    assert bank.labels is not None and bank.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert bank.source == CloudRows("lift", pool)
    shuffled = loader(data, shuffle=True, generator=torch.Generator().manual_seed(5))
    again = MemoryBank.from_loader(model, shuffled, module="li?t", pool=pool)
    torch.testing.assert_close(again.values, bank.values)
    assert again.source == bank.source, "a glob becomes a path"


def test_rows_of_a_level_and_of_clouds():
    model, data = net().eval(), samples()
    level = MemoryBank.from_loader(model, loader(data), module="halve")
    # Clouds have an even number of points, so that each keeps its own every second one.
    expected = torch.stack([model.lift(item.pos[::2]).amax(0) for item in data]).detach()  # type: ignore[index]
    torch.testing.assert_close(level.values, expected)
    whole = MemoryBank.from_loader(model, loader(data), module="head", pool=None)
    torch.testing.assert_close(whole.values, model.head(expected).detach())
    balanced = MemoryBank.from_loader(model, loader(data), module="halve", per_class=1)
    assert len(balanced) == 2 and balanced.source == level.source


@pytest.mark.parametrize(
    ("module", "pool", "message"),
    [
        ("lft", "max", r"name a module of Net \(got 'lft'; nearest paths: lift"),
        ("l*.*", "max", "nearest paths"),
        ("l*|h*", "max", "nearest paths"),
        ("h*", "max", r"to name one module \(got halve, head\)"),
        ("lift", "sum", r"'pool' to be 'max', 'mean' or None \(got 'sum'\)"),
        ("lift", None, r"row for each of 3 clouds \(got 12 rows\): pool='max'"),
        ("head", "max", r"got 3 rows, of 12 points in 3 clouds\).*pass pool=None"),
        ("twice", "max", r"'twice' to be called once in a forward \(got 2 calls\)"),
        ("never", "max", r"'never' to be called once in a forward \(got 0 calls\)"),
    ],
)
def test_errors(module: str, pool: str | None, message: str):
    model = net().train()
    with pytest.raises(ValueError, match=message):
        MemoryBank.from_loader(model, loader(samples()), module=module, pool=pool)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_a_call_of_ones_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(3, 4)

        def forward(self, points: Tensor, cloud: Tensor) -> Tensor:
            return global_max_pool(self.lift(points), cloud)

    model, data = Own().eval(), samples()
    bank = MemoryBank.from_loader(
        model, loader(data), module="lift", call=lambda m, d: m(d.pos, cloud=d.batch)
    )
    expected = torch.stack([model.lift(item.pos).amax(0) for item in data]).detach()
    torch.testing.assert_close(bank.values, expected)
    with pytest.raises(ValueError, match=r"batch alone, .*\(got points, cloud\).*'call'"):
        MemoryBank.from_loader(model, loader(data), module="lift")
    with pytest.raises(ValueError, match="'module' to be given together with 'call'"):
        MemoryBank.from_loader(model, loader(data), call=lambda m, d: m(d))


@pytest.mark.parametrize("third", ["edges", None])
def test_a_third_output_that_is_no_ids(third: str | None):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 4)

        def forward(self, x: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            edges = torch.zeros(2, 5, dtype=torch.long)
            return self.lin(x), pos, edges if third else None

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
            return self.block(pos, pos)[0]

    model, data = Whole().eval(), samples()
    bank = MemoryBank.from_loader(model, loader(data), module="block")
    expected = torch.stack([model.block.lin(item.pos).amax(0) for item in data]).detach()
    torch.testing.assert_close(bank.values, expected)


def test_outputs_that_are_no_rows():
    class Words(nn.Module):
        def forward(self, pos: Tensor) -> str:
            return "rows"

    class Says(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.flat = Words(), nn.Flatten(0)

        def forward(self, pos: Tensor) -> Any:
            return self.words(pos), self.flat(pos)

    for module, got in (("words", "str"), ("flat", r"shape \[36\]")):
        with pytest.raises(ValueError, match=rf"'{module}' to return features .* \(got {got}\)"):
            MemoryBank.from_loader(Says(), loader(samples()), module=module)


def test_ways_to_be_called():
    batch: Any = Batch.from_data_list(samples(2))  # type: ignore[arg-type]

    class Whole(nn.Module):
        def forward(self, graph: Any) -> Any:
            return graph

    class Named(nn.Module):
        def forward(self, x: Any, pos: Tensor, batch_size: int, edge_attr: Any = 5) -> Any:
            return x, pos, batch_size, edge_attr

    class Wants(nn.Module):
        def forward(self, pos: Tensor, edge_index: Tensor) -> Any:
            return pos

    assert call_on_batch(Whole(), batch) is batch
    assert call_on_batch(Named(), batch) == (None, batch.pos, 2, 5)
    with pytest.raises(ValueError, match=r"batches with edge_index, which Wants.forward needs"):
        call_on_batch(Wants(), batch)
    chain = Sequential(
        "pos, batch", [(nn.Linear(3, 4), "pos -> x"), (global_max_pool, "x, batch -> x")]
    )
    assert call_on_batch(chain, batch).shape == (2, 4)


def test_a_model_with_adapters_is_asked_for_its_base():
    model = net().eval()
    bank = MemoryBank.from_loader(model, loader(samples()), module="lift")
    config = LoRAConfig(rank=2, target_modules=("lift",), modules_to_save=("head",))
    tuned = randomize_(get_peft_model(model, config), torch.Generator().manual_seed(0))
    assert MemoryBank.from_loader(tuned, loader(samples()), module="lift").hash == bank.hash
    assert tuned.active_adapter == "default"


def test_source_is_of_the_file_and_of_the_hash(tmp_path: Path):
    model, data = net().eval(), samples()
    bank = MemoryBank.from_loader(model, loader(data), module="lift")
    bank.save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank")
    assert loaded.hash == bank.hash and loaded.source == bank.source
    assert repr(loaded) == "MemoryBank(7, 4, module='lift')"
    parts = (bank.keys, bank.values)
    others = [
        MemoryBank(*parts, labels=bank.labels, sample_id=bank.sample_id, source=source)
        for source in (None, CloudRows("lift", "mean"), CloudRows("lift"))
    ]
    assert [other.hash == bank.hash for other in others] == [False, False, True]


def test_a_flat_backbone():
    torch.manual_seed(0)
    model = PointNetPlusPlus(
        2, channels=((4,), (6,), (8,)), num_centers=(3, 2), radii=(0.5, 1.0), patch_sizes=(3, 2)
    )
    bank = MemoryBank.from_loader(model, loader(samples()), module="levels.2")
    pos = samples()[3].pos
    assert pos is not None
    with torch.no_grad():
        expected = model.eval().forward_features(pos=pos)
    torch.testing.assert_close(bank.values[3:4], expected)


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_clouds_do_not_see_each_other(sizes: list[int], seed: int):
    model = net(seed).eval()
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.randn(len(batch), 3, generator=torch.Generator().manual_seed(seed))
    for pool in ("max", "mean"):
        rows = CloudRows("lift", pool)
        together = rows.read(model, lambda: model.lift(pos), batch, len(sizes))
        assert torch.allclose(together, scatter(model.lift(pos), batch, 0, len(sizes), pool))
        for cloud, size in enumerate(sizes):
            own = pos[batch == cloud]
            alone = rows.read(model, lambda own=own: model.lift(own), None, 1)
            torch.testing.assert_close(together[cloud : cloud + 1], alone)
            assert size or not bool(together[cloud].any()), "no rows, zeros"
