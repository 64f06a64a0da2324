"""Folders whose hashes are right and whose contents are anything: refused by the field's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pyg_peft import (
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    PeftModel,
    PointPEFTConfig,
    VPTConfig,
    get_peft_model,
)
from pyg_peft.backbones import PointMAE
from pyg_peft.checkpoint import WEIGHTS, bank_name
from pyg_peft.errors import CheckpointError
from pyg_peft.nn import MemoryBank
from pyg_peft.tensor_file import fingerprint, write_tensors
from pyg_peft.tuners.engine.card import model_card

HASH = "0" * 64


def small(num_classes: int = 3) -> PointMAE:
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_centers": 6, "patch_size": 4}
    base = PointMAE(3, **sizes).eval()
    if num_classes != 3:
        base.reset_head(num_classes)
    return base


def saved(folder: Path, config: Any = None, bank: MemoryBank | None = None) -> Path:
    model = get_peft_model(small(), config or VPTConfig(num_prompts=4), memory_bank=bank)
    model.save_pretrained(folder, class_names=["a", "b", "c"])
    return folder


def rewrite(
    path: Path,
    change: Callable[[dict[str, Any]], Any] = lambda header: None,
    tensors: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
    text: Callable[[str], str] = lambda text: text,
) -> None:
    """Change a file and hash it anew, as anybody can."""
    with safe_open(str(path), framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["pyg_peft"][64:])
    change(header)
    tensors(held)
    entry = text(json.dumps(header))
    path.write_bytes(save(held, {"pyg_peft": fingerprint(held, entry) + entry}))


def put(*names: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        inner = header
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = value

    return change


def drop(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        inner = header
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]

    return change


FIELDS = ("method", "settings", "backbone", "base_fingerprint", "memory_bank")
HEADERS = [
    *((drop("content", name), name) for name in FIELDS),
    *((put("content", name, value=[7]), name) for name in FIELDS),
    (drop("content", "format"), "'format'"),
    (put("content", "format", value="1"), "'format'"),
    (put("content", "format", value=True), "'format'"),
    (put("content", "format", value=-1), "'format'"),
    (put("content", "format", value=10**400), "of format 1 or earlier"),
    (drop("content"), "'content'"),
    (put("content", value="x"), "'content'"),
    (drop("kind"), "to hold an adapter"),
    (put("kind", value=["x"]), "to hold an adapter"),
    (put("content", "method", value="os.system"), "one of the methods"),
    (put("content", "backbone", "class", value=None), "'backbone.class'"),
    (put("content", "backbone", "config", value=3), "'backbone.config'"),
    (put("content", "base_fingerprint", value="../../../etc"), "'base_fingerprint'"),
    (put("content", "memory_bank", value="../../../../../etc/passwd"), "'memory_bank'"),
    (put("content", "class_names", value={"a": 1}), "'class_names'"),
    (put("content", "class_names", value=["a", 2]), "'class_names'"),
    (put("content", "preprocessing", value=[]), "'preprocessing'"),
    (put("content", "parameters", value="many"), "'parameters'"),
    (put("content", "settings", "num_prompts", value="4"), "'settings'.*num_prompts"),
    (put("content", "settings", "num_prompts", value=True), "'settings'.*num_prompts"),
    (put("content", "settings", "num_prompts", value=-1), "'settings'.*num_prompts"),
    (put("content", "settings", "num_prompts", value=10**9), "prompt.prompts.weight of shape"),
    (put("content", "settings", "num_prompts", value=10**30), "'settings'"),
    (put("content", "settings", "num_classes", value=10**9), "head.layers.8"),
    (put("content", "backbone", "config", "num_classes", value=10**9), "head.layers.8"),
    (put("content", "backbone", "config", "num_classes", value="3"), "'num_classes'"),
    (put("content", "settings", "modules_to_save", value=[[1]]), "'settings'.*modules_to_save"),
    (put("content", "settings", "modules_to_save", value=["nowhere"]), "nowhere"),
    (put("content", "settings", "unknown", value=1), "unknown"),
]


@pytest.mark.parametrize(
    ("change", "message"), HEADERS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_field_that_is_missing_or_mistyped_is_named(change, message, tmp_path):
    rewrite(saved(tmp_path) / WEIGHTS, change)
    base = small()
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        PeftModel.from_pretrained(base, tmp_path)
    assert base.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in base.state_dict().items())


TEXTS = [
    *("", "no JSON", "[]", "null", "NaN", "[" * 200_000, '{"a":' * 100_000, '{"kind": NaN}'),
    '{"kind": "an adapter", "content": ' + '{"a":' * 80 + "1" + "}" * 81,
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12])
def test_a_header_that_is_no_usual_json(text, tmp_path):
    rewrite(saved(tmp_path) / WEIGHTS, text=lambda _: text)
    with pytest.raises(CheckpointError, match="header"):
        PeftModel.from_pretrained(small(), tmp_path)


SIZES = [
    (LoRAConfig(rank=2), "rank", 10**9),
    (PointPEFTConfig(num_prompts=3), "num_prompts", 10**9),
    (PointPEFTConfig(num_prompts=3), "prompt_depth", 10**9),
    (PointPEFTConfig(num_prompts=3), "attention_channels", 6 * 10**9),
    (PointPEFTConfig(num_prompts=3), "bottleneck_channels", 10**9),
    (LinearProbeConfig(), "num_classes", 10**9),
    (FullFineTuningConfig(), "num_classes", 10**9),
]


@pytest.mark.parametrize(("config", "name", "size"), SIZES)
def test_sizes_that_the_tensors_do_not_have_take_no_memory(config, name, size, tmp_path):
    rewrite(saved(tmp_path, config) / WEIGHTS, put("content", "settings", name, value=size))
    if name in ("rank", "prompt_depth"):  # more than there is means all, and is no size
        loaded = {"rank": CheckpointError, "prompt_depth": None}[name]
        if loaded is None:
            PeftModel.from_pretrained(small(), tmp_path)
            return
    with pytest.raises(CheckpointError, match="got"):
        PeftModel.from_pretrained(small(), tmp_path)


KEY = "blocks.0.peft.prompt.prompts.weight"


def with_tensor(value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda held: held.update({KEY: value})


FILLED = torch.full((4, 24), 1.0)
TENSORS = [
    (FILLED.where(torch.arange(24) > 0, torch.nan), rf"'{KEY}' to be finite \(got nan at \[0, 0\]"),
    (FILLED / 0, rf"'{KEY}' to be finite \(got inf"),
    ((FILLED * 1e300).double() * 1e8, f"'{KEY}' to be finite"),
    (torch.full((4, 24), 1e300, dtype=torch.float64), f"'{KEY}' to be finite"),
    (FILLED.to(torch.complex64), f"'{KEY}' to be of real numbers"),
    (FILLED.long(), f"{KEY} of torch.int64 instead of torch.float32"),
    (FILLED.bool(), f"{KEY} of torch.bool instead of torch.float32"),
    (torch.ones(4, 23), f"{KEY} of shape"),
]


@pytest.mark.parametrize(("value", "message"), TENSORS, ids=range(len(TENSORS)))
def test_tensors_that_are_no_numbers_are_named_when_loaded(value, message, tmp_path):
    rewrite(saved(tmp_path) / WEIGHTS, tensors=with_tensor(value))
    with pytest.raises(CheckpointError, match=message):
        PeftModel.from_pretrained(small(), tmp_path)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.full((4, 24), torch.nan), ValueError, "to be finite"),
        (torch.full((4, 24), torch.inf), ValueError, "to be finite"),
        (torch.empty(4, 24, device="meta"), TypeError, "on the meta device"),
        (torch.eye(4, 24).to_sparse(), TypeError, "a sparse one"),
        (torch.ones(4, 24, dtype=torch.complex64), TypeError, "of real numbers"),
    ],
    ids=["nan", "inf", "meta", "sparse", "complex"],
)
def test_tensors_that_are_no_numbers_are_named_when_saved(value, error, message, tmp_path):
    with pytest.raises(error, match=f"'w' to .*{message}|'w' {message}"):
        write_tensors(tmp_path / "file", "anything", {"w": value}, {"format": 1})
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_adapter_that_diverged_is_not_saved(value, tmp_path):
    bank = MemoryBank(torch.nn.functional.normalize(torch.randn(8, 24), dim=1))
    model = get_peft_model(small(), PointPEFTConfig(num_prompts=4), memory_bank=bank)
    parameter = next(p for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        parameter.view(-1)[-1] = value
    with pytest.raises(ValueError, match=r"'blocks\.0\.norm1\.bias' to be finite"):
        model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


# ---- banks -----------------------------------------------------------------------------------

KEYS = torch.eye(4)
BANKS = [
    ({"keys": KEYS / 0}, "'keys' to be finite"),
    ({"values": KEYS * torch.nan}, "'values' to be finite"),
    ({"values": KEYS.long()}, "'values' to be floating point"),
    ({"keys": KEYS.to(torch.complex64)}, "'keys'"),
    ({"sample_id": torch.arange(4.0)}, "'sample_id' to be an integer tensor"),
    ({"sample_id": torch.tensor([0, 0, 0, 1]).bool()}, "'sample_id' to be an integer tensor"),
    ({"labels": torch.arange(4.0)}, "'labels' to be an integer tensor"),
    ({"labels": torch.ones(4, dtype=torch.bool)}, "'labels' to be an integer tensor"),
]


@pytest.mark.parametrize(("changed", "message"), BANKS, ids=[m for _, m in BANKS])
def test_a_bank_of_no_numbers_is_refused_when_made_and_when_loaded(changed, message, tmp_path):
    tensors: dict[str, Any] = {"keys": KEYS, "sample_id": torch.arange(4), **changed}
    with pytest.raises((ValueError, TypeError), match=message):
        MemoryBank(**tensors)
    MemoryBank(KEYS, sample_id=torch.arange(4)).save(tmp_path / "bank")
    rewrite(tmp_path / "bank", tensors=lambda held: held.update(tensors))
    with pytest.raises(CheckpointError, match=message):
        MemoryBank.load(tmp_path / "bank")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (torch.empty(4, 4, device="meta"), "on the meta device"),
        (torch.eye(4).to_sparse(), "a sparse one"),
    ],
)
def test_a_bank_without_values_is_refused(keys, message):
    with pytest.raises(TypeError, match=message):
        MemoryBank(keys)


BANK_SOURCES = ["x", [1], {"module": 1, "pool": "max"}, {"module": "a"}, {"module": "a", "pool": 1}]


@pytest.mark.parametrize("source", BANK_SOURCES, ids=str)
def test_the_source_of_a_bank_is_checked(source, tmp_path):
    MemoryBank(KEYS).save(tmp_path / "bank")
    rewrite(tmp_path / "bank", put("content", "source", value=source))
    with pytest.raises(CheckpointError, match=r"source|pool"):
        MemoryBank.load(tmp_path / "bank")


def test_a_bank_without_keys_or_with_more(tmp_path):
    MemoryBank(KEYS).save(tmp_path / "bank")
    rewrite(tmp_path / "bank", tensors=lambda held: held.update(self=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="to hold a memory bank"):
        MemoryBank.load(tmp_path / "bank")
    rewrite(tmp_path / "bank", tensors=lambda held: [held.pop("keys"), held.pop("self")])
    with pytest.raises(CheckpointError, match="to hold a memory bank"):
        MemoryBank.load(tmp_path / "bank")


def test_a_bank_that_does_not_fit_the_settings(tmp_path):
    bank = MemoryBank(torch.nn.functional.normalize(torch.randn(8, 24), dim=1))
    saved(tmp_path, PointPEFTConfig(num_prompts=4), bank)
    rewrite(tmp_path / WEIGHTS, put("content", "memory_bank", value=HASH))
    with pytest.raises(CheckpointError, match=bank_name(HASH)):
        PeftModel.from_pretrained(small(), tmp_path)


# ---- the base's head does not matter ---------------------------------------------------------

METHODS = [
    VPTConfig(num_prompts=4),
    LoRAConfig(rank=2),
    LinearProbeConfig(),
    FullFineTuningConfig(),
]


@pytest.mark.parametrize("config", METHODS, ids=lambda config: config.method)
@pytest.mark.parametrize("own", [None, 5])
def test_a_base_with_another_number_of_classes(config, own, tmp_path):
    torch.manual_seed(1)
    config = type(config)(**{**config.to_dict(), "num_classes": own}) if own else config
    config = config if own is None else type(config).from_dict(config.to_dict())
    model = get_peft_model(small(), config)
    model.save_pretrained(tmp_path)
    pos = torch.randn(40, 3)
    for classes in (3, 7, 1):
        loaded = PeftModel.from_pretrained(small(classes), tmp_path)
        with torch.no_grad():
            assert torch.equal(loaded(pos=pos), model.eval()(pos=pos))
        loaded.save_pretrained(tmp_path / f"again{classes}", class_names=["x"] * (own or 3))
        assert loaded.unload().num_classes == classes


def test_an_adapter_without_a_head_says_that_the_head_matters(tmp_path):
    model = get_peft_model(small(), LoRAConfig(rank=2, modules_to_save=()))
    model.save_pretrained(tmp_path)
    PeftModel.from_pretrained(small(), tmp_path)
    with pytest.raises(CheckpointError, match="among which the head is"):
        PeftModel.from_pretrained(small(7), tmp_path)


# ---- the card --------------------------------------------------------------------------------


def test_names_stay_names_in_the_card():
    hostile = ["a|b", "c\n\n# d", "[e](javascript:f)", "<script>g</script>", "`h`", "![i](j)"]
    text = model_card(
        {
            "method": "x\n# y",
            "settings": {"a": "\n```\n<b>"},
            "backbone": {"class": "<img src=k>", "config": None},
            "base_fingerprint": HASH,
            "memory_bank": None,
            "class_names": hostile,
            "preprocessing": {"z": "<a href=l>|"},
        }
    )
    assert text.count("\n# ") == 1 and text.count("\n```") == 4
    classes = next(line for line in text.splitlines() if line.startswith("| classes"))
    assert classes.replace("\\|", "").count("|") == 3
    outside = text.partition("Method:")[0].replace("\\<", "").replace("\\[", "").replace("\\`", "")
    assert not any(mark in outside.partition("# x")[2] for mark in ("<", "[", "`h"))


def test_usual_names_are_in_the_card_as_they_are():
    config = {
        "method": "vpt",
        "settings": {},
        "backbone": {"class": "PointMAE", "config": None},
        "base_fingerprint": HASH,
        "memory_bank": None,
        "class_names": ["night_stand", "chair"],
    }
    assert "| classes | night_stand, chair |" in model_card(config)
