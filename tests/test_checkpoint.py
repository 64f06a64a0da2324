"""The adapter file: whole or not at all, and never something else without a word."""

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import killed_at
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyg_peft.checkpoint import (
    CARD,
    CONFIG,
    FORMAT,
    WEIGHTS,
    bank_name,
    check_tensors,
    fingerprint,
    read_adapter,
    remove_unused,
    to_json,
    write_adapter,
)
from pyg_peft.errors import CheckpointError
from pyg_peft.tensor_file import write_tensors

CONFIG_VALUES: dict[str, Any] = {"method": "lora", "settings": {"rank": 2, "names": ["a", "é"]}}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
]


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "blocks.0.peft.lora.up": torch.randn(3, 2, generator=generator),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "steps": torch.tensor(seed),
        "none": torch.empty(0, 4),
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == t.dtype and torch.equal(found[k], t) for k, t in expected.items()
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- round trip ------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path):
    folder = tmp_path / "deep" / "adapter"
    write_adapter(folder, some_tensors(), CONFIG_VALUES, "# card")
    file = read_adapter(folder)
    assert same(file.tensors, some_tensors())
    assert file.config == {"format": FORMAT, **CONFIG_VALUES}
    assert listing(folder) == [CARD, CONFIG, WEIGHTS]
    assert json.loads((folder / CONFIG).read_text()) == file.config
    assert (folder / CARD).read_text() == "# card"


@settings(max_examples=15)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 3), max_size=3),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
        lambda text: text != "__metadata__"
    ),
)
def test_round_trip_of_anything(
    dtype: torch.dtype, shape: list[int], name: str, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("adapter")
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    write_adapter(folder, {name: tensor}, {"text": name}, name)
    file = read_adapter(folder)
    assert list(file.tensors) == [name] and file.config["text"] == name
    found = file.tensors[name]
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    assert torch.equal(found.double(), tensor.double())


def test_views_are_written_whole(tmp_path: Path):
    matrix = torch.arange(6.0).view(2, 3)
    write_adapter(tmp_path, {"t": matrix.t(), "row": matrix[1]}, {}, "")
    tensors = read_adapter(tmp_path).tensors
    assert torch.equal(tensors["t"], matrix.t()) and torch.equal(tensors["row"], matrix[1])


def test_saving_over_an_adapter_replaces_it(tmp_path: Path):
    write_adapter(tmp_path, some_tensors(1), CONFIG_VALUES, "one")
    write_adapter(tmp_path, some_tensors(2), {**CONFIG_VALUES, "method": "other"}, "two")
    file = read_adapter(tmp_path)
    assert same(file.tensors, some_tensors(2)) and file.config["method"] == "other"
    assert listing(tmp_path) == [CARD, CONFIG, WEIGHTS]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"settings": {"target": torch.nn.Linear}}, r"settings\.target.*got type"),
        ({"a": [1, {2, 3}]}, r"'a\.1'.*got set"),
        ({"a": {"b": float("nan")}}, r"'a\.b'.*got nan"),
        ({"a": float("inf")}, r"'a'.*got inf"),
        ({"a": {1: 2}}, r"'a' to have str keys \(got 1\)"),
        ({"a": Path("x")}, r"'a'.*Path"),
        ({"a": torch.tensor(1.0)}, r"'a'.*Tensor"),
    ],
)
def test_what_is_no_json_writes_nothing(tmp_path: Path, value: dict[str, Any], path: str):
    with pytest.raises(TypeError, match=path):
        write_adapter(tmp_path / "new", some_tensors(), value, "")
    assert listing(tmp_path) == []
    write_adapter(tmp_path, some_tensors(), CONFIG_VALUES, "")
    with pytest.raises(TypeError):
        write_adapter(tmp_path, some_tensors(1), value, "")
    assert same(read_adapter(tmp_path).tensors, some_tensors())
    assert listing(tmp_path) == [CARD, CONFIG, WEIGHTS]


def test_tuples_are_lists_and_the_order_of_keys_does_not_matter():
    assert to_json({"b": (1, 2), "a": None}) == to_json({"a": None, "b": [1, 2]})


# ---- killed in the middle ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "call", "version"),
    [
        *[("fsync", 1, 1), ("chmod", 1, 1), ("replace", 1, 1)],
        *[("fsync", 2, 2), ("replace", 2, 2), ("fsync", 3, 2), ("replace", 3, 2)],
    ],
)
def test_killed_while_saving(tmp_path: Path, step: str, call: int, version: int):
    def save(number: int) -> None:
        weights = {"w": torch.full((1000,), float(number))}
        write_adapter(tmp_path, weights, {"version": number}, str(number))

    save(1)
    assert killed_at(os, step, call, lambda: save(2))
    file = read_adapter(tmp_path)
    # Tensors and configuration never part, whatever the other files say.
    assert file.config["version"] == version
    assert torch.equal(file.tensors["w"], torch.full((1000,), float(version)))
    save(3)
    assert read_adapter(tmp_path).config["version"] == 3


# ---- nothing is left over --------------------------------------------------------------------


def a_bank(folder: Path, number: int) -> tuple[str, str]:
    """Hash and name of a file that is called as a bank is."""
    digest = f"{number:064x}"[::-1]
    (folder / bank_name(digest)).write_text("a bank")
    return digest, bank_name(digest)


def test_banks_that_nothing_refers_to_are_removed(tmp_path: Path):
    (first, one), (second, two), (_, three) = (a_bank(tmp_path, number) for number in (1, 2, 3))
    write_adapter(tmp_path, some_tensors(), {"memory_bank": second}, "")
    (tmp_path / WEIGHTS).rename(tmp_path / "best.safetensors")  # a copy that somebody keeps
    write_adapter(tmp_path, some_tensors(), {"memory_bank": first}, "")
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    kept = [CARD, CONFIG, WEIGHTS, "best.safetensors", "foreign.safetensors"]
    remove_unused(tmp_path)
    assert listing(tmp_path) == sorted([*kept, one, two]) and three not in listing(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"damaged")
    write_adapter(tmp_path, some_tensors(), {"memory_bank": None}, "")
    remove_unused(tmp_path)
    assert listing(tmp_path) == sorted([*kept, one, two]), "a file that cannot be read may need it"
    (tmp_path / "best.safetensors").unlink()
    remove_unused(tmp_path)
    assert listing(tmp_path) == [CARD, CONFIG, WEIGHTS, "foreign.safetensors"]


def test_only_files_of_our_names_are_removed(tmp_path: Path):
    mine = [".notes.abcdefgh.tmp", "memory_bank.0123.safetensors", "memory_bank.safetensors"]
    for name in mine:
        save_file({"w": torch.zeros(2)}, tmp_path / name)
    leftovers = [f".{name}.abcdefg_.tmp" for name in (WEIGHTS, CONFIG, CARD, bank_name("0" * 64))]
    for name in leftovers:
        (tmp_path / name).touch()
    write_adapter(tmp_path, some_tensors(), CONFIG_VALUES, "")
    remove_unused(tmp_path)
    assert listing(tmp_path) == sorted([*mine, CARD, CONFIG, WEIGHTS])


def test_two_saves_are_equal_to_the_byte(tmp_path: Path):
    tensors, config = some_tensors(), {**CONFIG_VALUES, **{f"k{n}": n for n in range(20)}}
    first: dict[str, bytes] = {}
    for number in range(8):
        folder = tmp_path / str(number)
        write_adapter(folder, tensors, config, "# card")
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        first = first or found
        assert found == first
        # The order of what is handed in does not matter either.
        tensors = dict(reversed(tensors.items()))
        config = dict(reversed(config.items()))


# ---- damaged and foreign files -----------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write_adapter(tmp_path, some_tensors(), CONFIG_VALUES, "")
    return (tmp_path / WEIGHTS).read_bytes()


def judge(folder: Path, content: bytes) -> bool:
    """Whether damaged content was noticed; if not, it must be the very same content."""
    (folder / WEIGHTS).write_bytes(content)
    try:
        file = read_adapter(folder)
    except CheckpointError as error:
        assert WEIGHTS in str(error)
        return True
    assert same(file.tensors, some_tensors())
    assert file.config == {"format": FORMAT, **CONFIG_VALUES}
    return False


def test_a_flipped_bit_is_noticed(tmp_path: Path, whole: bytes):
    draw = random.Random(0)
    # Every byte of the length, and many of the header and the tensors.
    places = [*range(8), *draw.sample(range(8, len(whole)), 250)]
    noticed = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        noticed += judge(tmp_path, bytes(damaged))
    assert noticed > 0.95 * len(places)


def test_a_flipped_tensor_byte_is_always_noticed(tmp_path: Path, whole: bytes):
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(header, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        assert judge(tmp_path, bytes(damaged))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; run 'git lfs pull'"),
        (b"<!doctype html><html>", "it is a web page"),
    ],
)
def test_what_was_stored_instead_of_an_adapter_is_named(
    tmp_path: Path, content: bytes, message: str
):
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_adapter(tmp_path)


def test_a_truncated_file_is_noticed(tmp_path: Path, whole: bytes):
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) - 1):
        assert judge(tmp_path, whole[:length]), length
    assert judge(tmp_path, whole + b"\x00")
    assert judge(tmp_path, b"\x00" * len(whole))


def test_a_pickle_is_never_opened(tmp_path: Path):
    marker = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    folder = tmp_path / "adapter"
    folder.mkdir()
    for protocol in (0, 2, 5):
        (folder / WEIGHTS).write_bytes(pickle.dumps(Trap(), protocol))
        with pytest.raises(CheckpointError):
            read_adapter(folder)
    torch.save({"w": torch.zeros(2)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="it is a pickle, which is never opened here"):
        read_adapter(folder)
    torch.save({"w": torch.zeros(2)}, folder / WEIGHTS, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="it is a pickle"):
        read_adapter(folder)
    assert not marker.exists()


def test_a_foreign_safetensors_file(tmp_path: Path):
    save_file({"w": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="safetensors file of other origin"):
        read_adapter(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match="safetensors file of other origin"):
        read_adapter(tmp_path)


def test_tensors_exchanged_between_two_adapters(tmp_path: Path):
    write_adapter(tmp_path, some_tensors(1), CONFIG_VALUES, "")
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file(some_tensors(2), tmp_path / WEIGHTS, metadata)
    with pytest.raises(CheckpointError, match="to match its SHA-256"):
        read_adapter(tmp_path)
    changed = {name: text.replace("lora", "vera") for name, text in metadata.items()}
    save_file(some_tensors(1), tmp_path / WEIGHTS, changed)
    with pytest.raises(CheckpointError, match="to match its SHA-256"):
        read_adapter(tmp_path)


def test_another_kind_of_file(tmp_path: Path):
    write_tensors(tmp_path / WEIGHTS, "a memory bank", some_tensors(), {"format": 1})
    with pytest.raises(CheckpointError, match=r"to hold an adapter \(got a memory bank\)"):
        read_adapter(tmp_path)


def test_a_later_format(tmp_path: Path):
    write_adapter(tmp_path, some_tensors(), {"format": FORMAT + 1}, "")
    with pytest.raises(CheckpointError, match=f"format {FORMAT} or earlier .got {FORMAT + 1}"):
        read_adapter(tmp_path)


def test_no_adapter_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        read_adapter(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_adapter(tmp_path / "nowhere")


def test_the_readable_configuration_is_not_what_counts(tmp_path: Path):
    write_adapter(tmp_path, some_tensors(), CONFIG_VALUES, "")
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / CARD).unlink()
    assert read_adapter(tmp_path).config["method"] == "lora"


# ---- fingerprints and keys -----------------------------------------------------------------------


def test_a_fingerprint_sees_names_types_shapes_and_values():
    base = {"w": torch.zeros(2, 3), "v": torch.ones(1)}
    same_content = {"v": torch.ones(1), "w": torch.zeros(3, 2).t()}
    assert fingerprint(base) == fingerprint(same_content)
    others = [
        {"w": base["w"]},
        {"w": base["w"], "u": base["v"]},
        {"w": base["w"].view(3, 2), "v": base["v"]},
        {"w": base["w"].double(), "v": base["v"]},
        {"w": base["w"] + 1e-45, "v": base["v"]},
        {"w": -base["w"], "v": base["v"]},
    ]
    assert len({fingerprint(tensors) for tensors in [base, *others]}) == 7


def test_every_misfit_is_named():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    found = {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)}
    message = r"'x' to fit.*missing c; unknown d; b of shape \[4\] instead of \[3\]"
    with pytest.raises(CheckpointError, match=message):
        check_tensors(found, expected, "x")
    check_tensors(expected, expected, "x")
    many = {f"k{i}": torch.zeros(1) for i in range(12)}
    with pytest.raises(CheckpointError, match="k7; 4 more"):
        check_tensors({}, many, "x")


def test_the_name_of_a_bank():
    assert bank_name("0123456789abcdef" * 4) == "memory_bank.0123456789abcdef.safetensors"
