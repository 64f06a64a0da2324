"""Adapter folders and banks of every method, damaged and hashed anew, and how they are opened."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fuzz import dice, mutations
from fuzz.dice import Draw
from fuzz.sandbox import EITHER, RIGHT, Verdict, judge
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor
from tuned import CHANNELS, CLASSES, DEPTH, WAYS, logits, tiny_base

from pyg_peft import MemoryBank, PeftModel
from pyg_peft.checkpoint import WEIGHTS, bank_name, fingerprint, read_adapter, remove_unused
from pyg_peft.errors import CheckpointError

_ENTRY, _HEX = "pyg_peft", 64
PREPROCESSING = {
    "num_points": 16,
    "normalize": True,
    "up_axis": "z",
    "weights": {"source": "random", "seed": 0},
    "read_args": {"num_points": 16},
}
RECORDED = {
    "embed_dim": CHANNELS,
    "depth": DEPTH,
    "num_heads": 3,
    "num_centers": 8,
    "patch_size": 4,
}
#: Settings that say how large something is to be made.
SIZES = (
    *("num_prompts", "rank", "bottleneck_channels", "prompt_depth", "attention_channels"),
    *("num_classes", "attention_heads", "prompt_bottleneck_channels", "k"),
)


@functools.cache
def folder_of(way: int, recorded: bool = False) -> dict[str, bytes]:
    """What ``save_pretrained`` writes for a method, with class names and preprocessing.

    Args:
        way: number of the method.
        recorded: trained on the base that the preprocessing records, not on the tests' own.
    """
    model = WAYS[way].awake()
    if recorded:
        from pyg_peft.loading import open_backbone  # late: it needs what training needs

        model = WAYS[way].attach(open_backbone("random", CLASSES, RECORDED, 0))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, class_names=list("abcd"), preprocessing=PREPROCESSING)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@functools.cache
def expected_logits(way: int) -> Tensor:
    return logits(WAYS[way].awake()).detach()


@functools.cache
def base() -> Any:
    return tiny_base()


# ---- the file's own format -----------------------------------------------------------------------


def unpack(content: bytes) -> tuple[str, dict[str, Tensor]]:
    """The header's text, without its hash, and the tensors."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with safe_open(file.name, framework="pt") as opened:
            text = (opened.metadata() or {})[_ENTRY]
    return text[_HEX:], load(content)


def pack(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """A file whose hash is right, whatever is in it."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(contiguous, {_ENTRY: fingerprint(contiguous, text) + text})


# ---- damage --------------------------------------------------------------------------------------


def damage_bytes(draw: Draw, files: dict[str, bytes]) -> str:
    """Any file of the folder, without a new hash."""
    name = draw(dice.sampled_from(sorted(files)))
    damaged, told = mutations.damage_bytes(draw, files[name])
    if draw(dice.integers(0, 9)) == 5:
        told = "gone"
        del files[name]
    else:
        files[name] = damaged
    return f"{name}: {told}"


def damage_fields(draw: Draw, files: dict[str, bytes]) -> str:
    """Well-formed JSON in the header, with another value somewhere."""
    text, tensors = unpack(files[WEIGHTS])
    value = json.loads(text)
    if draw(dice.integers(0, 3)) == 0:
        settings = value["content"]["settings"]
        sizes = [name for name in SIZES if name in settings]
        if sizes:
            name = draw(dice.sampled_from(sizes))
            settings[name] = draw(
                dice.sampled_from((10**9, 10**30, -1, 0, 2.5, "3", None, True, [3]))
            )
            files[WEIGHTS] = pack(json.dumps(value, sort_keys=True), tensors)
            return f"settings.{name} = {settings[name]!r}"
    value, told = mutations.damage_json(draw, value)
    files[WEIGHTS] = pack(json.dumps(value, sort_keys=True), tensors)
    return told


def damage_header(draw: Draw, files: dict[str, bytes]) -> str:
    """A header that is no JSON, or JSON of another kind."""
    text, tensors = unpack(files[WEIGHTS])
    text, told = mutations.damage_json_text(draw, text)
    files[WEIGHTS] = pack(text, tensors)
    return f"header: {told}"


def damage_weights(draw: Draw, files: dict[str, bytes]) -> str:
    """Other tensors under a right hash."""
    text, tensors = unpack(files[WEIGHTS])
    tensors, told = mutations.damage_tensors(draw, tensors)
    files[WEIGHTS] = pack(text, tensors)
    return told


def damage_bank(draw: Draw, files: dict[str, bytes]) -> str:
    """A damaged bank under a right hash, which the adapter names."""
    (name,) = (name for name in files if name.startswith("memory_bank"))
    text, tensors = unpack(files.pop(name))
    match draw(dice.integers(0, 3)):
        case 0:
            value, told = mutations.damage_json(draw, json.loads(text))
            text = json.dumps(value)
        case 1:
            text, told = mutations.damage_json_text(draw, text)
        case _:
            tensors, told = mutations.damage_tensors(draw, tensors)
    digest = fingerprint(tensors, "")
    files[bank_name(digest)] = pack(text, tensors)
    header, weights = unpack(files[WEIGHTS])
    value = json.loads(header)
    value["content"]["memory_bank"] = digest
    files[WEIGHTS] = pack(json.dumps(value), weights)
    return f"bank, {told}"


DAMAGES: dict[str, Callable[[Draw, dict[str, bytes]], str]] = {
    "bytes": damage_bytes,
    "fields": damage_fields,
    "header": damage_header,
    "tensors": damage_weights,
    "bank": damage_bank,
}


# ---- opening -------------------------------------------------------------------------------------


def open_on_base(folder: str) -> Any:
    """Load onto the base it was trained on; afterwards the base is as before, whatever happened."""
    own = base()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    try:
        model = PeftModel.from_pretrained(own, folder)
        try:
            return logits(model)
        finally:
            model.unload()
    finally:
        after = own.state_dict()
        if list(after) != list(before) or not all(
            map(torch.equal, after.values(), before.values())
        ):
            base.cache_clear()
            raise SystemError("the base is not as it was")


def open_bank(folder: str) -> Any:
    """Read the bank of a folder by itself, and ask it."""
    (path,) = Path(folder).glob("memory_bank*")
    bank = MemoryBank.load(path)
    return bank(torch.ones(2, bank.channels), 1)


def open_for_prediction(folder: str) -> Any:
    """All that ``pyg-peft predict`` takes out of a folder."""
    from torch_geometric.data import Data

    from pyg_peft.cli.saved import open_adapter

    saved = open_adapter(folder, None, {})
    if not all(isinstance(name, str) for name in saved.class_names):
        raise AssertionError(f"class names {saved.class_names!r}")
    data = Data(pos=torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    pos = saved.preprocessing.evaluation()(data).pos
    return saved.model(pos=pos, batch=torch.zeros(len(pos), dtype=torch.long))


def tidy_up(folder: str) -> Any:
    """Remove unused banks: the one that an adapter needs stays, or no file was understood."""
    held = sorted(path.name for path in Path(folder).glob("memory_bank*"))
    remove_unused(folder)
    left = sorted(path.name for path in Path(folder).glob("memory_bank*"))
    try:
        needed = read_adapter(folder).config.get("memory_bank")
    except (CheckpointError, FileNotFoundError):
        return left
    gone = set(held) - set(left)
    if isinstance(needed, str) and bank_name(needed) in gone:
        raise AssertionError("the bank that the adapter needs was removed")
    return left


def check_logits(way: int, result: Any) -> str | None:
    if not bool(torch.isfinite(result).all()):
        return f"logits that are not finite: {result}"
    return None


OPENERS: dict[str, Callable[[str], Any]] = {
    "from_pretrained": open_on_base,
    "MemoryBank.load": open_bank,
    "predict": open_for_prediction,
    "remove_unused": tidy_up,
}
#: What each may raise, beside FileNotFoundError.
ERRORS: dict[str, tuple[type[Exception], ...]] = {
    "from_pretrained": (CheckpointError,),
    "MemoryBank.load": (CheckpointError,),
    "predict": (ValueError,),
    "remove_unused": (CheckpointError,),
}


@dataclass(frozen=True)
class FolderCase:
    """One damaged folder, opened in one way."""

    opener: str
    way: int
    files: tuple[tuple[str, bytes], ...]
    damage: str

    def trial(self) -> Verdict:
        folder = tempfile.mkdtemp(prefix="adapter-")
        try:
            self.write(folder)
            words = [
                word
                for word in self.damage.replace("=", " ").replace(".", " ").split()
                if len(word) > 3
            ]
            verdict = judge(
                lambda: self.open(folder),
                # The folder, or the field: "settings.rank" is named by "rank".
                names=(
                    folder,
                    *(Path(folder, name).as_posix() for name, _ in self.files),
                    *words,
                    "memory_bank",
                    "backbone",
                ),
                check=self._check,
                expected=EITHER if self.damage else RIGHT,
                from_file=True,
            )
        finally:
            shutil.rmtree(folder)
        return verdict

    def open(self, folder: str) -> Any:
        try:
            return OPENERS[self.opener](folder)
        except (ValueError, TypeError, NotImplementedError) as error:
            if not isinstance(error, ERRORS[self.opener]):
                kind, text = type(error).__name__, str(error)
                raise RuntimeError(f"{kind} in the place of CheckpointError: {text}") from error
            raise

    def _check(self, result: Any) -> str | None:
        if self.opener == "remove_unused":
            return None
        problem = check_logits(self.way, result)
        if problem or self.damage or self.opener != "from_pretrained":
            return problem
        same = torch.equal(result, expected_logits(self.way))
        return None if same else "other logits than those of the model that was saved"

    def write(self, folder: str) -> None:
        for name, content in self.files:
            Path(folder, name).write_bytes(content)

    def __str__(self) -> str:
        folder = tempfile.mkdtemp(prefix="fuzz-adapter-")
        self.write(folder)
        what = f"{self.opener} of {WAYS[self.way]} ({self.damage or 'whole'})"
        return f"{what}, kept in {os.fspath(folder)}"


def draw_folder(draw: Draw, opener: str, damage: str) -> FolderCase:
    """A damaged folder of any method; one in thirty is whole."""
    ways = [place for place, way in enumerate(WAYS) if way.has_bank or damage != "bank"]
    if opener == "MemoryBank.load":
        ways = [place for place in ways if WAYS[place].has_bank]
    way = draw(dice.sampled_from(ways))
    for _ in range(3):
        if WAYS[way].method == "full_fine_tuning":  # thirty times as large as the others
            way = draw(dice.sampled_from(ways))
    given = folder_of(way, opener == "predict")
    files = dict(given)
    if draw(dice.integers(0, 29)) == 7:
        return FolderCase(opener, way, tuple(files.items()), "")
    told = DAMAGES[damage](draw, files)
    return FolderCase(opener, way, tuple(files.items()), "" if files == given else told)


def warm() -> None:
    """Make everything once, before a fork."""
    base()
    for place in range(len(WAYS)):
        folder_of(place)
        expected_logits(place)


__all__ = ["DAMAGES", "OPENERS", "FolderCase", "draw_folder", "warm"]
