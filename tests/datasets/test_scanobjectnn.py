"""ScanObjectNN's files, small ones of the same layout written here."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import ScanObjectNN
from pyg_peft.errors import MissingExtraError

h5py = pytest.importorskip("h5py")

FILES = {
    "OBJ_BG": "main_split/{}_objectdataset.h5",
    "OBJ_ONLY": "main_split_nobg/{}_objectdataset.h5",
    "PB_T25": "main_split/{}_objectdataset_augmented25_norot.h5",
    "PB_T25_R": "main_split/{}_objectdataset_augmented25rot.h5",
    "PB_T50_R": "main_split/{}_objectdataset_augmentedrot.h5",
    "PB_T50_RS": "main_split/{}_objectdataset_augmentedrot_scale75.h5",
}

# PyG types an item as a union, on which no attribute can be read.
open_scans: Any = ScanObjectNN


def write(path: Path, seed: int = 0, **changes: np.ndarray | None) -> None:
    generator = np.random.default_rng(seed)
    arrays = {
        "data": generator.normal(size=(4, 32, 3)).astype(np.float32),
        "label": np.array([0, 14, 3, 3], np.int32),
        "mask": generator.integers(-1, 2, size=(4, 32)).astype(np.int32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                file[name] = array


@pytest.mark.parametrize("variant", FILES)
@pytest.mark.parametrize(("split", "word"), [("train", "training"), ("test", "test")])
def test_every_variant_has_its_file(tmp_path, variant, split, word):
    path = tmp_path / "h5_files" / FILES[variant].format(word)
    write(path)
    dataset = open_scans(tmp_path, split, variant=variant, normalize=False)
    assert repr(dataset) == "ScanObjectNN(4)"
    assert dataset.labels.tolist() == [0, 14, 3, 3]
    assert dataset.num_classes == 15
    assert dataset.class_names[14] == "toilet"
    with h5py.File(path) as file:
        assert np.array_equal(dataset[1].pos.numpy(), np.asarray(file["data"])[1])
    assert dataset[2].sample_id.tolist() == [2]
    assert dataset[1:3].labels.tolist() == [14, 3]


def test_partitions_masks_and_normalization(tmp_path):
    write(tmp_path / "split3_nobg" / "test_objectdataset.h5")
    arguments = {"variant": "OBJ_ONLY", "partition": "split3", "mask": True}
    dataset = open_scans(tmp_path, "test", **arguments)
    item = dataset[0]
    assert item.pos.norm(dim=1).max() == pytest.approx(1)
    assert item.seg.dtype == torch.long
    with h5py.File(tmp_path / "split3_nobg" / "test_objectdataset.h5") as file:
        assert item.seg.tolist() == (np.asarray(file["mask"])[0] != -1).astype(int).tolist()
    assert "seg" not in open_scans(tmp_path, "test", **{**arguments, "mask": False})[0]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"split": "val"}, r"'split' to be one of \['train', 'test'\]"),
        ({"variant": "PB"}, "'variant' to be one of"),
        ({"partition": "split9"}, "'partition' to be one of"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        open_scans(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"label": None}, r"to have the key 'label' \(got \['data', 'mask'\]\)"),
        ({"data": np.zeros((4, 32))}, r"'data' of .* to be \[M, n, 3\]"),
        ({"data": np.full((4, 32, 3), np.nan)}, "'data' of .* to be finite"),
        ({"label": np.zeros(3, int)}, r"4 labels in .* \(got 3\)"),
        ({"label": np.full(4, 15)}, r"'label' of .* to lie in \[0, 14\] \(got 15 to 15\)"),
        ({"label": np.full(4, 0.5)}, r"'label' of .* to be whole numbers \(got 0.5\)"),
        ({"label": np.full(4, np.nan)}, r"'label' of .* to be whole numbers \(got nan\)"),
        ({"mask": np.zeros((4, 3), int)}, "'mask' of"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, match):
    write(tmp_path / FILES["PB_T50_RS"].format("training"), **changes)
    with pytest.raises(ValueError, match=match):
        open_scans(tmp_path, mask=True)


def test_absent_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="training_objectdataset_augmentedrot_scale75"):
        open_scans(tmp_path)
    path = tmp_path / FILES["OBJ_BG"].format("training")
    path.parent.mkdir(parents=True)
    path.write_text("no hdf5")
    with pytest.raises(ValueError, match=r"objectdataset.h5' to be a readable .h5 file"):
        open_scans(tmp_path, variant="OBJ_BG")


def test_a_missing_extra_names_its_command(tmp_path, monkeypatch):
    write(tmp_path / FILES["OBJ_BG"].format("training"))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"'h5py' .* pip install 'pyg-peft\[io\]'"):
        open_scans(tmp_path, variant="OBJ_BG")
