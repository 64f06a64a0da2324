"""Blocks, splits, votes and metrics of scenes, on small tiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointNetSegmentation
from pyg_peft.datasets import OutdoorAugment, SceneFolder, SceneSettings, read_tile
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.training.data.scene_blocks import Squares
from pyg_peft.training.data.scene_tiles import hold_out, load_tiles
from pyg_peft.training.tasks.scene import SceneEvaluation, SceneVotes

for package in ("lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

from pyg_peft.training import SceneDataModule, fit, label_tile, open_parts  # noqa: E402

COLUMNS = ["x", "y", "z", "label", "intensity"]


def write_tile(path: Path, seed: int = 0, count: int = 1500) -> Path:
    """Ground below z = 1, trees above, and some points without a class."""
    draw = np.random.default_rng(seed)
    pos = draw.uniform(0, [40, 30, 4], (count, 3)) + np.array([272_000, 5_240_000, 800])
    label = np.where(pos[:, 2] < 801, 2, 5)
    label[draw.uniform(size=count) < 0.1] = 0
    np.savetxt(path, np.c_[pos, label, label * 10], fmt="%.3f")
    return path


def settings(**more: Any) -> SceneSettings:
    usual: dict[str, Any] = {"height": "tile_minimum", "block_size": 10.0, "grid_size": 0.8}
    return SceneSettings(
        "label",
        ignore_label=0,
        classes={5: "tree", 2: "ground"},
        features={"intensity": 50},
        columns=COLUMNS,
        **{**usual, **more},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SceneFolder:
    root = tmp_path_factory.mktemp("tiles")
    for seed in range(2):
        write_tile(root / f"{seed}.txt", seed)
    return SceneFolder(root, settings())


def test_held_out_squares_are_whole_and_have_all_classes(folder):
    tiles = load_tiles(folder, folder.settings)
    rest, held = hold_out(tiles, 0.25, 10.0, seed=0)
    total = sum(len(tile.y) for tile in tiles)
    share = sum(len(tile.y) for tile in held) / total
    assert 0.2 < share < 0.3 and sum(len(tile.y) for tile in rest) < total
    for tile, out in zip(tiles, held, strict=True):
        low = tile.pos[:, :2].amin(dim=0)
        side = min(10.0, float((tile.pos[:, :2].amax(dim=0) - low).prod() / 16) ** 0.5)
        square = ((out.pos[:, :2] - low) / side).floor()
        everything = ((tile.pos[:, :2] - low) / side).floor()
        inside = (everything.unsqueeze(1) == square.unique(dim=0)).all(dim=2).any(dim=1)
        assert abs(int(inside.sum()) - len(out.y)) <= 2  # up to rounding at a border
    assert set(torch.cat([tile.y for tile in held]).tolist()) >= {0, 1}
    others = [hold_out(tiles, 0.25, 10.0, seed)[1] for seed in (0, 1, 2, 3)]
    assert torch.equal(held[0].pos, others[0][0].pos)
    assert not all(torch.equal(held[0].pos, other[0].pos) for other in others)


def test_blocks_are_squares_around_labeled_points(folder):
    tile = load_tiles(folder, folder.settings)[0]
    squares = Squares(tile, 5.0)
    assert int(squares.labeled.sum()) == int((tile.y >= 0).sum())
    generator = torch.Generator().manual_seed(0)
    for place in range(len(squares.labeled)):
        center = squares.draw_center(place, generator)
        rows = squares.inside(center, 5.0)
        away = (squares.tile.pos[:, :2].double() - center).abs().amax(dim=1)
        assert rows.sort().values.tolist() == (away <= 5.0).nonzero().flatten().tolist()
        labeled = squares.tile.y[rows] >= 0
        assert labeled[away[rows] == 0].any()


def test_items_depend_on_epoch_and_seed_only(folder):
    data: Any
    same: Any
    data, same = (
        SceneDataModule(folder, preprocessing=Preprocessing(64), augmentation=OutdoorAugment())
        for _ in range(2)
    )
    assert len(data.train_set) > 8 and data.num_features == 1
    item: Any = data.train_set[3]
    assert item.pos.size(0) <= 64 and item.x.shape == (item.pos.size(0), 1)
    assert float(item.pos[:, :2].abs().max()) <= 1.7  # half a diagonal, scaled
    assert torch.equal(item.pos, same.train_set[3].pos)
    data.train_set.set_epoch(1)
    assert not torch.equal(item.pos, data.train_set[3].pos)
    covered = torch.cat([item.voxel for item in data.test_set.dataset])
    assert covered.unique().numel() > 0


def test_votes_by_hand():
    votes = SceneVotes(2)

    def block(probability: list[float], voxel: list[int], last: bool) -> tuple[Any, Any]:
        first = torch.tensor(probability)
        data: Any = Batch()
        data.batch = torch.zeros(len(voxel), dtype=torch.long)
        data.tile, data.num_voxels = torch.tensor([4]), torch.tensor([3])
        data.voxel, data.is_last = torch.tensor(voxel), torch.tensor([last])
        data.counts = torch.tensor([[3, 0], [0, 2], [1, 1]])[voxel]
        return torch.stack([first, 1 - first], dim=1), data

    assert votes.add(*block([0.4, 0.1], [0, 1], False)).tolist() == [[0, 0], [0, 0]]
    found = votes.add(*block([0.9, 0.6], [0, 2], True))
    # Voxel 0 is of class 0 by its mean of 0.65, 1 of class 1, 2 of class 0.
    assert found.tolist() == [[4, 0], [1, 2]]
    result = SceneEvaluation(found, ("a", "b"))
    assert result.iou.tolist() == pytest.approx([4 / 5, 2 / 3])
    assert result.record()["confusion"] == [[4, 0], [1, 2]]
    assert result.accuracy == pytest.approx(6 / 7)
    assert "66.67%" in result.table()[3]
    assert (result + result).count == 14
    empty = SceneEvaluation(torch.tensor([[1, 0], [0, 0]]), ("a", "b"))
    assert empty.record()["iou"] == {"a": 1.0, "b": None}


def test_fit_and_label_every_point(folder, tmp_path):
    torch.manual_seed(0)
    data = SceneDataModule(folder, preprocessing=Preprocessing(128), batch_size=8)
    base = PointNetSegmentation(2, 1, channels=((16,), (16,)), head_channels=(8,), transforms=False)
    model = get_peft_model(base, LoRAConfig(rank=2, target_modules=("levels.**.lins.*",)))
    quiet = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu", "logger": False}
    quiet.pop("logger")
    from pyg_peft.training import FitOptions

    report = fit(model, data, tmp_path / "a", options=FitOptions(logger="none"), trainer=quiet)
    assert report.chosen_by == "val_mean_iou"
    assert report.val.mean_iou == pytest.approx(max(report.curves["val_mean_iou"]), abs=1e-5)
    assert len(report.test.table()) == 4
    whole = SceneDataModule(folder, None, folder, preprocessing=Preprocessing(128), val_fraction=0)
    expected = whole.task.evaluate(model, whole.test_dataloader())
    found = torch.zeros(4, dtype=torch.long)
    for path in folder.files:
        cloud = read_tile(path, folder.settings)
        labels = label_tile(model, folder.settings, cloud, preprocessing=Preprocessing(128))
        y: Any = cloud.y
        assert labels.classes.shape == y.shape
        found += (2 * y + labels.classes)[y >= 0].bincount(minlength=4)
        assert set(labels.raw_labels(folder.settings).tolist()) <= {2, 5}
    assert found.view(2, 2).tolist() == expected.confusion.tolist()
    bare: Any = read_tile(folder.files[0], settings(), labels=False)
    del bare.x
    with pytest.raises(ValueError, match="'cloud' to have the features"):
        label_tile(model, folder.settings, bare)


def test_mistakes(folder, tmp_path):
    with pytest.raises(ValueError, match=r"'preprocessing\.up_axis' to be 'z' for scenes"):
        SceneDataModule(folder, preprocessing=Preprocessing(up_axis="y"))
    with pytest.raises(ValueError, match="'groups' to be None"):
        SceneDataModule(folder, groups=torch.zeros(2))
    path = tmp_path / "one.txt"
    path.write_text("0 0 0 2 0\n0 0 1 5 0\n")
    with pytest.raises(ValueError, match="to have several squares"):
        SceneDataModule(SceneFolder(path, settings()))
    with pytest.raises(ValueError, match="'data_args' to be settings of the tiles"):
        open_parts(str(path), label_field=3)
    splits = open_parts(str(path), test_fraction=0.0, **settings().to_dict())
    assert splits.whole and splits.train.test_fraction == 0
