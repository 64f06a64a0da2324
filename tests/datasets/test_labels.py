"""Labels where data enter (issue 12, B12): whole numbers in range, and -1 for none."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_peft.datasets import NpzShapes, PartLabels, SampleIds, few_shot_episode
from pyg_peft.datasets.labels import check_labels
from pyg_peft.datasets.part_labels import IGNORE_INDEX

open_set: Any = NpzShapes
CLOUDS = [np.random.default_rng(i).normal(size=(4, 3)) for i in range(2)]


def write(path, seg, **options):
    NpzShapes.write(path, CLOUDS, [0, 1], class_names=["a", "b"], seg=seg, **options)
    return path


def test_points_without_a_label(tmp_path):
    path = write(tmp_path / "a.npz", [[0, 1, -1, 2], [-1, -1, -1, -1]])
    dataset: Any = PartLabels(open_set(path))
    assert dataset.part_names == ("0", "1", "2")
    assert [item.y.tolist() for item in dataset] == [[0, 1, -1, 2], [IGNORE_INDEX] * 4]


def test_another_mark_for_no_label(tmp_path):
    seg = [np.array([0, 1, 255, 1], np.uint8), np.array([255, 0, 0, 0], np.uint8)]
    path = write(tmp_path / "a.npz", seg)
    with pytest.raises(ValueError, match=r"got 255, .*ignore_index=255 leaves it out"):
        PartLabels(open_set(path))
    options: Any = {"ignore_index": 255}
    datasets: Any = PartLabels(open_set(path), **options), PartLabels(open_set(path, **options))
    for dataset in datasets:
        assert dataset.num_classes == 2
        assert dataset.get(0).y.tolist() == [0, 1, -1, 1]


@pytest.mark.parametrize("wrong", [0.5, np.nan, -2])
def test_labels_of_points_out_of_range(tmp_path, wrong):
    seg = [[0, 1, 1, wrong], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"Expected 'seg\[0\]' to "):
        write(tmp_path / "a.npz", seg)
    arrays = {"xyz": np.stack(CLOUDS), "seg": np.array(seg, float)}
    np.savez(tmp_path / "b.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Expected 'seg' of '.*b\.npz' to "):
        open_set(tmp_path / "b.npz")
    items = [Data(pos=torch.rand(4, 3), seg=torch.tensor(seg[0]))]
    with pytest.raises(ValueError, match="the labels of points of item 0"):
        PartLabels(items, ["a", "b"]).get(0)


def test_parts_and_names_that_do_not_fit(tmp_path):
    seg = np.array([[0, 1, 2, 3], [0, 0, 0, 0]])
    arrays = {"xyz": np.stack(CLOUDS), "seg": seg, "part_names": np.array(["leg", "seat"])}
    np.savez(tmp_path / "a.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"'seg' of .* to lie in \[-1, 1\] \(got 0 to 3\)"):
        open_set(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", xyz=arrays["xyz"], seg=seg[:, :3])
    with pytest.raises(ValueError, match=r"'seg' of .* to be of shape \[2, 4\] \(got \[2, 3\]\)"):
        open_set(tmp_path / "a.npz")


@pytest.mark.parametrize("wrong", [[0.5, 1], [np.nan, 1], [0, 2], [0, -2]])
def test_labels_of_clouds(tmp_path, wrong):
    with pytest.raises(ValueError, match="Expected 'labels' to "):
        NpzShapes.write(tmp_path / "a.npz", CLOUDS, wrong, class_names=["a", "b"])
    xyz, names = np.stack(CLOUDS), np.array(["a", "b"])
    np.savez(tmp_path / "a.npz", xyz=xyz, label=np.array(wrong), class_names=names)
    with pytest.raises(ValueError, match=r"Expected 'label' of '.*a\.npz' to "):
        open_set(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", xyz=xyz, label=np.array([0, 255], np.uint8))
    with pytest.raises(ValueError, match="got 255, which often marks what has no label"):
        open_set(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", xyz=xyz, split=np.array([0, 7]))
    with pytest.raises(ValueError, match=r"'split' of .* to lie in \[-1, 2\]"):
        open_set(tmp_path / "a.npz", "train")


@pytest.mark.parametrize(
    "label", [1, 1.0, torch.tensor(1), torch.tensor([[1]]), torch.tensor([1], dtype=torch.int32)]
)
def test_one_label_in_any_form(label):
    items = [Data(pos=torch.rand(4, 3), y=label) for _ in range(2)]
    for dataset in (SampleIds(items), SampleIds(items, ["a", "b"])):
        assert dataset.labels.tolist() == [1, 1]
        y = dataset.get(0).y
        assert isinstance(y, torch.Tensor) and y.equal(torch.tensor([1]))


@pytest.mark.parametrize("label", [0.5, float("nan"), -1, torch.tensor([0.5]), "cup"])
def test_one_label_that_is_none(label):
    items = [Data(pos=torch.rand(4, 3), y=label)]
    with pytest.raises((ValueError, TypeError), match="Expected the label of item 0 to "):
        SampleIds(items)
    with pytest.raises((ValueError, TypeError), match="Expected 'labels' to "):
        few_shot_episode([label], num_ways=1, num_shots=1)


@pytest.mark.parametrize("label", [255, 65535, 10**6, 2**40])
def test_a_label_that_is_no_number_of_a_class(label, tmp_path):
    clouds = [Data(pos=torch.rand(4, 3), y=torch.tensor([y])) for y in (0, 1, label)]
    with pytest.raises(ValueError, match=f"the labels of 'dataset' to .*got {label}.*class_names"):
        SampleIds(clouds)
    points = [Data(pos=torch.rand(3, 3), seg=torch.tensor([0, 1, label]))]
    with pytest.raises(ValueError, match=f"got {label}.*ignore_index={label} leaves it out"):
        PartLabels(points)
    assert PartLabels(points, ignore_index=label).part_names == ("0", "1")
    xyz = np.random.default_rng(0).normal(size=(2, 4, 3))
    np.savez(tmp_path / "a.npz", xyz=xyz, label=np.array([0, label]))
    with pytest.raises(ValueError, match=f"'label' of .*got {label}"):
        open_set(tmp_path / "a.npz")


def test_an_item_of_no_class():
    class Changing(list[Data]):
        labels = torch.tensor([0])

    dataset = SampleIds(Changing([Data(pos=torch.rand(4, 3), y=torch.tensor([3]))]), ["a", "b"])
    with pytest.raises(ValueError, match=r"'y' of item 0 to lie in \[0, 1\] \(got 3 to 3\)"):
        dataset.get(0)


def test_types_of_labels():
    assert check_labels(np.array([True, False]), "it").tolist() == [1, 0]
    with pytest.raises(TypeError, match="Expected it to be numbers"):
        check_labels(np.array(["a"]), "it")
