"""Files with a label per point: what other programs read of them, and what is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import read_points, write_labeled_points
from pyg_peft.datasets.files import read_raw
from pyg_peft.datasets.formats.labeled_files import PALETTE, color_of

NAMES = ["ground", "tree", "wire"]
POS = np.random.default_rng(0).normal(size=(40, 3))
LABEL = np.arange(40) % 3


def las_file(path: Path, point_format: int, version: str, points: int = 40) -> Path:
    """A survey in UTM meters with flags, an extra field, a record and, in 1.4, another."""
    laspy: Any = pytest.importorskip("laspy", reason="laspy is not installed")
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.scales, header.offsets = [0.01, 0.01, 0.001], [691_000, 5_330_000, 100]
    header.system_identifier = "scanner 7"
    header.vlrs.append(laspy.VLR("survey", 7, "about", b"three words long"))
    header.add_extra_dim(laspy.ExtraBytesParams("height", "f4"))
    draw = np.random.default_rng(1)
    cloud = laspy.LasData(header)
    cloud.xyz = draw.uniform(0, 50, (points, 3)) + header.offsets
    cloud.intensity = draw.integers(0, 60_000, points)
    cloud.classification = draw.integers(0, 12, points)
    cloud.synthetic = draw.integers(0, 2, points)
    cloud.gps_time = draw.uniform(0, 1e6, points)
    cloud.height = draw.uniform(0, 9, points)
    if version == "1.4":
        cloud.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("survey", 9, "more", b"at the end")])
    cloud.write(str(path))
    return path


# ---- contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"path": "cloud.txt"}, ValueError, "'path' to end in one of"),
        ({"path": "nowhere/cloud.npz"}, FileNotFoundError, "to be a folder that exists"),
        ({"source": "none.las"}, FileNotFoundError, "'source' to be a file that exists"),
        ({"pos": POS[:, :2]}, ValueError, "'pos' to be of shape"),
        ({"pos": POS[:0], "label": []}, ValueError, "'pos' to be of shape"),
        ({"pos": np.full((40, 3), np.nan)}, ValueError, "'pos' to be finite"),
        ({"label": LABEL[:9]}, ValueError, "'label' to be of shape"),
        ({"label": LABEL + 0.5}, ValueError, "whole numbers"),
        ({"label": LABEL - 1}, ValueError, "'label' to lie"),
        ({"label": LABEL + 1}, ValueError, r"that 'class_names' names, of \[0, 1, 2\] \(got \[3"),
        ({"class_names": "abc"}, TypeError, "'class_names' to be a list of names"),
        ({"probability": np.ones(3)}, ValueError, "'probability' to be of shape"),
    ],
)
def test_errors_come_before_anything_is_written(tmp_path, monkeypatch, changed, error, message):
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"path": "cloud.npz", "pos": POS, "label": LABEL}
    given |= {"class_names": NAMES, **changed}
    with pytest.raises(error, match=message):
        write_labeled_points(**given)
    assert not list(tmp_path.iterdir())


def test_colors_of_classes_differ():
    assert [color_of(place) for place in range(8)] == list(PALETTE)
    assert len({color_of(place) for place in range(32)}) == 32


# ---- .npz and .ply -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".ply"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_coordinates_and_labels_come_back(tmp_path, suffix, kind):
    pytest.importorskip("plyfile", reason="plyfile is not installed")
    pos = (POS + 5e5).astype(kind)
    path = tmp_path / f"cloud{suffix}"
    chance = np.linspace(0, 1, 40)
    write_labeled_points(
        path, torch.from_numpy(pos), torch.from_numpy(LABEL), class_names=NAMES, probability=chance
    )
    assert np.array_equal(read_raw(path).pos, pos.astype(np.float64))
    found: Any = read_points(path, ["label", "probability"])
    assert np.array_equal(found.x[:, 0].numpy(), LABEL)
    np.testing.assert_array_equal(found.x[:, 1].numpy(), chance.astype(np.float32))


def test_ply_has_colors_and_the_names(tmp_path):
    plyfile = pytest.importorskip("plyfile", reason="plyfile is not installed")
    names = {2: "ground\nline", 6: "bâtiment"}
    label = np.where(LABEL == 0, 2, 6)
    write_labeled_points(tmp_path / "cloud.ply", POS, label, class_names=names)
    content = plyfile.PlyData.read(str(tmp_path / "cloud.ply"))
    vertex = content["vertex"]
    assert np.array_equal(vertex["label"], label)
    colors = np.stack([vertex[name] for name in ("red", "green", "blue")], axis=1)
    assert colors[0].tolist() == list(PALETTE[0]) and colors[1].tolist() == list(PALETTE[1])
    assert content.comments == ["label 2 is ground\\nline", "label 6 is b\\xe2timent"]


def test_npz_holds_the_names(tmp_path):
    names = {7: "ground", 2: "tree"}
    write_labeled_points(tmp_path / "a.npz", POS, np.full(40, 7), class_names=names)
    with np.load(tmp_path / "a.npz") as arrays:
        found = dict(zip(arrays["class_labels"].tolist(), arrays["class_names"], strict=True))
    assert found == names


# ---- .las and .laz -------------------------------------------------------------------------------


@pytest.mark.parametrize(("point_format", "version"), [(1, "1.2"), (3, "1.2"), (6, "1.4")])
@pytest.mark.parametrize(("given", "written"), [("laz", "laz"), ("las", "laz"), ("laz", "las")])
def test_a_copy_differs_in_the_classification_only(tmp_path, point_format, version, given, written):
    laspy: Any = pytest.importorskip("laspy", reason="laspy is not installed")
    source = las_file(tmp_path / f"tile.{given}", point_format, version)
    pos, path = read_raw(source).pos, tmp_path / f"labeled.{written}"
    write_labeled_points(path, pos, LABEL, class_names=NAMES, source=source)
    before, after = laspy.read(str(source)), laspy.read(str(path))
    assert np.array_equal(after.classification, LABEL)
    before.classification = LABEL
    assert before.points.array.tobytes() == after.points.array.tobytes()
    for name in ("scales", "offsets", "mins", "maxs", "system_identifier", "creation_date"):
        assert np.array_equal(getattr(before.header, name), getattr(after.header, name)), name
    assert after.header.version == before.header.version

    def records(cloud: Any) -> list[bytes]:
        return [record.record_data_bytes() for record in [*cloud.vlrs, *(cloud.evlrs or [])]]

    assert records(after) == records(before) and len(records(after)) == 2 + (version == "1.4")


def test_points_are_copied_some_at_a_time(tmp_path, monkeypatch):
    laspy: Any = pytest.importorskip("laspy", reason="laspy is not installed")
    monkeypatch.setattr("pyg_peft.datasets.formats.labeled_files._ROWS_AT_ONCE", 7)
    source = las_file(tmp_path / "tile.laz", 6, "1.4")
    pos, path = read_raw(source).pos, tmp_path / "labeled.laz"
    chance = np.linspace(0, 1, 40, dtype=np.float32)
    write_labeled_points(path, pos, LABEL, class_names=NAMES, source=source, probability=chance)
    before, after = laspy.read(str(source)), laspy.read(str(path))
    assert np.array_equal(after.probability, chance)
    for name in ("X", "Y", "Z", "intensity", "height", "synthetic", "gps_time"):
        assert np.array_equal(after[name], before[name]), name
    with pytest.raises(ValueError, match="without a field 'probability'"):
        write_labeled_points(
            tmp_path / "again.laz", pos, LABEL, class_names=NAMES, source=path, probability=chance
        )
    assert not (tmp_path / "again.laz").exists()


def test_a_copy_of_another_file_is_refused(tmp_path):
    source = las_file(tmp_path / "tile.las", 6, "1.4")
    pos, path = read_raw(source).pos, tmp_path / "labeled.las"
    with pytest.raises(ValueError, match=r"to have the 39 points \(got 40"):
        write_labeled_points(path, pos[1:], LABEL[1:], class_names=NAMES, source=source)
    with pytest.raises(ValueError, match="in their order"):
        write_labeled_points(path, pos[::-1], LABEL, class_names=NAMES, source=source)
    source.write_bytes(source.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"to be a readable .las file \(got: expected 1 extended"):
        write_labeled_points(path, pos, LABEL, class_names=NAMES, source=source)
    assert [found.name for found in tmp_path.iterdir()] == ["tile.las"]


@pytest.mark.parametrize(
    ("point_format", "version", "most"), [(3, "1.2", 31), (6, "1.4", 255), (None, "", 255)]
)
def test_labels_beyond_the_format_are_refused(tmp_path, point_format, version, most):
    pytest.importorskip("laspy", reason="laspy is not installed")
    source, pos = None, POS
    if point_format is not None:
        source = las_file(tmp_path / "tile.las", point_format, version)
        pos = read_raw(source).pos
    names = [str(number) for number in range(300)]
    path = tmp_path / "labeled.las"
    write_labeled_points(path, pos, np.full(40, most), class_names=names, source=source)
    assert set(read_raw(path).channels["classification"].flatten()) == {most}
    with pytest.raises(ValueError, match=rf"in \[0, {most}\], which the point format . holds"):
        write_labeled_points(path, pos, np.full(40, most + 1), class_names=names, source=source)
    assert set(read_raw(path).channels["classification"].flatten()) == {most}


@pytest.mark.parametrize("extent", [1e-3, 1.0, 700.0, 1e7])
def test_a_new_las_file_rounds_finely(tmp_path, extent):
    pytest.importorskip("laspy", reason="laspy is not installed")
    pos = POS / np.abs(POS).max() * extent + 7
    path = tmp_path / "new.laz"
    write_labeled_points(path, pos, LABEL, class_names=NAMES, source=None, probability=LABEL / 2)
    raw = read_raw(path)
    assert np.abs(raw.pos - pos).max() <= 5e-9 * max(1, 2 * extent)
    assert np.array_equal(raw.channels["classification"].flatten(), LABEL)
    assert np.array_equal(raw.channels["probability"].flatten(), (LABEL / 2).astype(np.float32))
