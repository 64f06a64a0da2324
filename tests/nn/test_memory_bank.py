import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_case import GoldenCase
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.utils import scatter

from pyg_peft.backbones import PointMAE
from pyg_peft.errors import CheckpointError
from pyg_peft.nn import MemoryBank
from pyg_peft.nn import bank_file as bank_file_module


class Backbone(nn.Module):
    """Offers what a bank asks for: a frozen projection of each cloud's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.5).eval()  # a part that is in another mode than the whole
        self.calls = 0

    def make_patches(
        self, pos: Tensor, batch: Tensor | None, batch_size: int | None, x: Tensor | None
    ) -> tuple[Tensor, Any, Any]:
        return pos, batch, batch_size

    def forward_query(self, patches: tuple[Tensor, Any, Any]) -> Tensor:
        assert not any(module.training for module in self.modules())
        assert not torch.is_grad_enabled()
        self.calls += 1
        pos, batch, batch_size = patches
        return self.drop(self.proj(scatter(pos, batch, 0, batch_size, "mean")))


def samples(count: int = 7, *, with_id: bool = True, with_y: bool = True) -> list[Data]:
    generator = torch.Generator().manual_seed(0)
    data = []
    for i in range(count):
        item = Data(pos=torch.rand(i + 1, 3, generator=generator))
        if with_id:
            item.sample_id = torch.tensor([10 * i])
        if with_y:
            item.y = torch.tensor([i % 2])
        data.append(item)
    return data


def loader(data: list[Data], **kwargs: Any) -> DataLoader:
    return DataLoader(data, batch_size=3, **kwargs)  # type: ignore[arg-type]


def make_bank(rows: int = 6) -> MemoryBank:
    generator = torch.Generator().manual_seed(1)
    keys, values = torch.randn(2, rows, 4, generator=generator)
    return MemoryBank(keys, values, labels=torch.arange(rows) % 2, sample_id=2 * torch.arange(rows))


def test_repr():
    assert repr(make_bank()) == "MemoryBank(6, 4)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": torch.zeros(0, 4)}, "Expected 'keys' to be a floating-point [R, C] tensor"),
        ({"keys": torch.zeros(4)}, "Expected 'keys' to be a floating-point [R, C] tensor"),
        ({"keys": torch.zeros(2, 4).long()}, "Expected 'keys' to be a floating-point"),
        ({"values": torch.zeros(2, 3)}, "Expected 'values' to be of shape [2, 4] (got [2, 3])"),
        ({"labels": torch.zeros(3).long()}, "Expected 'labels' to be of shape [2] (got [3])"),
        ({"sample_id": torch.tensor([1])}, "Expected 'sample_id' to be of shape [2] (got [1])"),
        ({"sample_id": torch.tensor([1, 1])}, "Expected 'sample_id' to be strictly increasing"),
        ({"sample_id": torch.tensor([1, 0])}, "Expected 'sample_id' to be strictly increasing"),
    ],
)
def test_constructor_errors(arguments: dict[str, Any], message: str):
    settings: dict[str, Any] = {"keys": torch.zeros(2, 4), **arguments}
    with pytest.raises(ValueError) as error:
        MemoryBank(**settings)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", ["keys", "values"])
def test_eight_bit_rows_are_refused(name: str):
    rows: dict[str, Any] = {"keys": torch.zeros(2, 4), "values": torch.zeros(2, 4)}
    rows[name] = rows[name].to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match=f"'{name}' to be floating point"):
        MemoryBank(**rows)


def test_ids_in_any_memory_layout_are_searched_without_a_warning():
    bank = MemoryBank(torch.eye(3), sample_id=torch.arange(6)[::2])
    assert bank.sample_id is not None and bank.sample_id.is_contiguous()


def test_nothing_is_trainable():
    bank = MemoryBank(torch.randn(3, 4, requires_grad=True))
    assert not list(bank.parameters())
    assert not any(buffer.requires_grad for buffer in bank.buffers())
    assert bank.values is bank.keys
    assert list(bank.state_dict()) == ["keys"]
    assert list(make_bank().state_dict()) == ["keys", "_values", "labels", "sample_id"]


def test_prior_by_hand():
    values = torch.tensor([[1.0, 0.0], [0.0, 8.0], [0.0, 0.0]])
    bank = MemoryBank(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), values)
    query = torch.tensor([[0.0, 5.0]])
    prior = bank(query, top_k=2)
    weight = 1 / (1 + torch.tensor(-1.0).exp())  # scores 1 and 0
    expected = [[0.0, 5.0], [float(1 - weight), float(8 * weight)], [0.0, 8.0], [1.0, 0.0]]
    torch.testing.assert_close(prior, torch.tensor([expected]))


def test_a_sample_does_not_retrieve_itself():
    bank = make_bank()
    query = bank.keys[[1, 4]]
    plain = bank(query, 1)
    ids = torch.tensor([2, 8], dtype=torch.int32)
    assert torch.equal(plain[:, 2], bank.values[[1, 4]])
    for prior in (bank(query, 5, sample_id=ids), bank(query, 3, sample_id=ids)):
        for row, own in ((0, 1), (1, 4)):
            assert not (prior[row, 2:] == bank.values[own]).all(dim=1).any()
    # Ids that the bank does not hold, before, between and after its own, exclude nothing.
    for stranger in (-5, 3, 99):
        found = bank(query, 1, sample_id=torch.tensor([stranger, stranger]))
        assert torch.equal(found, plain)
    with pytest.raises(ValueError, match="Expected the bank to have 'sample_id'"):
        MemoryBank(bank.keys)(query, 1, sample_id=ids)


def test_gradient_reaches_the_query(generator: torch.Generator):
    bank = make_bank().double()
    query = torch.randn(2, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: bank(q, 3), (query,))


def test_from_loader():
    backbone, data = Backbone().train(), samples()
    backbone.drop.eval()
    bank = MemoryBank.from_loader(backbone, loader(data))
    assert backbone.training and backbone.proj.training and not backbone.drop.training
    assert backbone.calls == 3
    means = torch.stack([item.pos.mean(dim=0) for item in data])  # type: ignore[union-attr]
    expected = backbone.proj(means).detach()
    torch.testing.assert_close(bank.values, expected)
    torch.testing.assert_close(bank.keys, expected / expected.norm(dim=1, keepdim=True))
    assert bank.sample_id is not None and bank.labels is not None
    assert bank.sample_id.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert bank.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    # A loader that shuffles fills the same bank.
    shuffled = loader(data, shuffle=True, generator=torch.Generator().manual_seed(5))
    other = MemoryBank.from_loader(backbone, shuffled)
    assert torch.equal(other.sample_id, bank.sample_id)  # type: ignore[arg-type]
    torch.testing.assert_close(other.keys, bank.keys)


def test_from_loader_with_a_real_backbone():
    torch.manual_seed(0)
    backbone = PointMAE(
        num_classes=2, embed_dim=12, depth=1, num_heads=2, num_centers=2, patch_size=3
    )
    data = samples(4)
    bank = MemoryBank.from_loader(backbone, loader(data), per_class=1)
    assert bank.labels is not None and bank.labels.tolist() == [0, 1]
    pos = data[1].pos
    assert pos is not None
    alone = backbone.eval().forward_query(backbone.make_patches(pos))
    torch.testing.assert_close(bank.values[1:], alone.detach())


def test_modes_return_even_after_an_error():
    backbone = Backbone().train()
    with pytest.raises(ValueError, match="sample_id"):
        MemoryBank.from_loader(backbone, loader(samples(with_id=False)))
    assert backbone.training


def bad_loaders() -> list[tuple[Any, str]]:
    twice = samples(2)
    twice[1].sample_id = torch.tensor([0])
    some = samples(4)
    some[3] = Data(pos=some[3].pos, sample_id=some[3].sample_id)
    wide = samples(2)
    wide[0].sample_id = torch.tensor([[0]])
    wide[1].sample_id = torch.tensor([[1]])
    return [
        ([], r"Expected 'loader' to yield at least one batch \(got none\)"),
        (samples(with_id=False), r"wrap the data set in pyg_peft.datasets.SampleIds"),
        (twice, r"to yield each sample_id once \(got 0 more than once\)"),
        (some, r"Expected 'loader' to yield y in every batch or in none"),
        (wide, r"Expected 'sample_id' to hold one entry per cloud, \[2\] \(got \[2, 1\]\)"),
    ]


@pytest.mark.parametrize(("data", "message"), bad_loaders(), ids=range(5))
def test_from_loader_errors(data: Any, message: str):
    with pytest.raises(ValueError, match=message):
        MemoryBank.from_loader(Backbone(), loader(data) if data else [])


def test_from_loader_wants_a_backbone():
    with pytest.raises(TypeError, match=r"Expected 'backbone' to offer .* \(got Linear\)"):
        MemoryBank.from_loader(nn.Linear(3, 3), loader(samples()))


def test_labels_of_points_are_not_kept():
    data = samples()
    for item in data:
        item.y = torch.zeros(item.num_nodes or 0, dtype=torch.long)
    assert MemoryBank.from_loader(Backbone(), loader(data[1:])).labels is None
    with pytest.raises(ValueError, match="Expected 'labels' to balance classes by"):
        MemoryBank.from_loader(Backbone(), loader(data[1:]), per_class=1)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    per_class=st.integers(1, 8),
    seed=st.none() | st.integers(0, 99),
)
def test_balanced(labels: list[int], per_class: int, seed: int | None):
    rows = torch.arange(len(labels))
    bank = MemoryBank(rows[:, None].float(), labels=torch.tensor(labels), sample_id=rows)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    kept = bank.balanced(per_class, generator=generator)
    assert kept.labels is not None and kept.sample_id is not None
    assert torch.equal(kept.keys[:, 0].long(), kept.sample_id)
    assert torch.equal(bank.labels[kept.sample_id], kept.labels)  # type: ignore[index]
    for label in set(labels):
        found = kept.sample_id[kept.labels == label]
        own = [row for row, y in enumerate(labels) if y == label]
        assert len(found) == min(per_class, len(own))
        if generator is None:
            assert found.tolist() == own[:per_class]


def test_balanced_draws_from_the_generator():
    bank = MemoryBank(torch.arange(50.0)[:, None], labels=torch.zeros(50).long())
    draws = [
        bank.balanced(5, generator=torch.Generator().manual_seed(seed)).keys for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    with pytest.raises(ValueError, match="Expected 'per_class' to be >= 1"):
        bank.balanced(0)


def test_hash_tells_banks_apart():
    bank = make_bank()
    assert bank.hash == make_bank().hash and len(bank.hash) == 64
    assert bank.values is not bank.keys
    others = [
        MemoryBank(bank.keys, bank.values),
        MemoryBank(bank.values, bank.keys, labels=bank.labels, sample_id=bank.sample_id),
        make_bank(5),
        make_bank().double(),
    ]
    assert len({bank.hash, *(other.hash for other in others)}) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_file(tmp_path: Path, dtype: torch.dtype):
    bank = make_bank().to(dtype)
    bank.save(tmp_path / "bank.safetensors")
    assert os.listdir(tmp_path) == ["bank.safetensors"]
    loaded = MemoryBank.load(tmp_path / "bank.safetensors")
    assert loaded.hash == bank.hash and loaded.keys.dtype == dtype
    query = torch.ones(2, 4)
    assert torch.equal(loaded(query, 3), bank(query, 3))
    minimal = MemoryBank(bank.keys)
    minimal.save(str(tmp_path / "bank.safetensors"))
    loaded = MemoryBank.load(tmp_path / "bank.safetensors")
    assert loaded.labels is None and loaded.sample_id is None and loaded.values is loaded.keys


def test_views_are_saved(tmp_path: Path):
    table = torch.randn(8, 12)
    bank = MemoryBank(table[::2, ::3], table[1::2, ::3])
    bank.save(tmp_path / "bank")
    assert torch.equal(MemoryBank.load(tmp_path / "bank").values, bank.values)


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_flipped_byte_is_found(tmp_path: Path, flip: int):
    path = tmp_path / "bank"
    MemoryBank(torch.randn(2, 2), sample_id=torch.arange(2)).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            MemoryBank.load(path)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_file(tmp_path: Path, length: int):
    path = tmp_path / "bank"
    make_bank().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="to be a whole safetensors file"):
        MemoryBank.load(path)


def test_foreign_files(tmp_path: Path):
    path = tmp_path / "bank"
    save_file({"keys": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match="of other origin"):
        MemoryBank.load(path)
    bank_file_module.write_bank(path, {"weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="to hold a memory bank"):
        MemoryBank.load(path)
    bank_file_module.write_bank(path, {"keys": torch.zeros(2, 2), "more": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="to hold a memory bank"):
        MemoryBank.load(path)
    with pytest.raises(FileNotFoundError, match="to be a file"):
        MemoryBank.load(tmp_path / "nowhere")


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bank_file_module, "_FORMAT", 2)
    make_bank().save(tmp_path / "bank")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"to be of format 1 or earlier \(got 2"):
        MemoryBank.load(tmp_path / "bank")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bank"
    make_bank().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        make_bank(3).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["bank"]


def test_compiles(generator: torch.Generator):
    bank = make_bank()
    compiled = torch.compile(bank, fullgraph=True, backend="eager")
    for size in (2, 3):
        query = torch.randn(size, 4, generator=generator)
        ids = torch.arange(size)
        torch.testing.assert_close(compiled(query, 3, ids), bank(query, 3, ids))
    torch.compiler.reset()


def test_golden(golden: Callable[[str], GoldenCase]):
    case = golden("pointpeft_mae_bankattention")
    bank = MemoryBank(case.inputs["bank"].T.double())  # the authors keep one column per sample
    prior = bank(case.inputs["query"].double(), 8)
    expected = case.ref["cache_prompt"].double()
    torch.testing.assert_close(prior, expected, rtol=0, atol=5e-7)
    # Rows are copied, not computed: they are the bank's own, bit for bit.
    assert torch.equal(prior[:, 2:], bank.values[case.ref["topk_index"].long()])


def test_a_bank_needs_keys():
    with pytest.raises(TypeError, match="'keys' to be a tensor"):
        MemoryBank(None)  # type: ignore[arg-type]


def test_keys_that_are_the_values_too_are_saved(tmp_path: Path):
    rows = torch.randn(5, 3)
    for bank in (MemoryBank(rows, rows), MemoryBank(rows[:, :2], rows[:, 1:])):
        bank.save(tmp_path / "bank")
        again = MemoryBank.load(tmp_path / "bank")
        assert torch.equal(again.keys, bank.keys) and torch.equal(again.values, bank.values)
