"""Files with labels of their points: all points, in the coordinates and order of the input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SIZES, fit

from pyg_peft.cli import main, predict
from pyg_peft.cli.predicting.points import PointOptions, find_labeler
from pyg_peft.cli.saved import open_adapter
from pyg_peft.datasets import read_points
from pyg_peft.datasets.files import read_raw

for package in ("jsonargparse", "lightning", "torchmetrics", "laspy", "plyfile"):
    pytest.importorskip(package, reason=f"{package} is not installed")

HEAD = SIZES.replace("}", ', "num_levels": 2, "head_channels": 32}')


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Labels the upper and the lower half; 48 points a cloud in training."""
    folder = tmp_path_factory.mktemp("points")
    xyz = np.random.default_rng(0).uniform(-1, 1, (18, 60, 3)).astype(np.float32)
    np.savez(
        folder / "set.npz",
        xyz=xyz,
        seg=(xyz[:, :, 2] > 0).astype(np.int64),
        label=np.zeros(18, np.int64),
        split=np.array([0] * 14 + [1] * 4),
        class_names=np.array(["lamp"]),
        part_names=np.array(["bottom", "top"]),
    )
    more = ("--task", "segmentation", "--backbone_args", HEAD)
    assert main(fit(folder / "set.npz", folder / "adapter", *more, epochs=2)) == 0
    return str(folder / "adapter")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A small cloud, a larger one, and a mesh."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    draw = np.random.default_rng(3)
    np.savez(folder / "small.npz", pos=draw.uniform(5e5, 5e5 + 2, (40, 3)))
    np.save(folder / "large.npy", draw.uniform(-1, 1, (130, 3)).astype(np.float32))
    mesh = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n"
    (folder / "mesh.off").write_text(mesh)
    return folder


def las_file(path: Path, points: int, point_format: int = 6) -> Path:
    import laspy

    header: Any = laspy.LasHeader(point_format=point_format)
    header.scales, header.offsets = [0.001] * 3, [691_000, 5_330_000, 0]
    cloud: Any = laspy.LasData(header)
    draw = np.random.default_rng(2)
    cloud.xyz = draw.uniform(0, 20, (points, 3)) + header.offsets
    cloud.intensity = draw.integers(0, 60_000, points)
    cloud.classification = draw.integers(0, 9, points)
    cloud.write(str(path))
    return path


def labels_of(path: Path, name: str = "label") -> np.ndarray:
    return read_raw(path).channels[name].flatten()


def test_labels_are_those_of_the_model(adapter, shapes, tmp_path):
    """The cloud has fewer points than training clouds, so no blocks are needed."""
    predict.run(adapter, [str(shapes / "small.npz")], output=str(tmp_path / "out"))
    saved = open_adapter(adapter, None, {})
    cloud = saved.preprocessing.evaluation()(read_points(shapes / "small.npz"))
    with torch.no_grad():
        expected = saved.model(pos=cloud.pos).argmax(dim=1)
    assert np.array_equal(labels_of(tmp_path / "out" / "small.npz"), expected.numpy())


def test_all_points_in_the_coordinates_and_order_of_the_input(adapter, shapes, tmp_path, capsys):
    output = tmp_path / "out"
    ask = ["predict", adapter, str(shapes), "--output", str(output), "--format", "json"]
    assert main([*ask, "--probability", "true"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [Path(entry["output"]).name for entry in entries] == [
        "large.ply",
        "mesh.ply",
        "small.npz",
    ]
    assert [entry["points"] for entry in entries] == [130, 48, 40]
    for entry in entries:
        raw, given = read_raw(Path(entry["output"])), Path(entry["path"])
        expected = read_raw(given, mesh_points=48)
        assert np.array_equal(raw.pos, expected.pos)
        counts = np.bincount(raw.channels["label"].flatten().astype(int), minlength=2)
        assert dict(zip(["bottom", "top"], counts, strict=True)) == entry["points_by_class"]
        chance = raw.channels["probability"]
        assert ((chance >= 0.5) & (chance <= 1)).all()


@pytest.mark.parametrize("ending", ["las", "laz"])
@pytest.mark.parametrize("point_format", [1, 6])
def test_a_scan_keeps_its_points_and_fields(adapter, tmp_path, ending, point_format):
    import laspy

    source = las_file(tmp_path / f"tile.{ending}", 130, point_format)
    ask = ["predict", adapter, str(source), "--output", str(tmp_path / "out"), "--window", "8"]
    assert main(ask) == 0
    before: Any = laspy.read(str(source))
    after: Any = laspy.read(str(tmp_path / "out" / source.name))
    assert set(np.unique(after.classification)) <= {0, 1}
    before.classification = after.classification
    assert before.points.array.tobytes() == after.points.array.tobytes()
    assert np.array_equal(before.header.offsets, after.header.offsets)


@pytest.mark.parametrize("output_type", ["ply", "las", "laz", "npz"])
def test_the_type_of_the_output(adapter, shapes, tmp_path, output_type):
    source = str(shapes / "large.npy")
    predict.run(adapter, [source], output=str(tmp_path / "out"), output_type=output_type)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == f"large.{output_type}"
    assert np.abs(read_raw(path).pos - np.load(source)).max() < 1e-8
    name = "classification" if output_type in ("las", "laz") else "label"
    other = tmp_path / "other"
    predict.run(adapter, [source], output=str(other), output_type="npz", batch_size=1)
    assert np.array_equal(labels_of(path, name), labels_of(other / "large.npz"))


def test_the_settings_of_blocks(adapter, shapes):
    saved = open_adapter(adapter, None, {})
    cloud = read_points(shapes / "large.npy")
    options = [
        PointOptions(num_votes=1),
        PointOptions(),
        PointOptions(window=1.0),
        PointOptions(window=1.0, stride=0.3),
    ]
    found = [find_labeler(saved, some)(cloud)[1] for some in options]
    again = find_labeler(saved, options[1])(cloud)[1]
    assert torch.equal(found[1], again), "the same blocks each time"
    for number, probability in enumerate(found):
        assert probability.shape == (130,)
        assert all(not torch.equal(probability, other) for other in found[:number])


def test_broken_files_are_left_out(adapter, shapes, tmp_path, capsys):
    (shapes / "bad.off").write_text("OFF\n")
    output = tmp_path / "out"
    ask = ["predict", adapter, str(shapes), "--output", str(output)]
    assert main(ask) == 2
    assert "bad.off" in capsys.readouterr().err and not output.exists()
    assert main([*ask, "--skip_errors", "true"]) == 1
    assert "1 of 4 files have no prediction:" in capsys.readouterr().err
    assert len(list(output.iterdir())) == 3


def test_labels_that_a_format_cannot_hold_are_an_error_of_the_file(
    adapter, shapes, tmp_path, capsys, monkeypatch
):
    source = las_file(tmp_path / "old.las", 30, point_format=1)

    def labels(*_: object) -> object:
        return lambda cloud: (torch.full((cloud.num_nodes,), 32), torch.ones(cloud.num_nodes))

    monkeypatch.setattr(predict, "find_labeler", labels)
    names = json.dumps([str(number) for number in range(33)])
    monkeypatch.setattr("pyg_peft.cli.saved.check_class_names", lambda *_: None)
    ask = ["predict", adapter, str(source), "--class_names", names]
    assert main([*ask, "--output", str(tmp_path / "out"), "--skip_errors", "true"]) == 1
    found = capsys.readouterr().err
    assert f"{source}: Expected 'label' to lie in [0, 31]" in found
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "'output' to be a folder for the files with labels"),
        (("--output", "{}/small.npz"), "'output' to be none of the input files"),
        (("--output", "file"), "'output' to be a folder (got the file"),
        (("--output", "no/where"), "'output' to be in a folder that exists"),
        (("--output", "{}"), "'output' to be another folder than that of the inputs"),
        (("--output", "new", "--output_type", "ply", "copy"), "input files with different names"),
        (("--output", "old", "--output_type", "ply"), "--overwrite true replaces them"),
        (("--output", "new", "--window", "0"), "'window' to be > 0"),
        (("--output", "new", "--stride", "1"), "'window' to be given with 'stride'"),
        (("--output", "new", "--window", "1", "--stride", "2"), "'stride' to lie in"),
        (("--output", "new", "--num_votes", "0"), "'num_votes' to be >= 1"),
        (("--output", "new", "--category", "1"), "the backbone takes none"),
    ],
)
def test_mistakes_come_before_anything_is_written(
    adapter, shapes, tmp_path, monkeypatch, capsys, more, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for name in ("file", "old/mesh.ply"):
        (tmp_path / name).write_text("old")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mesh.off").write_bytes((shapes / "mesh.off").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    filled = [text.replace("{}", str(shapes)) for text in more]
    files = [name for name in filled if name == "copy"]
    rest = [name for name in filled if name != "copy"]
    assert main(["predict", adapter, str(shapes), *files, *rest]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old" / "mesh.ply").read_text() == "old"
