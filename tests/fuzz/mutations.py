"""Damage to files, as a careless disk, a foreign program or an attacker would do it.

Each function takes ``draw`` and something whole, and returns it damaged, with a text that says how.
"""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fuzz import dice as st
from fuzz.dice import Draw
from torch import Tensor

#: How much of the beginning counts as header, where most numbers are sizes.
_HEADER = 400

_EXTREME = (
    *(struct.pack("<I", n) for n in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)),
    *(struct.pack(">I", n) for n in (1, 0x7FFFFFFF, 0xFFFFFF00)),
    *(struct.pack("<Q", n) for n in (0, 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1)),
    *(struct.pack("<H", n) for n in (0, 0x7FFF, 0xFFFF)),
    *(struct.pack("<f", n) for n in (float("nan"), float("inf"), 1e38, 1e-42)),
    *(struct.pack("<d", n) for n in (float("nan"), float("-inf"), 1e300, -0.0)),
)

_TOKENS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"1e38", b"1e300", b"-1", b"0", b"1", b"2", b"3", b"4"),
    *(b"99999999999999", b"4294967295", b"2147483647", b"18446744073709551616", b"1000000000"),
    *(b"-9223372036854775808", b"0x10", b"1,5", b"1.5", b"1.", b"--", b"", b"#", b"//", b"1_000"),
    *(b"\xff\xfe", b"a" * 5000, b"%s%n", b"\x1b[31m", b"\0", "١".encode(), b"float", b"list", b"x"),
)


def damage_bytes(draw: Draw, content: bytes) -> tuple[bytes, str]:
    """Damage that knows nothing of the format."""
    told: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        content, what = _one_damage(draw, content)
        told.append(what)
    return content, ", ".join(told)


def _place(draw: Draw, size: int) -> int:
    if draw(st.booleans()):
        size = min(size, _HEADER)
    return draw(st.integers(0, max(0, size - 1)))


def _one_damage(draw: Draw, content: bytes) -> tuple[bytes, str]:
    kinds = (
        "flip",
        "byte",
        "extreme",
        "truncate",
        "drop",
        "repeat",
        "splice",
        "insert",
        "zero",
        "append",
    )
    kind = draw(st.sampled_from((*kinds, "extreme", "extreme")))
    at, size = _place(draw, len(content)), draw(st.integers(1, 64))
    block = content[at : at + size]
    told = f"{kind} at {at}"
    match kind:
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            return content[:at] + bytes(b ^ bit for b in content[at : at + 1]) + content[
                at + 1 :
            ], told
        case "byte":
            value = draw(st.sampled_from((0, 1, 127, 128, 255)))
            return content[:at] + bytes([value]) + content[at + 1 :], f"{told} = {value}"
        case "extreme":
            value = draw(st.sampled_from(_EXTREME))
            return content[:at] + value + content[at + len(value) :], f"{told} = {value.hex()}"
        case "truncate":
            return content[:at], told
        case "drop":
            return content[:at] + content[at + size :], f"{told}, {size} bytes"
        case "repeat":
            return content[:at] + block * draw(st.integers(2, 9)) + content[at + size :], told
        case "splice":
            other = _place(draw, len(content))
            return content[:at] + content[other : other + size] + content[
                at + size :
            ], f"{told} from {other}"
        case "insert":
            return content[:at] + draw(st.binary(16)) + content[at:], told
        case "zero":
            return content[:at] + bytes(len(block)) + content[at + size :], f"{told}, {size} bytes"
        case _:
            return content + draw(st.binary(64)), "append"


def damage_text(draw: Draw, content: bytes) -> tuple[bytes, str]:
    """Damage to words and lines; now and then to bytes."""
    if draw(st.integers(0, 4)) == 0:
        return damage_bytes(draw, content)
    told: list[str] = []
    for _ in range(draw(st.integers(1, 2))):
        content, what = _one_word(draw, content)
        told.append(what)
    return content, ", ".join(told)


def _one_word(draw: Draw, content: bytes) -> tuple[bytes, str]:
    words = list(re.finditer(rb"\S+", content))
    lines = content.split(b"\n")
    kind = draw(
        st.sampled_from(
            ("word", "word", "word", "swap", "line", "repeat", "drop", "separator", "mark")
        )
    )
    if not words:
        return content, "nothing"
    number = draw(st.integers(0, min(len(words), 40) - 1))
    row = draw(st.integers(0, len(lines) - 1))
    match kind:
        case "word":
            word = draw(st.sampled_from(_TOKENS))
            span = words[number].span()
            return content[: span[0]] + word + content[span[1] :], f"word {number} = {word[:20]!r}"
        case "swap":
            other = draw(st.integers(0, len(words) - 1))
            first, second = sorted((number, other))
            if first == second:
                return content, "nothing"
            (a, b), (c, d) = words[first].span(), words[second].span()
            return (
                content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:],
                f"words {first} and {second} swapped",
            )
        case "line":
            other = draw(st.integers(0, len(lines) - 1))
            lines[row], lines[other] = lines[other], lines[row]
            return b"\n".join(lines), f"lines {row} and {other} swapped"
        case "repeat":
            return b"\n".join([*lines[:row], lines[row], *lines[row:]]), f"line {row} twice"
        case "drop":
            return b"\n".join(lines[:row] + lines[row + 1 :]), f"line {row} dropped"
        case "separator":
            mark = draw(st.sampled_from((b",", b";", b"\t", b", ", b"\r\n", b"  ")))
            return content.replace(b" ", mark), f"{mark!r} for blanks"
        case _:
            mark = draw(
                st.sampled_from((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\n\n", b"# x\n", b"//"))
            )
            return mark + content, f"{mark!r} in front"


# ---- JSON ----------------------------------------------------------------------------------------

_DEEP: Any = json.loads("[" * 60 + "]" * 60)

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2.5, 10**9, 10**30, 1e308, -0.0, float("nan"), float("inf")),
    *("", "text", "\x1b[31mred", "a" * 5000, "../..", "/etc/passwd", "os.system", "{0.__class__}"),
    *([], {}, [[]], {"a": 1}, ["head"], [1, 2], [None], _DEEP),
)


def damage_json(draw: Draw, value: Any) -> tuple[Any, str]:
    """Well-formed JSON with another value, or none, somewhere. Returns it and the path."""
    value = json.loads(json.dumps(value))
    path: list[Any] = []
    owner: Any = None
    here = value
    while isinstance(here, dict | list) and here and (owner is None or draw(st.integers(0, 2))):
        key = draw(
            st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here))))
        )
        owner, here = here, here[key]
        path.append(key)
    name = ".".join(str(key) for key in path)
    kind = draw(st.sampled_from(("set", "set", "set", "delete", "rename", "add")))
    if owner is None or kind == "set":
        junk = draw(st.sampled_from(JUNK))
        if owner is None:
            return junk, "everything"
        owner[path[-1]] = junk
        return value, f"{name} = {str(junk)[:40]!r}"
    if kind == "delete" or isinstance(owner, list):
        del owner[path[-1]]
        return value, f"{name} deleted"
    if kind == "rename":
        owner[f"{path[-1]}x"] = owner.pop(path[-1])
        return value, f"{name} renamed"
    owner["unknown"] = draw(st.sampled_from(JUNK))
    return value, f"{name} beside 'unknown'"


def damage_json_text(draw: Draw, text: str) -> tuple[str, str]:
    """Text that is no JSON, or JSON that no writer would write."""
    kind = draw(
        st.sampled_from(("deep", "deep object", "bytes", "cut", "empty", "number", "twice", "long"))
    )
    match kind:
        case "deep":
            return "[" * 100_000 + "]" * 100_000, kind
        case "deep object":
            return '{"a":' * 20_000 + "1" + "}" * 20_000, kind
        case "bytes":
            return damage_text(draw, text.encode())[0].decode(errors="replace"), kind
        case "cut":
            return text[: draw(st.integers(0, len(text)))], kind
        case "empty":
            return "", kind
        case "number":
            return draw(
                st.sampled_from(("1" * 5000, "NaN", "null", '"x"', "[]", "{}", "1e999"))
            ), kind
        case "twice":
            return text[:-1] + ', "content": 3}', kind
        case _:
            return text[:-1] + ', "long": "' + "a" * 100_000 + '"}', kind


# ---- tensors -------------------------------------------------------------------------------------


def damage_tensors(draw: Draw, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Other numbers, types, shapes or names of one tensor."""
    changed = dict(tensors)
    if not changed:
        return {"new": torch.zeros(1)}, "a new one"
    name = draw(st.sampled_from(sorted(changed)))
    tensor = changed[name].clone()
    kinds = ("nan", "inf", "dtype", "shape", "drop", "rename", "add", "empty", "scalar")
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "nan" | "inf":
            if tensor.is_floating_point() and tensor.numel():
                value = torch.nan if kind == "nan" else -torch.inf
                tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = value
            changed[name] = tensor
        case "dtype":
            kind = draw(
                st.sampled_from(
                    (
                        "complex64",
                        "int64",
                        "bool",
                        "float16",
                        "float64",
                        "uint8",
                        "float8_e4m3fn",
                        "bfloat16",
                    )
                )
            )
            changed[name] = tensor.to(getattr(torch, kind))
        case "shape":
            changed[name] = draw(
                st.sampled_from(
                    (tensor.flatten(), tensor.unsqueeze(0), torch.cat([tensor.reshape(-1)] * 2))
                )
            )
        case "drop":
            del changed[name]
        case "rename":
            new = draw(
                st.sampled_from(
                    ("x", f"{name}x", f"{name}.999999999.x", re.sub(r"\d+", "999999999", name), "")
                )
            )
            changed[new] = changed.pop(name)
        case "add":
            changed[draw(st.sampled_from(("blocks.999999999.norm1.weight", "new", "a.b.c")))] = (
                tensor
            )
        case "empty":
            changed[name] = tensor.new_zeros(0, *tensor.shape[1:])
        case _:
            changed[name] = tensor.new_zeros(())
    return changed, f"{name}: {kind}"


# ---- arrays --------------------------------------------------------------------------------------


def damage_arrays(
    draw: Draw, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], str]:
    """Well-formed arrays with other numbers, types, shapes or names."""
    changed = dict(arrays)
    name = draw(st.sampled_from(sorted(changed)))
    array = np.array(changed[name])
    kinds = ("drop", "rename", "dtype", "shape", "value", "value", "cut", "scalar", "text", "empty")
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "drop":
            del changed[name]
        case "rename":
            changed[draw(st.sampled_from(("other", "xyz", "offsets", "scale", "seg", "split")))] = (
                changed.pop(name)
            )
        case "dtype":
            changed[name] = _other_dtype(draw, array)
            kind = str(changed[name].dtype)
        case "shape":
            options = [array.reshape(-1), array[None], array[..., None], array.T]
            changed[name] = draw(st.sampled_from(options))
        case "value":
            if array.dtype.kind in "fiu" and array.size:
                changed[name], value = _other_value(draw, array)
                kind = f"{kind} {value}"
        case "cut":
            changed[name] = array[:-1] if array.ndim else array
        case "scalar":
            changed[name] = np.array(draw(st.sampled_from((0, -1, np.nan, 2**62))))
        case "text":
            changed[name] = np.array(["a", "\x1b[31m", "", "ü"])
        case _:
            changed[name] = array[:0] if array.ndim else np.zeros(0)
    return changed, f"{name}: {kind}"


def _other_dtype(draw: Draw, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "USO":
        return np.arange(array.size).reshape(array.shape)
    kinds = ("f2", "f8", "i1", "u2", "i8", "?", "c8", ">f4", ">i4", "U5", "S3")
    kind = draw(st.sampled_from(kinds))
    with np.errstate(all="ignore"):
        return array.astype(kind)


def _other_value(draw: Draw, array: np.ndarray) -> tuple[np.ndarray, Any]:
    floats = array.dtype.kind == "f"
    values: Sequence[Any] = (np.nan, np.inf, 1e38, -1e38) if floats else (-1, 99, 255, 127, -128)
    value = draw(st.sampled_from(values))
    wide = array.astype(np.float64 if floats else np.int64).reshape(-1)
    wide[draw(st.integers(0, wide.size - 1))] = value
    with np.errstate(all="ignore"):
        return wide.reshape(array.shape).astype(array.dtype if floats else np.int64), value


def lying_npy(shape: str, dtype: str = "<f8", data: bytes = bytes(72)) -> bytes:
    """An ``.npy`` file whose header claims another shape than there is data for."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header + " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


__all__ = [
    "JUNK",
    "damage_arrays",
    "damage_bytes",
    "damage_json",
    "damage_json_text",
    "damage_tensors",
    "damage_text",
    "lying_npy",
]
