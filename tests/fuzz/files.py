"""Whole files of every kind that the library reads, small, and how each is read and judged."""

import functools
import io
import itertools
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flat_backbones import CASES
from flat_backbones import CHANNELS as FEATURES
from fuzz import mutations
from fuzz.dice import Draw
from fuzz.sandbox import EITHER, RIGHT, Verdict, judge
from fuzz.strategies import tensors_of

Damage = Callable[[Draw, bytes], tuple[bytes, str]]


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read.

    Args:
        ending: of its name; the whole name where it contains a dot before the last.
        write: makes a whole file.
        read: reads the path.
        check: says what is wrong with what was read; given the bytes and the result.
        whole: says what is wrong with what was read from the whole file.
        damage: how it is damaged.
        crafted: nasty files by name.
        names: what an error may name beside the path.
    """

    ending: str
    write: Callable[[], bytes]
    read: Callable[[str], Any]
    check: Callable[[bytes, Any], str | None]
    whole: Callable[[Any], str | None] = lambda result: None
    damage: Damage = mutations.damage_bytes
    crafted: Callable[[], Mapping[str, bytes]] = dict
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileCase:
    """One damaged file for one reader."""

    reader: str
    content: bytes
    damage: str

    def trial(self) -> Verdict:
        reader = READERS[self.reader]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(
                folder, reader.ending if "." in reader.ending[1:] else f"a{reader.ending}"
            )
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(self.content)
            return judge(
                lambda: reader.read(path),
                names=(path, *reader.names),
                check=lambda result: self._check(reader, result),
                expected=EITHER if self.damage else RIGHT,
                from_file=True,
            )

    def _check(self, reader: Reader, result: Any) -> str | None:
        problem = reader.check(self.content, result)
        return problem or (None if self.damage else reader.whole(result))

    def __str__(self) -> str:
        handle, path = tempfile.mkstemp(
            prefix="fuzz-", suffix=READERS[self.reader].ending.replace("/", "-")
        )
        os.write(handle, self.content)
        os.close(handle)
        return f"{self.reader} ({self.damage or 'whole'}), {len(self.content)} bytes kept in {path}"


def draw_file(draw: Draw, name: str) -> FileCase:
    """A damaged file; one in twenty is whole."""
    from fuzz import dice

    reader = READERS[name]
    content = whole(name)
    if draw(dice.integers(0, 19)) == 7:
        return FileCase(name, content, "")
    damaged, told = reader.damage(draw, content)
    return FileCase(name, damaged, told if damaged != content else "")


@functools.cache
def whole(name: str) -> bytes:
    return READERS[name].write()


# ---- clouds and meshes ---------------------------------------------------------------------------

POINTS = np.array(
    [[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [1.25, 0.5, 0.75], [-1, 3, 0.125]], np.float64
)
FACES = ((0, 1, 2), (0, 1, 3), (1, 2, 3), (3, 4, 5))


def read(path: str, **options: Any) -> Any:
    from pyg_peft.datasets import read_points

    return read_points(path, mesh_points=16, **options)


def check_cloud(content: bytes, data: Any) -> str | None:
    pos, origin = data.pos, data.origin
    if pos.dtype != torch.float32 or pos.dim() != 2 or pos.size(1) != 3 or len(pos) == 0:
        return f"pos of type {pos.dtype} and shape {list(pos.shape)}"
    if origin.shape != (1, 3) or origin.dtype != torch.float64:
        return f"origin {origin}"
    if not all(bool(torch.isfinite(t).all()) for t in tensors_of(list(data.to_dict().values()))):
        return f"numbers that are not finite: {data.to_dict()}"[:300]
    if len(pos) > max(16, len(content)):
        return f"{len(pos)} points out of {len(content)} bytes"
    return None


def check_points(data: Any) -> str | None:
    found = (data.pos.double() + data.origin).numpy()
    if found.shape != POINTS.shape or not np.allclose(found, POINTS, atol=1e-3):
        return f"points {found.tolist()}"
    return None


def check_mesh(data: Any) -> str | None:
    found = (data.pos.double() + data.origin).numpy()
    inside = (found >= POINTS.min(0) - 1e-5).all() and (found <= POINTS.max(0) + 1e-5).all()
    return None if len(found) == 16 and inside else f"points {found.tolist()}"


def rows(separator: str = " ") -> str:
    return "\n".join(separator.join(f"{v:g}" for v in row) for row in POINTS)


def check_text(content: bytes, data: Any) -> str | None:
    """Where lines are plain numbers between blanks, those are the points."""
    problem = check_cloud(content, data)
    if problem:
        return problem
    lines = content.decode("utf-8-sig", "replace").split("\n")
    lines = [line for line in lines if line.strip()]
    if any("," in line and ";" in line for line in lines):
        return "a comma beside a semicolon was guessed at"
    table: list[list[float]] = []
    for line in lines:
        words = line.split()
        if any(not _plain(word) for word in words):
            return None
        table.append([float(word) for word in words])
    found = (data.pos.double() + data.origin).numpy()
    expected = np.array([row[:3] for row in table])
    scale = 1e-6 * np.abs(expected).max(initial=1.0)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=scale):
        return f"points {found.tolist()} of {expected.tolist()}"
    return None


def _plain(word: str) -> bool:
    digits = word.removeprefix("-").replace(".", "", 1)
    return digits.isascii() and digits.isdigit()


def off() -> bytes:
    faces = "\n".join("3 " + " ".join(map(str, face)) for face in FACES)
    return f"OFF\n{len(POINTS)} {len(FACES)} 0\n{rows()}\n{faces}\n".encode()


def obj() -> bytes:
    points = "\n".join("v " + line for line in rows().split("\n"))
    faces = "\n".join("f " + " ".join(f"{i + 1}/1/1" for i in face) for face in FACES)
    return f"# made by hand\n{points}\nvt 0 0\n{faces}\n".encode()


def stl_binary() -> bytes:
    body = b""
    for face in FACES:
        body += struct.pack("<12fH", 0, 0, 1, *POINTS[list(face)].ravel(), 0)
    return bytes(80) + struct.pack("<I", len(FACES)) + body


def stl_text() -> bytes:
    facets = ""
    for face in FACES:
        corners = "\n".join("vertex " + " ".join(f"{v:g}" for v in POINTS[i]) for i in face)
        facets += f"facet normal 0 0 1\nouter loop\n{corners}\nendloop\nendfacet\n"
    return f"solid a\n{facets}endsolid a\n".encode()


def ply(text: bool, faces: bool) -> bytes:
    from plyfile import PlyData, PlyElement

    kinds = [
        ("x", "f4"),
        ("y", "f4"),
        ("z", "f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("intensity", "f4"),
    ]
    table = np.zeros(len(POINTS), kinds)
    for axis, name in enumerate("xyz"):
        table[name] = POINTS[:, axis]
    elements = [PlyElement.describe(table, "vertex")]
    if faces:
        corners = np.array([(list(face),) for face in FACES], [("vertex_indices", "i4", (3,))])
        elements.append(PlyElement.describe(corners, "face"))
    out = io.BytesIO()
    PlyData(elements, text=text).write(out)
    return out.getvalue()


def lzf(content: bytes) -> bytes:
    """Compress by literal runs alone."""
    return b"".join(
        bytes([len(part) - 1]) + part
        for part in (content[i : i + 32] for i in range(0, len(content), 32))
    )


def pcd(storage: str) -> bytes:
    table = POINTS.astype("<f4")
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\n"
        f"WIDTH {len(table)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(table)}\nDATA {storage}\n"
    ).encode()
    color = np.arange(len(table), dtype="<u4")
    if storage == "ascii":
        lines = (f"{x:g} {y:g} {z:g} {c}" for (x, y, z), c in zip(table, color, strict=True))
        return head + "\n".join(lines).encode() + b"\n"
    if storage == "binary":
        return head + b"".join(
            row.tobytes() + c.tobytes() for row, c in zip(table, color, strict=True)
        )
    body = table.T.tobytes() + color.tobytes()
    packed = lzf(body)
    return head + struct.pack("<II", len(packed), len(body)) + packed


def las(compressed: bool) -> bytes:
    import laspy

    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales = np.array([0.001] * 3)
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = POINTS.T
    cloud.intensity = np.arange(len(POINTS))
    out = io.BytesIO()
    cloud.write(out, do_compress=compressed)
    return out.getvalue()


def crafted_las() -> dict[str, bytes]:
    plain, packed = las(False), las(True)
    many = plain[:100] + struct.pack("<I", 0xFFFFFFFF) + plain[104:]
    points = plain[:107] + struct.pack("<I", 0xFFFFFFFF) + plain[111:]
    (start,) = struct.unpack("<I", packed[96:100])
    (table,) = struct.unpack("<q", packed[start : start + 8])
    counts = packed[: table + 4] + b"\xff\xff\xff\xff" + packed[table + 8 :]
    far = packed[:start] + struct.pack("<q", 2**62) + packed[start + 8 :]
    return {
        "a huge number of records in front": many,
        "a huge number of points": points,
        "a huge number of chunks": counts,
        "a table of chunks past the end": far,
    }


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, POINTS)
    return out.getvalue()


def archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def npz() -> bytes:
    return archive(
        {"pos": POINTS, "intensity": np.arange(len(POINTS)), "color": POINTS.astype("u1")}
    )


def load_arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as found:
        return {name: found[name] for name in found.files}


def damage_archive(draw: Draw, content: bytes) -> tuple[bytes, str]:
    """Damage to the bytes, or an intact archive of damaged arrays."""
    from fuzz import dice

    if draw(dice.booleans()):
        return mutations.damage_bytes(draw, content)
    arrays, told = mutations.damage_arrays(draw, load_arrays(content))
    return archive(arrays), told


def bomb(member: str, size: int = 3 << 30) -> bytes:
    """An archive of a few megabytes with an array of ``size`` bytes of zeros."""
    block = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = mutations.lying_npy(f"({size // 24}, 3)", data=b"")
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = first + zeros * (size // block) + packer.flush()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        target.writestr(f"{member}.npy", b"")
    content = bytearray(out.getvalue())
    # By hand, since zipfile would compress gigabytes: sizes of the one member and of its entry.
    name = f"{member}.npy".encode()
    unpacked = len(head) + size
    sizes = struct.pack("<III", 0, len(body), min(unpacked, 0xFFFFFFFE))
    local = (
        b"PK\x03\x04"
        + struct.pack("<HHHHH", 20, 0, 8, 0, 0)
        + sizes
        + struct.pack("<HH", len(name), 0)
        + name
    )
    entry = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
    entry += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local) + len(body), 0)
    del content
    return local + body + entry + end


def lying_archive(member: str, shape: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        target.writestr(f"{member}.npy", mutations.lying_npy(shape))
    return out.getvalue()


def crafted_npz(member: str) -> Callable[[], dict[str, bytes]]:
    def make() -> dict[str, bytes]:
        return {
            "a shape of 2^50": lying_archive(member, f"({2**50}, 3)"),
            "a shape of 2^62": lying_archive(member, f"({2**62}, 3)"),
            "a negative shape": lying_archive(member, "(-1, 3)"),
            "three gigabytes of zeros": bomb(member),
            "objects": _pickled(member),
        }

    return make


def _pickled(member: str) -> bytes:
    out = io.BytesIO()
    np.savez(out, **{member: np.array([{}, []], dtype=object)})  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def crafted_npy() -> dict[str, bytes]:
    shapes = (f"({2**50}, 3)", f"({2**62}, 3)", "(-1, 3)", "(3,)", "(True, 3)", "(2, " * 50)
    files = {f"a shape {shape[:20]}": mutations.lying_npy(shape) for shape in shapes}
    return {**files, "objects": mutations.lying_npy("(3, 3)", "|O")}


def crafted_off() -> dict[str, bytes]:
    return {
        "many vertices": b"OFF\n999999999999999 1 0\n0 0 0\n",
        "a negative number": b"OFF\n-1 -1 0\n",
        "a face of a million corners": off() + b"1000000 " + b"0 " * 1_000_000,
        "a number too long": b"OFF\n" + b"9" * 5000 + b" 1 0\n",
    }


def crafted_pcd() -> dict[str, bytes]:
    whole_file = pcd("binary")
    packed = pcd("binary_compressed")
    return {
        "many points": whole_file.replace(b"POINTS 6", b"POINTS 999999999999999"),
        "a wide field": whole_file.replace(b"SIZE 4", b"SIZE 1000000000"),
        "a long field": whole_file.replace(b"COUNT 1", b"COUNT 1000000000"),
        "a negative field": whole_file.replace(b"COUNT 1", b"COUNT -1"),
        "many packed points": packed.replace(b"POINTS 6", b"POINTS 999999999"),
        "many lines": pcd("ascii").replace(b"COUNT 1", b"COUNT 1000000000"),
    }


def crafted_ply() -> dict[str, bytes]:
    text, binary = ply(True, True), ply(False, True)
    texture = binary.replace(b"vertex_indices", b"texture_indices")
    return {
        "many vertices, text": text.replace(b"vertex 6", b"vertex 999999999999999"),
        "many vertices, binary": binary.replace(b"vertex 6", b"vertex 999999999999999"),
        "many faces": binary.replace(b"face 4", b"face 999999999999999"),
        "a list of 2^32": ply(False, False).replace(
            b"float intensity", b"list uint uchar intensity"
        ),
        "other indices": texture,
        "no header": b"ply\nformat ascii 1.0\nend_header\n",
    }


# ---- data sets -----------------------------------------------------------------------------------


def ragged() -> bytes:
    sizes = [3, 2, 4, 3]
    return archive(
        {
            "xyz": np.random.default_rng(0).normal(size=(sum(sizes), 3)).astype(np.float32),
            "offsets": np.cumsum([0, *sizes]),
            "label": np.array([0, 1, -1, 1]),
            "class_names": np.array(["a", "b"]),
            "split": np.array([0, 0, 1, 1], np.uint8),
            "fold": np.array([0, 1, 0, 1]),
            "seg": np.arange(sum(sizes)) % 2,
            "part_names": np.array(["p", "q"]),
        }
    )


def fixed() -> bytes:
    return archive(
        {
            "xyz": np.random.default_rng(0).integers(-99, 99, (4, 5, 3)).astype(np.int16),
            "scale": np.array(0.01),
            "label": np.array([0, 1, 1, 0]),
            "class_names": np.array(["a", "b"]),
            "intensity": np.zeros((4, 5), np.float32),
        }
    )


def open_set(path: str, **options: Any) -> Any:
    from pyg_peft.datasets import NpzShapes

    shapes = NpzShapes(path, **options)
    return shapes, list(shapes)


def check_set(content: bytes, result: Any) -> str | None:
    shapes, items = result
    if len(items) != len(shapes) or len(shapes.labels) != len(items):
        return f"{len(items)} items of {len(shapes)}"
    for data, label in zip(items, shapes.labels.tolist(), strict=True):
        problem = check_item(data, shapes.num_classes)
        if problem or int(data.y) != label:
            return problem or f"label {int(data.y)} instead of {label}"
    return None


def check_item(data: Any, num_classes: int) -> str | None:
    if data.pos.dtype != torch.float32 or data.pos.dim() != 2 or data.pos.size(1) != 3:
        return f"pos of type {data.pos.dtype} and shape {list(data.pos.shape)}"
    if not bool(torch.isfinite(data.pos).all()):
        return "positions that are not finite"
    if data.y.shape != (1,) or data.y.dtype != torch.long or not 0 <= int(data.y) < num_classes:
        return f"label {data.y} of {num_classes} classes"
    for key in ("x", "seg"):
        value = data.get(key)
        if value is not None and (
            len(value) != len(data.pos) or not bool(torch.isfinite(value).all())
        ):
            return f"{key} of shape {list(value.shape)}, or not finite"
    return None


CACHE = "root/.pyg_peft/processed.npz"


def open_cached(path: str) -> Any:
    """A folder whose cache is the damaged file: what is read must be as without a cache."""
    from pyg_peft.datasets import ShapeFolder

    root = Path(path).parent.parent
    for place, name in enumerate(("a/1.xyz", "a/2.xyz", "b/1.xyz")):
        (root / name).parent.mkdir(exist_ok=True)
        np.savetxt(root / name, POINTS + place)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    damaged = Path(path).read_bytes()
    Path(path).unlink()
    plain = list(ShapeFolder(root, num_points=4, cache=False))
    ShapeFolder(root, num_points=4)
    (cache,) = (root / ".pyg_peft").glob("processed-*.npz")
    if damaged:
        cache.write_bytes(damaged)
    shapes = ShapeFolder(root, num_points=4)
    return plain, list(shapes), cache.read_bytes()


def cache_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, CACHE)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        return open_cached(str(path))[2]


def check_cached(content: bytes, result: Any) -> str | None:
    """What is in the files; only an intact cache of other arrays may give something else."""
    plain, found, _ = result
    try:
        load_arrays(content)
    except Exception:
        pass
    else:
        return next((p for p in (check_item(data, 2) for data in found) if p), None)
    if len(plain) != len(found):
        return f"{len(found)} shapes instead of {len(plain)}"
    for place, (a, b) in enumerate(zip(plain, found, strict=True)):
        if not torch.equal(a.pos, b.pos) or int(a.y) != int(b.y):
            return f"shape {place} differs from what is in its file"
    return None


SCAN = "main_split/training_objectdataset_augmentedrot_scale75.h5"


def h5_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, array in arrays.items():
            file[name] = np.char.encode(array) if array.dtype.kind == "U" else array
    return out.getvalue()


def scan_arrays() -> dict[str, np.ndarray]:
    return {
        "data": np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32),
        "label": np.array([0, 14, 3]),
        "mask": np.array([[-1, 2, 3, -1]] * 3),
    }


def damage_h5(draw: Draw, content: bytes) -> tuple[bytes, str]:
    from fuzz import dice

    if draw(dice.booleans()):
        return mutations.damage_bytes(draw, content)
    arrays, told = mutations.damage_arrays(draw, scan_arrays())
    return h5_file(arrays), told


def open_scan(path: str) -> Any:
    from pyg_peft.datasets import ScanObjectNN

    shapes = ScanObjectNN(Path(path).parent.parent, "train", mask=True)
    return shapes, list(shapes)


# ---- weights -------------------------------------------------------------------------------------


@functools.cache
def tiny() -> Any:
    from tuned import tiny_base

    return tiny_base()


UNTOLD = {"num_heads": 3, "num_centers": 8, "patch_size": 4}


def weights_file() -> bytes:
    from safetensors.torch import save

    return save({key: value.clone() for key, value in tiny().state_dict().items()})


def read_weights(path: str) -> Any:
    from pyg_peft.backbones import PointMAE

    model = PointMAE.from_checkpoint(path, **UNTOLD).eval()
    pos = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    return model(pos=pos), model.state_dict()


#: Backbones whose small versions are small files, too: those without a T-Net of 1,024 channels. The
#: segmenting Point Transformer has hundreds of tensors, and its loader is that of the classifier.
SMALL = [
    name
    for name in CASES
    if name not in ("PointNet", "PointNetSegmentation", "PointTransformerSegmentation")
]


@functools.cache
def small(name: str) -> Any:
    return CASES[name].make(torch.float32)


def small_file(name: str, ending: str) -> bytes:
    state = {key: value.clone() for key, value in small(name).state_dict().items()}
    if ending == ".npz":
        return archive({key: value.numpy() for key, value in state.items()})
    out = io.BytesIO()
    torch.save({"epoch": 3, "model": state}, out)
    return out.getvalue()


def read_small(name: str, path: str) -> Any:
    model = CASES[name].model.from_checkpoint(path, **CASES[name].untold).eval()
    generator = torch.Generator().manual_seed(0)
    pos, x = torch.randn(9, 3, generator=generator), torch.randn(9, FEATURES, generator=generator)
    return model(x, pos), model.state_dict()


def whole_small(name: str, result: Any) -> str | None:
    own = small(name).state_dict()
    same = all(torch.equal(own[key], value) for key, value in result[1].items())
    return None if same else "other weights"


def small_reader(name: str, ending: str, damage: Damage) -> Reader:
    return Reader(
        ending,
        functools.partial(small_file, name, ending),
        functools.partial(read_small, name),
        check_weights,
        functools.partial(whole_small, name),
        damage=damage,
        names=("source", *CASES[name].told, *CASES[name].untold, "num_classes", "in_channels"),
    )


def check_weights(content: bytes, result: Any) -> str | None:
    _, state = result
    strange = [
        key for key, value in state.items() if not bool(torch.isfinite(value.double()).all())
    ]
    return f"NaN or infinity in {strange[0]}" if strange else None


def whole_weights(result: Any) -> str | None:
    own = tiny().state_dict()
    return (
        None
        if all(torch.equal(own[key], value) for key, value in result[1].items())
        else "other weights"
    )


def damage_safetensors(draw: Draw, content: bytes) -> tuple[bytes, str]:
    from fuzz import dice
    from safetensors.torch import load, save

    if draw(dice.booleans()):
        return mutations.damage_bytes(draw, content)
    tensors, told = mutations.damage_tensors(draw, load(content))
    return save({key: value.contiguous() for key, value in tensors.items()}), told


def damage_pth(draw: Draw, content: bytes) -> tuple[bytes, str]:
    from fuzz import dice

    if draw(dice.booleans()):
        return mutations.damage_bytes(draw, content)
    state = torch.load(io.BytesIO(content), weights_only=True)["model"]
    tensors, told = mutations.damage_tensors(draw, state)
    if draw(dice.booleans()):
        wrapped: Any = {"model": tensors}
    else:
        wrapped, more = mutations.damage_json(
            draw, {"model": {"a": 1}, "state_dict": [], "x": {"y": 2}}
        )
        told = f"{told}, {more}"
        if isinstance(wrapped, dict):
            wrapped["model"] = tensors
    out = io.BytesIO()
    torch.save(wrapped, out)
    return out.getvalue(), told


def crafted_weights() -> dict[str, bytes]:
    from safetensors.torch import save

    state = {key: value.clone() for key, value in tiny().state_dict().items()}
    block = state["blocks.0.norm1.weight"]
    header = b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'
    return {
        "a billion blocks": save({**state, "blocks.999999999.norm1.weight": block.clone()}),
        "a million blocks": save({**state, "blocks.1000000.norm1.weight": block.clone()}),
        "a block past the last": save({**state, "blocks.3.norm1.weight": block.clone()}),
        "a huge header": struct.pack("<Q", 2**62) + b"{}",
        "a huge tensor": struct.pack("<Q", len(header)) + header + bytes(8),
        "a deep header": struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000,
        "a wide head": save({**state, "head.0.weight": torch.zeros(1, 10**6)}),
    }


# ---- results and preprocessing -------------------------------------------------------------------


@functools.cache
def run_folder() -> dict[str, bytes]:
    """An adapter folder as ``fit`` leaves it, beside a small folder of shapes."""
    from pyg_peft import LinearProbeConfig, get_peft_model
    from pyg_peft.loading import open_backbone

    sizes = {"embed_dim": 12, "depth": 1, **UNTOLD}
    base = open_backbone("random", 2, sizes, 0)
    model = get_peft_model(base, LinearProbeConfig())
    with tempfile.TemporaryDirectory() as folder:
        weights = {"source": "random", "seed": 0}
        preprocessing = {"num_points": 4, "normalize": True, "up_axis": "z", "weights": weights}
        model.save_pretrained(folder, class_names=["a", "b"], preprocessing=preprocessing)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def result_file() -> bytes:
    run = {
        "data": "DATA",
        "data_args": {},
        "batch_size": 2,
        "val_fraction": 0.25,
        "seed": 0,
        "precision": "32-true",
        "method": "linear_probe",
        "task": "classification",
    }
    return json.dumps({"run": run, "test": {"accuracy": 0.5}}).encode()


RESULT = "run/result.json"


def evaluate_run(path: str) -> Any:
    """What ``pyg-peft evaluate folder`` does with the damaged ``result.json``; a witness tells if
    anything that the file names was run."""
    from pyg_peft.cli.evaluate import run

    folder = Path(path).parent
    data = folder.parent / "data"
    for split, name in itertools.product(("train", "test"), "ab"):
        (data / split / name).mkdir(parents=True)
        for place in range(2):
            np.savetxt(data / split / name / f"{place}.xyz", POINTS + place)
    for name, content in run_folder().items():
        (folder / name).write_bytes(content)
    text = Path(path).read_text(errors="surrogateescape")
    witness = folder / "witness"
    text = text.replace("DATA", str(data)).replace("WITNESS", str(witness))
    Path(path).write_text(text, errors="surrogateescape")
    try:
        return run(str(folder)), witness.exists()
    finally:
        if witness.exists():
            raise SystemError("a command out of result.json was run")


def damage_result(draw: Draw, content: bytes) -> tuple[bytes, str]:
    from fuzz import dice

    match draw(dice.integers(0, 3)):
        case 0:
            return mutations.damage_bytes(draw, content)
        case 1:
            text, told = mutations.damage_json_text(draw, content.decode())
            return text.encode(errors="replace"), told
        case _:
            value, told = mutations.damage_json(draw, json.loads(content))
            return json.dumps(value).encode(), told


def crafted_results() -> dict[str, bytes]:
    def result(**run: Any) -> bytes:
        return json.dumps({"run": {"data": "DATA", "batch_size": 2, "seed": 0, **run}}).encode()

    touch = {"command": "touch WITNESS"}
    splits = dict.fromkeys(("train", "val", "test"), touch)
    return {
        "os.system": result(data="os.system", data_args=splits),
        "subprocess": result(
            data="subprocess.getoutput", data_args={n: {"cmd": "touch WITNESS"} for n in splits}
        ),
        "builtins.open": result(
            data="builtins.open", data_args={n: {"file": "WITNESS", "mode": "w"} for n in splits}
        ),
        "pathlib.Path.touch": result(
            data="pathlib.Path.touch", data_args={n: {"self": "WITNESS"} for n in splits}
        ),
        "os.mkdir": result(data="os.mkdir", data_args={n: {"path": "WITNESS"} for n in splits}),
        "a huge batch": result(batch_size=10**12),
        "a text batch": result(batch_size="2"),
        "escapes": result(data="\x1b[2J\x1b[31mowned"),
        "no object": b"[]",
        "no run": b"{}",
    }


def preprocessing_file() -> bytes:
    return json.dumps({"num_points": 4, "normalize": True, "up_axis": "y", "other": 3}).encode()


def apply_preprocessing(path: str) -> Any:
    """Settings out of a folder, on a cloud."""
    from torch_geometric.data import Data

    from pyg_peft.training import Preprocessing

    values = json.loads(Path(path).read_bytes())
    data = Data(pos=torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    return Preprocessing.from_dict(values).evaluation()(data).pos


def damage_values(draw: Draw, content: bytes) -> tuple[bytes, str]:
    value, told = mutations.damage_json(draw, json.loads(content))
    return json.dumps(value).encode(), told


def check_prepared(content: bytes, pos: Any) -> str | None:
    values = json.loads(content)
    number = values.get("num_points", 1024)
    rows_wanted = 9 if number is None else min(9, number)
    if tuple(pos.shape) != (rows_wanted, 3) or isinstance(number, bool):
        return f"{list(pos.shape)} for num_points={number!r}"
    if not isinstance(values.get("normalize", True), bool):
        return f"normalize={values['normalize']!r} was taken"
    return None if bool(torch.isfinite(pos).all()) else "numbers that are not finite"


def options_of(**options: Any) -> Callable[[str], Any]:
    return lambda path: open_set(path, **options)


def cloud_reader(
    ending: str, write: Callable[[], bytes], *, mesh: bool = False, **more: Any
) -> Reader:
    return Reader(
        ending,
        write,
        read,
        check=more.pop("check", check_cloud),
        whole=check_mesh if mesh else check_points,
        **more,
    )


def table_with_names() -> bytes:
    return (
        "x y z red green blue\n" + "\n".join(f"{line} 1 2 3" for line in rows().split("\n")) + "\n"
    ).encode()


def plain_table() -> bytes:
    return (rows() + "\n").encode()


READERS: dict[str, Reader] = {
    "off": cloud_reader(".off", off, mesh=True, damage=mutations.damage_text, crafted=crafted_off),
    "obj": cloud_reader(".obj", obj, mesh=True, damage=mutations.damage_text),
    "stl, binary": cloud_reader(".stl", stl_binary, mesh=True),
    "stl, text": cloud_reader(".stl", stl_text, mesh=True, damage=mutations.damage_text),
    "ply, text": cloud_reader(
        ".ply",
        functools.partial(ply, True, True),
        mesh=True,
        damage=mutations.damage_text,
        crafted=crafted_ply,
    ),
    "ply, binary": cloud_reader(".ply", functools.partial(ply, False, True), mesh=True),
    "ply, cloud": cloud_reader(".ply", functools.partial(ply, False, False)),
    "pcd, ascii": cloud_reader(
        ".pcd", functools.partial(pcd, "ascii"), damage=mutations.damage_text, crafted=crafted_pcd
    ),
    "pcd, binary": cloud_reader(".pcd", functools.partial(pcd, "binary")),
    "pcd, compressed": cloud_reader(".pcd", functools.partial(pcd, "binary_compressed")),
    "las": cloud_reader(".las", functools.partial(las, False)),
    "laz": cloud_reader(".laz", functools.partial(las, True), crafted=crafted_las),
    "npy": cloud_reader(".npy", npy, crafted=crafted_npy),
    "npz": cloud_reader(".npz", npz, damage=damage_archive, crafted=crafted_npz("pos")),
    "xyz": cloud_reader(".xyz", plain_table, damage=mutations.damage_text, check=check_text),
    "txt": cloud_reader(".txt", table_with_names, damage=mutations.damage_text),
    "NpzShapes, ragged": Reader(
        ".npz", ragged, open_set, check_set, damage=damage_archive, crafted=crafted_npz("xyz")
    ),
    "NpzShapes, fixed": Reader(
        ".npz",
        fixed,
        options_of(channels=("intensity",), num_points=3),
        check_set,
        damage=damage_archive,
    ),
    "NpzShapes, folds": Reader(
        ".npz",
        ragged,
        options_of(fold=1, split="test"),
        check_set,
        damage=damage_archive,
        names=("fold", "split"),
    ),
    "ShapeFolder, cache": Reader(
        CACHE,
        cache_file,
        open_cached,
        check_cached,
        damage=damage_archive,
        crafted=crafted_npz("xyz"),
        names=("processed",),
    ),
    "ScanObjectNN": Reader(
        SCAN, lambda: h5_file(scan_arrays()), open_scan, check_set, damage=damage_h5
    ),
    **{f"weights, {name}": small_reader(name, ".pth", damage_pth) for name in SMALL},
    "weights, npz": small_reader("DGCNN", ".npz", damage_archive),
    "weights, safetensors": Reader(
        ".safetensors",
        weights_file,
        read_weights,
        check_weights,
        whole_weights,
        damage=damage_safetensors,
        crafted=crafted_weights,
        names=("source", *UNTOLD),
    ),
    "result.json": Reader(
        RESULT,
        result_file,
        evaluate_run,
        lambda content, result: None,
        damage=damage_result,
        crafted=crafted_results,
        names=("data", "batch_size", "val_fraction", "seed", "precision", "data_args"),
    ),
    "preprocessing": Reader(
        ".json",
        preprocessing_file,
        apply_preprocessing,
        check_prepared,
        damage=damage_values,
        names=("num_points", "normalize", "up_axis", "values"),
    ),
}
