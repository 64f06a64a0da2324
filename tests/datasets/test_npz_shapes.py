"""Sets in one .npz: both forms, selections, what is written comes back, bad files are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import NpzShapes, train_val_split

# PyG types an item as a union, on which no attribute can be read.
open_set: Any = NpzShapes


def clouds(*sizes: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(size, 3)) for size in sizes]


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    path = tmp_path / "ragged.npz"
    sizes = (5, 1, 8, 3, 6, 4)
    NpzShapes.write(
        path,
        clouds(*sizes),
        [0, 2, 2, 0, 1, -1],
        class_names=["car", "pole", "tree"],
        split=["train", "test", "train", "test", "train", "train"],
        fold=[0, 1, 1, 0, 2, -1],
        group=[7, 8, 7, 9, 9, 7],
        ids=list("abcdef"),
        seg=[np.arange(size) for size in sizes],
        channels={"intensity": [np.full(size, 0.5) for size in sizes]},
    )
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    path = tmp_path / "fixed.npz"
    xyz = np.arange(4 * 6 * 3, dtype=np.int16).reshape(4, 6, 3)
    arrays: Any = {"label": np.array([0, 1, 1, 0], np.uint8), "class_names": np.array(["a", "b"])}
    coarse: Any = {"coarse_label": np.array([0, 0, -1, 0]), "coarse_names": np.array(["all"])}
    np.savez(path, xyz=xyz, scale=np.float32(0.5), **arrays, **coarse)
    return path


def test_fixed_size_is_scaled(fixed):
    dataset = open_set(fixed, normalize=False)
    assert repr(dataset) == "NpzShapes(4)"
    expected = torch.arange(18, 36).reshape(6, 3) * 0.5
    assert torch.equal(dataset[1].pos, expected)
    assert dataset[1].pos.dtype == torch.float32
    assert dataset.labels.tolist() == [0, 1, 1, 0]


def test_what_is_written_comes_back(ragged):
    dataset = open_set(ragged, normalize=False, channels=["intensity"])
    assert dataset.class_names == ("car", "pole", "tree")
    assert dataset.labels.tolist() == [0, 2, 2, 0, 1]  # the unlabeled cloud is left out
    for item, cloud in zip(dataset, clouds(5, 1, 8, 3, 6), strict=True):
        torch.testing.assert_close(item.pos, torch.from_numpy(cloud).float())
        assert item.seg.tolist() == list(range(len(cloud)))
        assert item.x.tolist() == [[0.5]] * len(cloud)
    assert dataset.field("ids").tolist() == list("abcde")
    assert dataset.field("group").tolist() == [7, 8, 7, 9, 9]
    assert not list(ragged.parent.glob(".*"))  # no temporary file stays


def test_splits_keep_identities(ragged):
    train, test = open_set(ragged, "train"), open_set(ragged, "test")
    assert train.sample_ids.tolist() == [0, 2, 4]
    assert test.sample_ids.tolist() == [1, 3]
    assert [int(item.sample_id) for item in test] == [1, 3]
    assert train.class_names == test.class_names
    assert train[[2]].labels.tolist() == [1]
    assert train[[2]].sample_ids.tolist() == [4]


def test_folds_are_test_sets(ragged):
    train, test = open_set(ragged, "train", fold=0), open_set(ragged, "test", fold=0)
    assert train.sample_ids.tolist() == [1, 2, 4]
    assert test.sample_ids.tolist() == [0, 3]
    assert len(open_set(ragged, fold=0)) == 5


def test_classes_below_a_count_are_dropped_in_all_splits(ragged):
    train = open_set(ragged, "train", min_count=2)
    assert train.class_names == ("car", "tree")
    assert train.labels.tolist() == [0, 1]
    assert open_set(ragged, min_split_count=1).class_names == ("car", "tree")
    assert len(open_set(ragged, min_count=9)) == 0


def test_other_labels(fixed):
    dataset = open_set(fixed, label_field="coarse_label")
    assert dataset.class_names == ("all",)
    assert dataset.sample_ids.tolist() == [0, 1, 3]


def test_subset_of_points_is_the_same_each_time(ragged):
    dataset = open_set(ragged, num_points=4, channels=["intensity"], normalize=False)
    assert [item.num_nodes for item in dataset] == [4, 1, 4, 3, 4]
    assert torch.equal(dataset[2].pos, dataset[2].pos)
    whole = open_set(ragged, normalize=False)[2]
    assert torch.equal(dataset[2].pos, whole.pos[dataset[2].seg])
    assert open_set(ragged, num_points=4)[2].pos.mean(dim=0).abs().max() < 1e-6


def test_normalized_by_default(ragged):
    for item in open_set(ragged):
        assert item.pos.dtype == torch.float32
        assert item.pos.norm(dim=1).max() == pytest.approx(0 if len(item.pos) == 1 else 1)


def test_absent_channels(ragged):
    with pytest.raises(ValueError, match=r"of \['intensity', 'seg'\].*\(got \['color'\]\)"):
        open_set(ragged, channels=["color"])
    item = open_set(ragged, channels=["color", "intensity"], fill=-1.0)[0]
    assert item.x[0].tolist() == [-1.0, 0.5]


def test_batches_of_ragged_clouds(ragged):
    batch = next(iter(DataLoader(open_set(ragged, channels=["intensity"]), batch_size=5)))
    assert batch.ptr.tolist() == [0, 5, 6, 14, 17, 23]
    assert batch.y.shape == batch.sample_id.shape == (5,)
    assert batch.x.shape == (23, 1)


def test_no_labels_are_one_class(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=np.random.rand(2, 5, 3))
    assert open_set(tmp_path / "a.npz").class_names == ("shape",)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"split": "test", "fold": 5}, r"'fold' to be one of \[0, 1, 2\] \(got 5\)"),
        ({"split": "val"}, r"of \['test', 'train'\] \(got 'val'\)"),
        ({"split": "dev"}, "'split' to be one of"),
        ({"label_field": "coarse_label"}, "to have the field 'coarse_label'"),
        ({"num_points": 0}, "'num_points' to be >= 1"),
    ],
)
def test_bad_selections_are_named(ragged, arguments, match):
    with pytest.raises(ValueError, match=match):
        open_set(ragged, **arguments)


XYZ = np.zeros((2, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"pos": XYZ}, r"bad.npz' to have the field 'xyz' \(got \['pos'\]\)"),
        ({"xyz": XYZ[0]}, r"'xyz' of .*bad.npz' to be \[M, n, 3\] \(got \[4, 3\]\)"),
        ({"xyz": XYZ.astype(np.int16)}, "integers with a 'scale'"),
        ({"xyz": XYZ * np.nan}, "'xyz' of .* to be finite"),
        ({"xyz": XYZ[0], "offsets": np.array([0, 3])}, "'offsets' of .* to run from 0 to 4"),
        ({"xyz": XYZ[0], "offsets": np.array([0, 3, 2, 4])}, "'offsets' of .* not to decrease"),
        ({"xyz": XYZ, "label": np.zeros(3, int)}, r"'label' of .* shape \[2\] \(got \[3\]\)"),
        (
            {"xyz": XYZ, "label": np.array([0, 4]), "class_names": np.array(["a", "b"])},
            r"'label' of .* to index 'class_names', 0 to 1 \(got 4\)",
        ),
        ({"xyz": XYZ, "label": np.array([None, 1])}, "readable .npz file"),
    ],
)
def test_damaged_files_are_named(tmp_path, arrays, match):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=match):
        open_set(path)


def test_no_file_and_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_set(tmp_path / "absent.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"cut.npz' to be a readable .npz file"):
        open_set(tmp_path / "cut.npz")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": [0]}, r"'labels' to be of shape \[2\]"),
        ({"labels": [0, 3]}, r"'labels' to lie in \[-1, 0\]"),
        ({"clouds": [np.zeros((2, 2)), np.zeros((3, 3))]}, r"'clouds\[0\]' to be of shape"),
        ({"clouds": [np.zeros((3, 3)), np.full((3, 3), np.inf)]}, r"'clouds\[1\]' to be finite"),
        ({"clouds": [np.arange(9.0).reshape(3, 3) / 9 + 6e6] * 2}, "subtract its mean in float64"),
        ({"split": ["train", "dev"]}, r"'split' to hold names of .* \(got \['dev'\]\)"),
        ({"fold": [1]}, r"'fold' to be of shape \[2\]"),
        ({"seg": [np.zeros(2), np.zeros(3)]}, "'seg' to have as many rows as each cloud"),
        ({"channels": {"label": []}}, "to avoid the field names"),
    ],
)
def test_writer_refuses_what_does_not_fit(tmp_path, changes, match):
    arguments = {"clouds": clouds(3, 3), "labels": [0, 0], "class_names": ["a"]} | changes
    with pytest.raises(ValueError, match=match):
        NpzShapes.write(tmp_path / "set.npz", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [
        ("bimnet10/bimnet10", 216, 10),
        ("cattle_parts/cattle_parts", 75, 1),
        ("lsood/lsood", 513, 4),
        ("psb_segmentation/psb_segmentation", 302, 19),
        ("sydney_urban_objects/sydney", 476, 26),
        ("tiny/tiny_modelnet10", 340, 10),
    ],
)
def test_shared_sets(shared_dir, name, size, classes):
    dataset = open_set(shared_dir / "data" / f"{name}.npz")
    assert (len(dataset), dataset.num_classes) == (size, classes)
    assert dataset.labels.shape == (size,)
    for item in (dataset[0], dataset[size - 1]):
        assert item.pos.norm(dim=1).max() == pytest.approx(1, abs=1e-4)
        assert item.pos.mean(dim=0).abs().max() < 1e-4


def test_sydney_folds_and_intensity(shared_dir):
    path = shared_dir / "data" / "sydney_urban_objects" / "sydney.npz"
    sizes: list[tuple[int, int]] = []
    for fold in range(3):
        train = open_set(path, "train", fold=fold, channels=["intensity"])
        test = open_set(path, "test", fold=fold)
        assert train.num_classes == test.num_classes == 14
        assert not set(train.sample_ids.tolist()) & set(test.sample_ids.tolist())
        assert train[0].x.shape == (train[0].num_nodes, 1)
        sizes.append((len(train), len(test)))
    assert sizes == [(287, 146), (278, 155), (301, 132)]


def test_lsood_groups_stay_whole(shared_dir):
    path = shared_dir / "data" / "lsood" / "lsood.npz"
    train, test = open_set(path, "train"), open_set(path, "test")
    assert not set(train.field("group")) & set(test.field("group"))
    groups = torch.from_numpy(train.field("group").astype(np.int64))
    kept, val = train_val_split(train.labels, 0.2, groups=groups)
    assert not set(groups[kept].tolist()) & set(groups[val].tolist())
    assert min(train.labels[val].bincount(minlength=4)) >= 5


def test_princeton_subsets(shared_dir):
    path = shared_dir / "data" / "psb" / "psb.npz"
    train = open_set(path, "train", min_split_count=1)
    assert (len(train), train.num_classes) == (369, 21)
    infomr = open_set(path, label_field="infomr_label", min_count=15)
    assert (len(infomr), infomr.num_classes) == (1211, 34)
