"""Tiles of scenes: settings, classes, features, heights, folders, and the outdoor augmentation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_peft.datasets import (
    OutdoorAugment,
    SceneFolder,
    SceneSettings,
    keyed_generator,
    read_points,
    read_tile,
)
from pyg_peft.datasets.scenes.ground import height_above_ground

COLUMNS = ["x", "y", "z", "label", "intensity"]
ANY: Any = None


def write_tile(path: Path, labels: list[int], x: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[x + n, n, 10 + n, label, 7 * n] for n, label in enumerate(labels)]
    np.savetxt(path, rows, fmt="%.3f")
    return path


def settings(**more: Any) -> SceneSettings:
    return SceneSettings("label", columns=COLUMNS, **more)


def test_settings_survive_json_in_their_order():
    chosen = settings(
        ignore_label=[0, 7],
        classes={9: "water", 2: "ground", 4: "plants", 3: "plants"},
        features={"intensity": 100.0, "count": 3},
    )
    assert chosen.class_names == ("water", "ground", "plants")
    assert chosen.raw_labels == (9, 2, 4)
    text = json.dumps(chosen.to_dict(), sort_keys=True)
    again = SceneSettings.from_dict(json.loads(text))
    assert again == chosen and again.class_names == chosen.class_names
    assert list(again.features) == ["intensity", "count"]
    assert SceneSettings.from_dict({"classes": {"2": "ground"}}).classes == {2: "ground"}
    assert SceneSettings.recorded_in({"num_points": 3}) is None
    assert SceneSettings.recorded_in(chosen.to_dict()) == chosen
    assert settings(features=["color", "Intensity"]).num_features == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": {"two": "ground"}}, "'classes' to have whole numbers"),
        ({"classes": {2: "ground"}, "ignore_label": 2}, "no label in common"),
        ({"height": "sea"}, "'height' to be one of"),
        ({"missing": "skip"}, "'missing' to be one of"),
        ({"block_size": 0}, "'block_size' to be > 0"),
        ({"block_size": 4.0, "stride": 5.0}, "'stride'"),
        ({"features": ["a", "A"]}, "different names"),
        ({"colour": 1}, "settings of tiles to be among"),
    ],
)
def test_wrong_settings(given, message):
    with pytest.raises(ValueError, match=message):
        SceneSettings.from_dict(given)


@pytest.mark.parametrize(
    "given", [{"classes": []}, {"classes": {2: 3}}, {"label_field": 3}, {"features": "intensity"}]
)
def test_wrong_types_of_settings(given):
    with pytest.raises(TypeError, match="Expected '"):
        SceneSettings.from_dict(given)


def test_classes_and_unlisted_labels(tmp_path, caplog):
    write_tile(tmp_path / "a.txt", [2, 9, 0, 5, 5, 6])
    folder: Any = SceneFolder(tmp_path, settings(classes={9: "water", 2: "ground"}, ignore_label=0))
    assert folder[0].y.tolist() == [1, 0, -1, -1, -1, -1]
    assert "3 points have labels without a class and are ignored: 5 (2), 6 (1)" in caplog.text
    found = SceneFolder(tmp_path, settings(ignore_label=(0, 5)))
    assert found.class_names == ("2", "6", "9")
    with pytest.raises(ValueError, match=r"'label_field' to be a field of .*its fields are intens"):
        read_tile(tmp_path / "a.txt", SceneSettings("class", {0}, {1: "a"}, columns=COLUMNS))
    with pytest.raises(ValueError, match="'classes' to be given"):
        read_tile(tmp_path / "a.txt", settings())


def test_features_and_heights(tmp_path):
    path = write_tile(tmp_path / "a.txt", [2, 2, 2], x=500_000.0)
    one = read_tile(path, settings(features={"intensity": 7}, height="tile_minimum"), labels=False)
    assert one.x is not None and one.x.flatten().tolist() == [0, 1, 2]
    assert one.pos is not None and one.pos[:, 2].tolist() == [0, 1, 2]
    assert one.pos[:, 0].tolist() == [-1, 0, 1] and "y" not in one
    with pytest.raises(ValueError, match=r"to have the features red .*missing='zero'"):
        read_tile(path, settings(features=["intensity", "red"]), labels=False)
    filled = read_tile(path, settings(features=["red", "color"], missing="zero"), labels=False)
    assert filled.x is not None and filled.x.shape == (3, 4)
    assert not filled.x.any()


def test_ground_below_trees_on_a_slope():
    draw = np.random.default_rng(0)
    plane = draw.uniform(0, 60, (6000, 2)) + np.array([272_000.0, 5_240_000.0])
    slope = 800 + 0.1 * (plane[:, 0] - 272_000)
    above = np.where(draw.uniform(size=6000) < 0.2, 0.0, draw.uniform(2, 15, 6000))
    found = height_above_ground(np.c_[plane, slope + above], size=4.0)
    # The lowest point of a cell of 4 m on this slope is up to 0.4 m below the ground.
    assert np.abs(found - above).max() < 0.8
    with pytest.raises(ValueError, match="'ground_size' to give at most"):
        height_above_ground(np.array([[0.0, 0, 0], [1e9, 1e9, 0]]), 1.0)


def test_folders_with_splits(tmp_path):
    for name in ("training/a.txt", "test/b.txt", "test/deep/c.txt"):
        write_tile(tmp_path / name, [1, 2])
    (tmp_path / "test" / "README.txt").write_text("notes\n")
    folder: Any = SceneFolder(tmp_path, settings(), "test")
    assert folder.splits == ("train", "test")
    assert [path.name for path in folder.files] == ["b.txt", "c.txt"]
    assert folder[1].sample_id.tolist() == [1]
    with pytest.raises(ValueError, match="'split' to be one that"):
        SceneFolder(tmp_path, settings(), "val")
    write_tile(tmp_path / "more" / "d.txt", [1])
    with pytest.raises(ValueError, match="nothing beside them"):
        SceneFolder(tmp_path, settings())
    with pytest.raises(FileNotFoundError, match="'root' to be a file or folder"):
        SceneFolder(tmp_path / "none", settings())
    with pytest.raises(TypeError, match="'settings' to be SceneSettings"):
        SceneFolder(tmp_path, ANY or {})  # pyright: ignore[reportArgumentType]


def test_las_tiles_have_the_names_of_the_standard(tmp_path):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    cloud.x, cloud.y, cloud.z = np.arange(4.0) + 5e5, np.zeros(4), np.arange(4.0)
    cloud.classification = np.array([2, 9, 0, 2], np.uint8)
    cloud.intensity = np.array([0, 65535, 0, 0], np.uint16)
    cloud.red = cloud.green = cloud.blue = np.array([65535, 0, 0, 0], np.uint16)
    cloud.write(str(tmp_path / "tile.las"))
    chosen = SceneSettings(ignore_label=0, features=["intensity", "red", "number_of_returns"])
    folder: Any = SceneFolder(tmp_path / "tile.las", chosen)
    assert folder.class_names == ("ground", "water")
    assert folder[0].x[:, :2].tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_a_number_that_marks_missing_ones_does_not_spoil_the_file(tmp_path):
    """R's lidR writes the largest double for trees without a number."""
    path = tmp_path / "a.txt"
    path.write_text("0 0 0 1.7976931348623157e308\n1 0 0 3\n")
    columns = ["x", "y", "z", "tree"]
    assert read_points(path, columns=columns).num_nodes == 2
    with pytest.raises(ValueError, match="channels in range"):
        read_points(path, ["tree"], columns=columns)


def test_the_outdoor_augmentation():
    pos = torch.rand(400, 3)
    data = Data(pos=pos, y=torch.arange(400), sample_id=torch.tensor([0]))
    turned = OutdoorAugment(scale=0, jitter=0, dropout=0)(data, keyed_generator(1))
    assert turned.pos is not None and torch.equal(data.pos, pos)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(turned.pos[:, 2], pos[:, 2])
    torch.testing.assert_close(turned.pos.norm(dim=1), pos.norm(dim=1))
    found = OutdoorAugment(dropout=0.9)(data, keyed_generator(2))
    again = OutdoorAugment(dropout=0.9)(data, keyed_generator(2))
    assert torch.equal(found.pos, again.pos) and 40 <= found.y.numel() < 400  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert found.sample_id.tolist() == [0]
    handed = [
        torch.linalg.det(torch.linalg.lstsq(pos, OutdoorAugment(0, 0, 0)(data).pos).solution) > 0  # pyright: ignore[reportArgumentType]
        for _ in range(20)
    ]
    assert any(handed) and not all(handed)  # both mirrored and not
    with pytest.raises(ValueError, match="'dropout' to lie in"):
        OutdoorAugment(dropout=1.0)
    assert repr(OutdoorAugment()) == "OutdoorAugment(scale=0.1, jitter=0.002, dropout=0.1)"
