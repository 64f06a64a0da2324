"""Files that are legal but unusual, or damaged in ways that parsers do not expect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_peft.datasets import NpzShapes, read_points
from pyg_peft.datasets.folders.index import index_folder
from pyg_peft.datasets.formats.raw_points import unit_color

# PyG types what an item holds as optional.
read: Any = read_points

COLUMNS = ["x", "y", "z", "red", "green", "blue"]
FACETS = """\
solid triangle
  FACET NORMAL 0 0 1
    OUTER LOOP
      VERTEX 0 0 0
      VERTEX 2 0 0
      VERTEX 0 2 0
    ENDLOOP
  ENDFACET
endsolid
"""


def write_colors(path: Path, colors: list[list[int]], dtype: Any) -> None:
    table = np.c_[np.eye(3)[: len(colors)], colors].astype(dtype)
    np.save(path, table)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u4", "i8", "u8"])
def test_colors_of_8_bits_in_any_type(tmp_path, dtype):
    write_colors(tmp_path / "a.npy", [[255, 51, 0], [0, 255, 102]], dtype)
    data = read(tmp_path / "a.npy", ["color"], columns=COLUMNS)
    assert np.allclose(data.x, [[1, 0.2, 0], [0, 1, 0.4]])


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "i4", "i8"])
def test_colors_of_16_bits_share_one_scale(dtype):
    # One channel alone would look like 8 bits: the scale is that of all three.
    colors = np.array([[65535, 13107, 200]]).astype(dtype)
    assert np.allclose(unit_color(colors), [[1, 0.2, 200 / 65535]])


def test_16_bits_stay_16_bits_where_the_type_says_so():
    assert np.allclose(unit_color(np.array([[255, 0, 0]], np.uint16)), [[255 / 65535, 0, 0]])


@pytest.mark.parametrize(("value", "shown"), [(-1, "-1 to 0"), (70000, "0 to 70000")])
def test_integer_colors_on_no_known_scale(tmp_path, value, shown):
    write_colors(tmp_path / "a.npy", [[value, 0, 0]], np.int64)
    with pytest.raises(ValueError, match=rf"a.npy'.*from 0 to 255 or 65535 \(got {shown}\)"):
        read(tmp_path / "a.npy", ["color"], columns=COLUMNS)


def test_colors_of_an_archive(tmp_path):
    colors = np.array([[255, 51, 0], [0, 255, 102]])
    np.savez(tmp_path / "bytes.npz", pos=np.eye(3)[:2], color=colors.astype(np.uint8))
    np.savez(tmp_path / "floats.npz", pos=np.eye(3)[:2], color=colors / 255)
    for name in ("bytes.npz", "floats.npz"):
        assert np.allclose(read(tmp_path / name, ["color"]).x, [[1, 0.2, 0], [0, 1, 0.4]]), name


@pytest.mark.parametrize("name", ["a.txt", "a.npy", "a.off"])
def test_coordinates_that_float32_cannot_hold(tmp_path, name):
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, np.array([[1e300, 0, 0], [-1e300, 1, 1]]))
    elif name == "a.txt":
        path.write_text("1.7e308 0 0\n1.7e308 1 1\n")  # their sum overflows float64 too
    else:
        path.write_text("OFF\n3 1 0\n1e300 0 0\n0 1 0\n0 0 1\n3 0 1 2\n")
    with pytest.raises(ValueError, match=rf"{name}' to have .* \(got up to 1(.7)?e\+30"):
        read(path)


def test_large_coordinates_that_float32_holds(tmp_path):
    (tmp_path / "a.txt").write_text("1e37 0 0\n-1e37 1 1\n")
    assert read(tmp_path / "a.txt").pos[:, 0].tolist() == pytest.approx([1e37, -1e37])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.off", "OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1 2\n"),
        ("a.obj", "v 0 0 0\nv 2 0 0\nv 0 2 0\nf 1 2 3\n"),
        ("a.stl", FACETS),
        ("a.txt", "0 0 0\n2 0 0\n0 2 0\n"),
        ("named.txt", "x y z\n0 0 0\n2 0 0\n0 2 0\n"),
        ("a.xyz", "0 0 0\n2 0 0\n0 2 0\n"),
    ],
)
def test_a_mark_of_utf8_changes_nothing(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    plain = read(tmp_path / name, mesh_points=9)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    marked = read(tmp_path / name, mesh_points=9)
    assert marked.pos.equal(plain.pos) and marked.origin.equal(plain.origin)


def test_stl_in_capitals(tmp_path):
    (tmp_path / "capitals.stl").write_text(FACETS)
    (tmp_path / "small.stl").write_text(FACETS.lower())
    capitals, small = (read(tmp_path / f"{name}.stl") for name in ("capitals", "small"))
    assert capitals.pos.equal(small.pos)
    assert (capitals.pos + capitals.origin).max() <= 2 and capitals.pos[:, 2].eq(0).all()
    (tmp_path / "none.stl").write_text("solid none\nfacet normal 0 0 1\nendfacet\nendsolid\n")
    with pytest.raises(ValueError, match=r"none.stl'.*three corners .* \(got 0 in all\)"):
        read(tmp_path / "none.stl")


def test_a_damaged_count_names_the_file(tmp_path):
    (tmp_path / "a.off").write_text("OFF\n999999999999 1 0\n0 0 0\n")
    with pytest.raises(ValueError, match=r"a.off'.*ends: expected a vertex, number 2 of 99999999"):
        read(tmp_path / "a.off")
    header = "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nPOINTS 99999999999999\nDATA ascii\n1 2 3\n"
    (tmp_path / "a.pcd").write_text(header)
    with pytest.raises(ValueError, match=r"a.pcd'.*expected 99999999999999 points \(got 1 lines"):
        read(tmp_path / "a.pcd")
    np.save(tmp_path / "a.npy", np.zeros((10, 3)))
    content = (tmp_path / "a.npy").read_bytes()
    # The header is padded with blanks, so that a longer number fits.
    assert b"(10, 3), }             " in content
    damaged = content.replace(b"(10, 3), }             ", b"(10000000000000, 3), } ")
    (tmp_path / "a.npy").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a.npy' to be a readable .npy file \(got: "):
        read(tmp_path / "a.npy")


def test_arrays_of_other_number_types(tmp_path):
    for name, dtype in (("swapped", ">f4"), ("plain", "<f4")):
        np.savez(tmp_path / f"{name}.npz", pos=np.eye(3, dtype=dtype))
    swapped, plain = (read(tmp_path / f"{name}.npz").pos for name in ("swapped", "plain"))
    assert swapped.tolist() == plain.tolist()
    np.savez(tmp_path / "complex.npz", pos=np.eye(3, dtype="c8"))
    with pytest.raises(ValueError, match=r"complex.npz'.*real numbers \(got complex64\)"):
        read(tmp_path / "complex.npz")


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
@pytest.mark.parametrize("offsets", ["f2", ">i4"])
def test_sets_of_other_number_types(tmp_path, dtype, offsets):
    xyz = np.arange(15).reshape(5, 3).astype(dtype)
    np.savez(tmp_path / "set.npz", xyz=xyz, offsets=np.array([0, 2, 5], offsets), label=[0, 1])
    shapes: Any = NpzShapes(tmp_path / "set.npz", normalize=False)
    assert shapes[1].pos.tolist() == xyz[2:].tolist()


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", "elsewhere")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(ValueError, match=f"'{tmp_path}' to hold folders that can be read"):
        index_folder(tmp_path)
