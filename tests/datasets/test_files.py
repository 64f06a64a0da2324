"""Every format there and back, coordinates far away, missing channels, damaged files by name."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import read_points
from pyg_peft.datasets.formats.lzf import decompress
from pyg_peft.errors import MissingExtraError

# PyG types what an item holds as optional.
read: Any = read_points


POINTS = np.random.default_rng(0).normal(size=(20, 3)).round(3)
# A cube of side 2 as six quadrilaterals.
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
UTM = np.array([[691000.123, 5334000.456, 519.789]])


def restored(data) -> np.ndarray:
    return data.pos.double().numpy() + data.origin.numpy()


def write_off(path: Path, header: str = "OFF\n{} {} 0\n") -> None:
    rows = [" ".join(map(str, corner)) for corner in CORNERS]
    faces = [f"4 {a} {b} {c} {d}  0.5 0.5 0.5" for a, b, c, d in QUADS]
    path.write_text("\n".join([header.format(8, 6), "# corners", *rows, *faces, ""]))


def write_obj(path: Path) -> None:
    rows = [f"v {x} {y} {z} {max(x, 0)} 0 1" for x, y, z in CORNERS]
    faces = ["f " + " ".join(f"{c + 1}/7/9" for c in quad) for quad in QUADS[:3]]
    faces += ["f " + " ".join(f"{c - 8}//2" for c in quad) for quad in QUADS[3:]]
    path.write_text("\n".join(["mtllib a.mtl", *rows, "vn 0 0 1", "usemtl red", *faces]))


def triangles() -> np.ndarray:
    return np.array([CORNERS[[q[0], q[i], q[i + 1]]] for q in QUADS for i in (1, 2)])


def write_stl(path: Path) -> None:
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *t.flatten(), 0) for t in triangles())
    path.write_bytes(b"solid but binary".ljust(80) + struct.pack("<I", 12) + body)


def write_stl_text(path: Path) -> None:
    facets = [
        "facet normal 0 0 0\nouter loop\n"
        + "\n".join("vertex " + " ".join(map(str, corner)) for corner in triangle)
        + "\nendloop\nendfacet"
        for triangle in triangles()
    ]
    path.write_text("\n".join(["solid cube", *facets, "endsolid cube\n"]))


def write_ply_mesh(path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    vertex = np.array([tuple(c) for c in CORNERS], dtype=[(axis, "f8") for axis in "xyz"])
    face = np.array([(list(quad),) for quad in QUADS], dtype=[("vertex_indices", "i4", (4,))])
    elements = [plyfile.PlyElement.describe(vertex, "vertex")]
    elements.append(plyfile.PlyElement.describe(face, "face"))
    plyfile.PlyData(elements).write(str(path))


MESHES = {
    "plain.off": write_off,
    "glued.off": lambda path: write_off(path, "OFF{} {} 0\n"),
    "cube.obj": write_obj,
    "cube.stl": write_stl,
    "text.stl": write_stl_text,
    "cube.ply": write_ply_mesh,
}


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_sampled_by_area(tmp_path, name):
    path = tmp_path / name
    MESHES[name](path)
    data = read(path, ["normal"], mesh_points=3000)
    pos = restored(data)
    assert data.pos.shape == (3000, 3)
    assert np.allclose(np.abs(pos).max(axis=1), 1, atol=1e-5)  # on the surface of the cube
    side = np.abs(pos).argmax(axis=1) * 2 + (pos[np.arange(3000), np.abs(pos).argmax(axis=1)] > 0)
    assert np.bincount(side, minlength=6).min() > 400
    assert np.allclose(np.abs(data.x.numpy() * pos).sum(axis=1), 1, atol=1e-5)
    assert torch.equal(read(path, mesh_points=3000).pos, data.pos)
    assert not torch.equal(read(path, mesh_points=3000, seed=1).pos, data.pos)


def test_copies_of_a_mesh_give_the_same_points(tmp_path):
    write_off(tmp_path / "a.off")
    write_off(tmp_path / "b.off")
    assert torch.equal(read(tmp_path / "a.off").pos, read(tmp_path / "b.off").pos)


def test_colors_of_corners_are_interpolated(tmp_path):
    write_obj(tmp_path / "a.obj")
    data = read(tmp_path / "a.obj", ["color"])
    expected = np.clip(restored(data)[:, 0] / 2 + 0.5, 0, 1)
    assert data.x[:, 2].eq(1).all()
    on_side = np.abs(restored(data)[:, 0]) < 0.999
    assert np.allclose(data.x[on_side, 0], expected[on_side], atol=1e-4)


def write_pcd(path: Path, storage: str, points: np.ndarray = POINTS) -> None:
    size = len(points)
    packed = ((np.arange(size) << 16) | 0x80FF).astype(np.uint32)
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb intensity\nSIZE 8 8 8 4 4\nTYPE F F F F F\n"
        f"COUNT 1 1 1 1 1\nWIDTH {size}\nHEIGHT 1\nPOINTS {size}\nDATA {storage}\n"
    ).encode()
    names = ("x", "y", "z", "rgb", "intensity")
    table = np.zeros(size, [(name, "<f8" if name in "xyz" else "<f4") for name in names])
    for axis, column in zip("xyz", points.T, strict=True):
        table[axis] = column
    table["rgb"], table["intensity"] = packed.view(np.float32), np.arange(size)
    if storage == "ascii":
        body = "\n".join(" ".join(repr(float(value)) for value in row) for row in table).encode()
    elif storage == "binary":
        body = table.tobytes()
    else:
        plain = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in names)
        runs = [plain[start : start + 32] for start in range(0, len(plain), 32)]
        block = b"".join(bytes([len(run) - 1]) + run for run in runs)
        body = struct.pack("<II", len(block), len(plain)) + block
    path.write_bytes(header + body)


@pytest.mark.parametrize("storage", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path, storage):
    path = tmp_path / "a.pcd"
    write_pcd(path, storage)
    data = read(path, ["color", "intensity"])
    assert np.allclose(restored(data), POINTS, atol=1e-6)
    assert data.x[:, 3].tolist() == list(range(20))
    assert np.allclose(data.x[5, :3], [5 / 255, 0x80 / 255, 1])


def test_a_column_of_whole_numbers_of_a_pcd(tmp_path):
    head = "FIELDS x y z label\nSIZE 4 4 4 4\nTYPE F F F I\nCOUNT 1 1 1 1\nPOINTS 2\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(head + "1 2 3 -7\n4 5 6 70000\n")
    assert read(tmp_path / "a.pcd", ["label"]).x[:, 0].tolist() == [-7, 70000]


def test_lzf_references():
    packed = bytes([2]) + b"abc" + bytes([0b01100000, 2]) + bytes([0]) + b"x"
    packed += bytes([0b11100000, 3, 0])  # 12 copies of the last byte
    assert decompress(packed, 21) == b"abc" + b"abcab" + b"x" * 13
    assert decompress(bytes([0, ord("a"), 32, 0]), 4) == b"aaaa"  # the shortest reference
    assert decompress(bytes([31]) + bytes(32), 32) == bytes(32)  # the longest run
    with pytest.raises(ValueError, match="breaks off at byte"):
        decompress(bytes([9]) + b"ab", 10)
    with pytest.raises(ValueError, match="breaks off"):
        decompress(bytes([0b00100000, 5]), 3)
    with pytest.raises(ValueError, match=r"expected 4 bytes .* \(got 1\)"):
        decompress(bytes([0]) + b"a", 4)


@pytest.mark.parametrize("ending", [".las", ".laz"])
def test_las_keeps_millimetres(tmp_path, ending):
    laspy = pytest.importorskip("laspy")
    if ending == ".laz":
        pytest.importorskip("lazrs")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 0.001), UTM[0].round()
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = (POINTS + UTM).T
    cloud.intensity = np.arange(20) * 100
    cloud.red = cloud.green = cloud.blue = np.full(20, 65535)
    path = tmp_path / f"a{ending}"
    cloud.write(str(path))
    data = read(path, ["intensity", "color", "classification"])
    assert np.allclose(data.pos, POINTS - POINTS.mean(axis=0), atol=1.1e-3)
    assert np.allclose(restored(data), POINTS + UTM, atol=1.1e-3)
    assert data.x[3].tolist() == [300.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("text", [False, True])
def test_ply_cloud(tmp_path, text):
    plyfile = pytest.importorskip("plyfile")
    names = [*"xyz", "nx", "ny", "nz", "scalar_Intensity"]
    kinds = [(name, "f8") for name in names] + [(name, "u1") for name in ("red", "green", "blue")]
    table = np.zeros(20, dtype=kinds)
    for axis, column in zip("xyz", (POINTS + UTM).T, strict=True):
        table[axis] = column
    table["nz"], table["scalar_Intensity"], table["red"] = 1, np.arange(20), 255
    element = plyfile.PlyElement.describe(table, "vertex")
    plyfile.PlyData([element], text=text).write(str(tmp_path / "a.ply"))
    data = read(tmp_path / "a.ply", ["normal", "color", "intensity"])
    assert np.allclose(data.pos, POINTS - POINTS.mean(axis=0), atol=1e-6)
    assert data.x[4].tolist() == [0, 0, 1, 1, 0, 0, 4]


def test_npy_npz_and_text(tmp_path):
    wide = np.column_stack([POINTS + UTM, np.arange(20)])
    np.save(tmp_path / "a.npy", wide)
    np.savez(tmp_path / "a.npz", pos=POINTS + UTM, column_3=np.arange(20), name=np.array("tree"))
    np.savetxt(tmp_path / "a.txt", wide, fmt="%.4f", header="x y z value")
    np.savetxt(tmp_path / "a.xyz", wide, fmt="%.4f", delimiter=",")
    for name in ("a.npy", "a.npz", "a.txt", "a.xyz"):
        data = read(tmp_path / name, ["column_3"])
        assert np.allclose(data.pos, POINTS - POINTS.mean(axis=0), atol=1e-6), name
        assert data.x.flatten().tolist() == list(range(20)), name
    named = read(tmp_path / "a.npy", ["label"], columns=["x", "y", "z", "label"])
    assert named.x.flatten().tolist() == list(range(20))


def test_a_line_of_names(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("// scan 7\nX;Y;Z;Intensity\n1;2;3;4\n\n5;6;7;8\n")
    data = read(path, ["intensity"])
    assert restored(data).tolist() == [[1, 2, 3], [5, 6, 7]]
    assert data.x.flatten().tolist() == [4, 8]


def test_missing_channels(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    with pytest.raises(ValueError, match=r"a.npy' to have the channels \['color'\] \(got \[\]\)"):
        read(tmp_path / "a.npy", ["color"])
    data = read(tmp_path / "a.npy", ["color", "intensity"], fill=0.5)
    assert data.x.tolist() == [[0.5] * 4] * 20
    assert "x" not in read(tmp_path / "a.npy")


def test_points_that_are_not_finite(tmp_path):
    points = POINTS.copy()
    points[7, 1] = np.nan
    write_pcd(tmp_path / "a.pcd", "binary", points)
    with pytest.raises(ValueError, match="for point 7; drop_invalid=True leaves such points out"):
        read(tmp_path / "a.pcd")
    data = read(tmp_path / "a.pcd", ["intensity"], drop_invalid=True)
    assert data.x.flatten().tolist() == [i for i in range(20) if i != 7]


PCD = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA {}\n"


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.off", "PLY\n", "line 1: expected the keyword OFF"),
        ("a.off", "OFF\n3 x 0\n", "line 2: expected two counts"),
        ("a.off", "OFF\n2 0 0\n0 0 0\n1 2\n", "line 4: expected three numbers"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n", "ends: expected a vertex, number 3 of 3"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "line 6: expected a face"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 8\n", "a face names vertex 8 of 3"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n0 0 0\n0 1 0\n3 0 1 2\n", "a mesh to sample .*no area"),
        ("a.obj", "v 0 0 zero\n", "line 1: expected three numbers"),
        ("a.obj", "v 0 0 0\nf 1 1\n", "line 2: expected three corners or more"),
        ("a.obj", "v 0 0 0\nf 1 b 1\n", "line 2: expected corners"),
        ("a.stl", "not a mesh", "expected text from 'solid'"),
        ("a.stl", "solid a\nfacet\nvertex 0 0\n", "line 3: expected three numbers"),
        ("a.ply", "ply\nformat ascii 1.0\n", "readable .ply file"),
        ("a.las", "LASF and no more", "readable .las file"),
        ("a.pcd", "VERSION 0.7\n", "the header has no DATA line"),
        ("a.pcd", PCD.format("ascii") + "1 2 3\n4 5\n", "line 8: expected 3 numbers"),
        ("a.pcd", PCD.format("ascii") + "1 2 3\n", "expected 2 points"),
        ("a.pcd", PCD.format("binary") + "short", "expected 24 bytes of points"),
        ("a.pcd", PCD.format("other"), "expected DATA ascii, binary or binary_compressed"),
        ("a.pcd", PCD.replace("SIZE 4 4 4", "SIZE 4 4").format("ascii"), "of one length"),
        ("a.txt", "1 2 3\n1 2 c\n", "line 2: expected numbers"),
        ("a.txt", "1 2 3\n1 2 3 4\n", "line 2: expected 3 numbers"),
        ("a.xyz", "1 2\n", r"expected numbers \[n, 3 or more\]"),
        ("a.txt", "", "to have points"),
        ("a.npy", "no array", "readable .npy file"),
        ("a.npz", "no archive", "readable .npz file"),
        ("a.dae", "", r"to end in one of \['.las', .*\] \(got '.dae'\)"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, match):
    path = tmp_path / name
    path.write_text(content)
    try:
        with pytest.raises(ValueError, match=f"(?s)Expected '.*{name}'.*{match}"):
            read(path)
    except MissingExtraError as error:
        pytest.skip(f"{error.package} is not installed")


def test_sets_of_clouds_are_referred_to_their_reader(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match="open it with NpzShapes"):
        read(tmp_path / "a.npz")


def test_other_mistakes(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    write_off(tmp_path / "a.off")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.off")
    with pytest.raises(ValueError, match="'mesh_points' to be >= 1"):
        read(tmp_path / "a.off", mesh_points=0)
    with pytest.raises(ValueError, match="'columns' for"):
        read(tmp_path / "a.off", columns=["x", "y", "z"])
    with pytest.raises(ValueError, match="a name for each of 3 columns"):
        read(tmp_path / "a.npy", columns=["x", "y"])
    with pytest.raises(ValueError, match="no column z"):
        read(tmp_path / "a.npy", columns=["x", "y", "height"])


@pytest.mark.parametrize(("package", "name"), [("plyfile", "a.ply"), ("laspy", "a.las")])
def test_a_missing_extra_names_its_command(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_text("")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}' .* pip install 'pyg-peft\[io\]'"):
        read(tmp_path / name)
