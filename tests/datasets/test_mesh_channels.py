"""Meshes and .ply files (issue 12, B11): labels are not blended, faces are what is called so."""

from typing import Any

import numpy as np
import pytest

from pyg_peft.datasets import ShapeFolder, read_points
from pyg_peft.datasets.formats.raw_points import from_columns, triangles_of_strips

read: Any = read_points
open_folder: Any = ShapeFolder

VERTICES = [(0, 0, 0, 3, 3), (4, 0, 0, 39, 39), (0, 4, 0, 39, 39), (4, 4, 0, 3, 3)]
FACES = "3 0 1 2\n3 1 3 2\n"


def write(path, faces="property list uchar int vertex_indices\n", rows=FACES, kind="face") -> None:
    lines = ["ply", "format ascii 1.0", "element vertex 4"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [
        "property int label",
        "property float height",
        f"element {kind} {rows.count(chr(10))}",
    ]
    vertices = "\n".join(" ".join(map(str, row)) for row in VERTICES)
    path.write_text("\n".join(lines) + f"\n{faces}end_header\n{vertices}\n{rows}")


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("plyfile")
    return tmp_path / "a.ply"


def test_labels_come_from_the_nearest_vertex(path):
    write(path)
    data = read(path, ["label", "height"], mesh_points=500)
    pos = (data.pos.double() + data.origin).numpy()
    corners = np.array(VERTICES, float)
    nearest = np.linalg.norm(pos[:, None] - corners[:, :3], axis=2).argmin(axis=1)
    assert set(data.x[:, 0].tolist()) == {3, 39}
    assert data.x[:, 0].tolist() == corners[nearest, 3].tolist()
    assert len(set(data.x[:, 1].tolist())) > 400, "what is measured is interpolated"


def test_the_vertices_as_the_cloud(path, tmp_path):
    write(path)
    data = read(path, ["label"], mesh_vertices=True)
    assert (data.pos.double() + data.origin).tolist() == [list(map(float, v[:3])) for v in VERTICES]
    assert data.x.flatten().tolist() == [3, 39, 39, 3]
    for name in "ab":
        (tmp_path / "shapes" / name).mkdir(parents=True)
        write(tmp_path / "shapes" / name / "1.ply")
    dataset = open_folder(tmp_path / "shapes", channels=["label"], mesh_vertices=True)
    assert dataset[1].x.flatten().tolist() == [3, 39, 39, 3]
    assert dataset.read_args["mesh_vertices"] is True
    facet = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 {} 0\nendloop\n"
    stl = tmp_path / "a.stl"
    stl.write_text(f"solid a\n{facet.format(1)}endfacet\n{facet.format(2)}endfacet\nendsolid\n")
    assert len(read(stl, mesh_vertices=True).pos) == 4, "a corner of two triangles comes once"


@pytest.mark.parametrize(
    ("faces", "rows"),
    [
        (
            "property int material_index\nproperty list uchar int vertex_index\n",
            "0 3 0 1 2\n0 3 1 3 2\n",
        ),
        (
            "property list uchar int texture_indices\nproperty list uchar int vertex_indices\n",
            "3 0 0 0 3 0 1 2\n3 0 0 0 3 1 3 2\n",
        ),
    ],
)
def test_only_indices_of_vertices_are_faces(path, faces, rows):
    write(path)
    plain = read(path, mesh_points=20).pos
    write(path, faces, rows)
    assert read(path, mesh_points=20).pos.equal(plain)


@pytest.mark.parametrize(
    "faces",
    [
        "property list uchar int material_indices\n",
        "property list uchar float vertex_indices\n",
        "property list uchar int vertex_index\nproperty list uchar int vertex_indices\n",
    ],
)
def test_faces_without_indices_of_vertices(path, faces):
    rows = FACES if faces.count("\n") == 1 else "3 0 1 2 3 0 1 2\n3 1 3 2 3 1 3 2\n"
    write(path, faces, rows)
    with pytest.raises(ValueError, match="'face' to have one list of integers called vertex_ind"):
        read(path)


def test_triangle_strips(path):
    write(path)
    normal = read(path, ["normal"], mesh_points=20).x[0].tolist()
    write(path, rows="10 0 1 2 3 -1 -1 0 1 2 -1\n", kind="tristrips")
    data = read(path, ["normal"], mesh_points=400)
    assert data.x.tolist() == [normal] * 400, "every second triangle is turned round"
    strip = np.array([0, 1, 2, 3, -1, 5, 6, -1, 7, 8, 9])
    assert triangles_of_strips(strip).tolist() == [[0, 1, 2], [2, 1, 3], [7, 8, 9]]
    assert triangles_of_strips(np.array([1, 2])).shape == (0, 3)


def test_names_that_differ_by_a_prefix_or_case():
    columns = {name: np.arange(3.0) + i for i, name in enumerate([*"xyz", "intensity"])}
    both = from_columns({**columns, "scalar_Intensity": np.zeros(3)})
    assert both.channels["intensity"].flatten().tolist() == [3, 4, 5]
    assert both.channels["scalar_intensity"].flatten().tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"different names \(got \['intensity'\] twice"):
        from_columns({**columns, "Intensity": np.zeros(3)})
    colors = {name: np.full(3, 0.5) for name in ("red", "green", "blue", "r", "g", "b", "color")}
    channels = from_columns({**columns, **colors}).channels
    assert channels["color"].shape == (3, 3) and {"r", "g", "b", "scalar_color"} <= set(channels)


def test_strips_of_few_corners():
    found = [triangles_of_strips(np.arange(corners)).tolist() for corners in range(5)]
    assert found == [[], [], [], [[0, 1, 2]], [[0, 1, 2], [2, 1, 3]]]
