"""What is in an adapter's folder, and what is refused when it comes back."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from killing import killed_at
from safetensors.torch import load_file
from torch import nn
from tuned import CHANNELS, SIZES, WAYS, Way, logits, portrait, tiny_bank, tiny_base, train

from pyg_peft.backbones import PointMAE
from pyg_peft.checkpoint import CARD, CONFIG, WEIGHTS, bank_name, read_adapter, write_adapter
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.nn import Bottleneck, MemoryBank
from pyg_peft.tuners import LoRAConfig, MethodConfig, OutputAdapter, PointPEFTConfig, Site
from pyg_peft.tuners.engine import saving

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
MANIFEST = Path(__file__).parent / "adapter_keys.json"
WITH_BANK = Way("point_peft", True)


def trained(way: Way) -> PeftModel:
    model = way.attach(tiny_base())
    train(model)
    return model


def rewrite(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Write an adapter anew, valid in itself, but with another content."""
    file = read_adapter(folder)
    change(file.config, file.tensors)
    write_adapter(folder, file.tensors, file.config, "")


# ---- there and back ------------------------------------------------------------------------------


@every_way
def test_equal_logits_under_another_seed(way: Way, tmp_path: Path):
    model = trained(way)
    model.save_pretrained(tmp_path, class_names=["a", "b", "c", "d"], preprocessing={"points": 9})
    torch.manual_seed(99)
    base = tiny_base()
    base.reset_head(4)  # the adapter brings its own
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.peft_config == model.peft_config and not loaded.training
    assert loaded.count_parameters() == model.count_parameters()
    config = read_adapter(tmp_path).config
    assert config["class_names"] == ["a", "b", "c", "d"] and config["preprocessing"]["points"] == 9
    assert PointMAE(**config["backbone"]["config"]).embed_dim == CHANNELS
    files = [CARD, CONFIG, WEIGHTS]
    if way.has_bank:
        assert model.memory_bank is not None
        files.append(bank_name(model.memory_bank.hash))
    assert sorted(os.listdir(tmp_path)) == sorted(files)


@every_way
def test_several_adapters_come_back_to_one_base(way: Way, tmp_path: Path):
    model = way.attach(tiny_base(), "a", num_classes=3)
    train(model)
    model.save_pretrained(tmp_path / "a")
    first = logits(model)
    model.add_adapter("b", Way("lora").config())
    train(model)
    model.save_pretrained(tmp_path / "b")
    model.save_pretrained(tmp_path / "a2", adapter_name="a")
    other = Way("vpt").attach(tiny_base())
    for name in ("b", "a", "a2"):
        other.load_adapter(tmp_path / name, name)
    assert torch.equal(logits(other), first)
    other.set_adapter("b")
    assert torch.equal(logits(other), logits(model))
    one, two = read_adapter(tmp_path / "a"), read_adapter(tmp_path / "a2")
    assert one.config == two.config and one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(two.tensors[key], tensor) for key, tensor in one.tensors.items())


@every_way
def test_the_keys_of_a_file(way: Way, tmp_path: Path):
    way.attach(tiny_base()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    found = {key: list(tensor.shape) for key, tensor in sorted(tensors.items())}
    assert found == json.loads(MANIFEST.read_text())[str(way)]


@pytest.mark.parametrize(("num_classes", "expected"), [(None, 4), (3, 3)])
def test_a_name_for_each_class(tmp_path: Path, num_classes: int | None, expected: int):
    model = Way("lora").attach(tiny_base(), num_classes=num_classes)
    names = ["a", "b", "c", "d", "e"]
    with pytest.raises(ValueError, match=rf"'class_names' to name the {expected} .*got 5: \['a'"):
        model.save_pretrained(tmp_path / "new", class_names=names)
    assert not (tmp_path / "new").exists()
    model.save_pretrained(tmp_path / "new", class_names=names[:expected])
    assert read_adapter(tmp_path / "new").config["class_names"] == names[:expected]


def test_the_card_tells_what_it_is(tmp_path: Path):
    trained(WITH_BANK).save_pretrained(tmp_path, class_names=["sofa", "desk", "bed", "lamp"])
    card = (tmp_path / CARD).read_text()
    assert "point_peft adapter for PointMAE" in card and "sofa, desk, bed, lamp" in card


def test_a_small_adapter_for_point_mae_small(tmp_path: Path):
    """At most 5 % of the backbone is trained; the file holds it, the head, and little besides."""
    bank = MemoryBank(torch.eye(384), sample_id=torch.arange(384))
    base = PointMAE(15)
    head = sum(p.numel() for p in base.head.parameters())
    backbone = sum(p.numel() for p in base.parameters()) - head
    model = get_peft_model(base, PointPEFTConfig(), memory_bank=bank)
    count = model.count_parameters()
    assert count.head == head and count.without_head <= 0.05 * backbone
    model.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 1.05 * 4 * count.trainable
    assert (tmp_path / bank_name(bank.hash)).stat().st_size > 384 * 384 * 4
    assert len(list(tmp_path.iterdir())) == 4


# ---- refused, and nothing changed ----------------------------------------------------------------


def missing(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors["blocks.0.attn.qkv.peft.lora.update.up.weight"]


def unknown(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["blocks.7.surprise"] = torch.zeros(1)


def misshapen(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["head.layers.8.bias"] = torch.zeros(5)


def unknown_method(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    config["method"] = "os.system"


def unknown_setting(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    config["settings"]["rankle"] = 3


def another_rank(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    config["settings"]["rank"] = 3


def a_bank(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    config["memory_bank"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, r"missing blocks\.0\.attn\.qkv\.peft\.lora\.update\.up\.weight"),
        (unknown, r"unknown blocks\.7\.surprise"),
        (misshapen, r"head\.layers\.8\.bias of shape \[5\] instead of \[4\]"),
        (unknown_method, r"methods adapter, bitfit.*got 'os\.system'; hand its class in"),
        (unknown_setting, "LoRAConfig to be among.*rankle"),
        (another_rank, r"shape \[2, 24\] instead of \[3, 24\]"),
        (a_bank, r"memory_bank\.0{16}\.safetensors' or the argument 'memory_bank'"),
    ],
)
def test_a_file_that_does_not_fit(
    tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], message: str
):
    trained(Way("lora")).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    base = tiny_base().train()
    before = portrait(base)
    with pytest.raises(CheckpointError, match=message):
        PeftModel.from_pretrained(base, tmp_path)
    assert portrait(base) == before
    model = Way("bitfit").attach(base, "a")
    before = portrait(model)
    with pytest.raises(CheckpointError, match=message):
        model.load_adapter(tmp_path, "b")
    assert portrait(model) == before and model.active_adapter == "a"


@every_way
def test_another_base_is_refused(way: Way, tmp_path: Path):
    trained(way).save_pretrained(tmp_path)
    moved = tiny_base()
    moved.get_parameter("blocks.1.norm2.weight").data[3] += 1e-6
    drifted = tiny_base()
    drifted.get_buffer("patch_embed.norm1.running_mean")[0] += 1e-6
    others: list[nn.Module] = [
        *(moved, drifted, tiny_base(seed=1), tiny_base(depth=3), tiny_base(embed_dim=12)),
        nn.Linear(3, 4),
    ]
    if way.method == "full_fine_tuning":  # it replaces every tensor, so only shapes can differ
        others = others[3:]
    for base in others:
        before = portrait(base)
        with pytest.raises(CheckpointError):
            PeftModel.from_pretrained(base, tmp_path)
        assert portrait(base) == before


def test_loading_tensors_is_all_or_nothing():
    model = Way("lora").awake()
    tensors = {key: t.clone() for key, t in model._adapters.tensors("default").items()}
    before, expected = portrait(model), logits(model)
    tensors["head.layers.8.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError, match=r"head\.layers\.8\.bias"):
        model.load_tensors({key: torch.zeros_like(t) for key, t in tensors.items()})
    assert portrait(model) == before and torch.equal(logits(model), expected)


# ---- the bank beside -----------------------------------------------------------------------------


def test_a_bank_is_shared_and_checked(tmp_path: Path):
    model = trained(WITH_BANK)
    model.save_pretrained(tmp_path)
    bank = model.memory_bank
    assert bank is not None
    expected = logits(model)
    path = tmp_path / bank_name(bank.hash)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        PeftModel.from_pretrained(tiny_base(), tmp_path)
    tiny_bank(6).save(path)
    with pytest.raises(CheckpointError, match="Expected the memory bank"):
        PeftModel.from_pretrained(tiny_base(), tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="or the argument 'memory_bank'"):
        PeftModel.from_pretrained(tiny_base(), tmp_path)
    with pytest.raises(CheckpointError, match="Expected the memory bank"):
        PeftModel.from_pretrained(tiny_base(), tmp_path, memory_bank=tiny_bank(6))
    loaded = PeftModel.from_pretrained(tiny_base(), tmp_path, memory_bank=bank)
    assert torch.equal(logits(loaded), expected) and loaded.memory_bank is bank
    Way("point_peft").attach(tiny_base()).save_pretrained(tmp_path / "without")
    with pytest.raises(CheckpointError, match="trained without one"):
        PeftModel.from_pretrained(tiny_base(), tmp_path / "without", memory_bank=bank)


KILLS = [
    *[("fsync", 1), ("replace", 1), ("replace", 2), ("replace", 3), ("replace", 4)],
    *[("fsync", 5), ("unlink", 1)],  # all is written: the folder is flushed, the old bank goes
]


@pytest.mark.parametrize(("step", "call"), KILLS)
def test_killed_while_saving_with_another_bank(tmp_path: Path, step: str, call: int):
    old, new = trained(WITH_BANK), WITH_BANK.attach(tiny_base())
    old.save_pretrained(tmp_path)
    new.memory_banks["default"] = tiny_bank(6)
    assert killed_at(os, step, call, lambda: new.save_pretrained(tmp_path))
    loaded = PeftModel.from_pretrained(tiny_base(), tmp_path)
    is_new = (step, call) in KILLS[3:]
    assert torch.equal(logits(loaded), logits(new.eval() if is_new else old))
    new.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_base(), tmp_path)
    assert torch.equal(logits(loaded), logits(new.eval()))
    assert new.memory_bank is not None
    expected = [CARD, CONFIG, WEIGHTS, bank_name(new.memory_bank.hash)]
    assert sorted(os.listdir(tmp_path)) == sorted(expected), "nothing old is left, nothing half"


def test_an_adapter_without_a_bank_takes_the_place_of_one_with(tmp_path: Path):
    trained(WITH_BANK).save_pretrained(tmp_path)
    assert len(os.listdir(tmp_path)) == 4
    Way("lora").attach(tiny_base()).save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([CARD, CONFIG, WEIGHTS])


def test_nothing_is_removed_where_a_folder_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def unlocked(folder: Path) -> Generator[bool]:
        yield False

    trained(WITH_BANK).save_pretrained(tmp_path)
    monkeypatch.setattr(saving, "exclusive", unlocked)
    Way("lora").attach(tiny_base()).save_pretrained(tmp_path)
    assert len(os.listdir(tmp_path)) == 4


@every_way
def test_two_saves_are_equal_to_the_byte(way: Way, tmp_path: Path):
    model = way.awake()
    for name in ("a", "b"):
        model.save_pretrained(tmp_path / name, class_names=["u", "v", "w", "x"])
    files = [{path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in "ab"]
    assert files[0] == files[1] and len(files[0]) == 3 + way.has_bank


def test_what_is_no_json_writes_nothing(tmp_path: Path):
    model, folder = WITH_BANK.attach(tiny_base()), tmp_path / "adapter"
    with pytest.raises(TypeError, match=r"'preprocessing\.where' to be a JSON value"):
        model.save_pretrained(folder, preprocessing={"where": tmp_path})
    assert not folder.exists()


def test_nothing_active_cannot_be_saved(tmp_path: Path):
    with pytest.raises(ValueError, match="'adapter_name' to be given"):
        PeftModel(tiny_base()).save_pretrained(tmp_path)


# ---- methods of third parties --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NormTail(MethodConfig):
    """A bottleneck after the last norm: what a third party may write."""

    method: ClassVar[str] = "norm_tail"
    width: int = 2

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        tail = OutputAdapter(Bottleneck(CHANNELS, self.width))
        return [Site("norm", "tail", tail), *self.saved_sites(base)]


def test_a_method_of_a_third_party(tmp_path: Path):
    model = get_peft_model(tiny_base(), NormTail(width=3))
    train(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"norm_tail.*configs="):
        PeftModel.from_pretrained(tiny_base(), tmp_path)
    loaded = PeftModel.from_pretrained(tiny_base(), tmp_path, configs=[NormTail])
    assert loaded.peft_config["default"] == NormTail(width=3)
    assert torch.equal(logits(loaded), logits(model)) and len(logits(loaded)) == len(SIZES)


def test_classes_among_the_targets_are_saved_as_paths(tmp_path: Path):
    model = Way("lora").attach(tiny_base(), target_modules=(nn.Linear,))
    train(model)
    model.save_pretrained(tmp_path)
    settings = read_adapter(tmp_path).config["settings"]
    assert "blocks.1.mlp.fc2" in settings["target_modules"]
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_base(), tmp_path)), logits(model))


def test_a_base_without_a_head_is_not_said_to_have_one(tmp_path: Path):
    def base(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    model = get_peft_model(base(0), LoRAConfig(rank=1, modules_to_save=()))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"its frozen weights differ$"):
        PeftModel.from_pretrained(base(1), tmp_path)
