"""Identities on PyG's own data sets, made from tiny raw trees without any download."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Data
from torch_geometric.datasets import ModelNet, ShapeNet
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import Augmented, PartLabels, SampleIds

MODELNET10 = (
    "bathtub bed chair desk dresser monitor night_stand sofa table toilet".split()  # noqa: SIM905
)
TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 {}\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"

# PyG types an item as a union, on which no attribute can be read.
with_ids: Any = SampleIds
augment: Any = Augmented


@pytest.fixture
def modelnet(tmp_path: Path) -> ModelNet:
    for number, name in enumerate(MODELNET10):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "raw" / name / split
            folder.mkdir(parents=True)
            for shape in range(count):
                content = TETRAHEDRON.format(1 + number + 0.1 * shape)
                (folder / f"{name}_{shape:04d}.off").write_text(content)
    return ModelNet(str(tmp_path), name="10", train=True)


@pytest.fixture
def shapenet(tmp_path: Path) -> ShapeNet:
    raw = tmp_path / "raw"
    for folder in [*ShapeNet.category_ids.values(), "train_test_split"]:
        (raw / folder).mkdir(parents=True)
    ids = [ShapeNet.category_ids[name] for name in ("Cap", "Mug")]
    for split in ("train", "val", "test"):
        names = [f"shape_data/{folder}/{split}" for folder in ids]
        (raw / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(
            json.dumps(names)
        )
        for folder in ids:
            rows = [f"{i} {i * i % 3} 0 0 0 1 {6 + i % 2}" for i in range(5)]
            (raw / folder / f"{split}.txt").write_text("\n".join(rows) + "\n")
    return ShapeNet(str(tmp_path), categories=["Cap", "Mug"], split="train")


def test_modelnet(modelnet):
    dataset = with_ids(modelnet)
    assert len(dataset) == 20
    assert dataset.class_names == tuple(MODELNET10)
    assert dataset.labels.tolist() == [number // 2 for number in range(20)]
    assert dataset[::2].labels.tolist() == list(range(10))
    assert [int(item.sample_id) for item in dataset] == list(range(20))
    assert [int(item.sample_id) for item in dataset[5:8]] == [5, 6, 7]


def test_modelnet_with_keyed_sampling_in_a_loader(modelnet):
    dataset = augment(with_ids(modelnet), T.SamplePoints(16), seed=0)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch.pos.shape == (64, 3)
    assert batch.sample_id.tolist() == [0, 1, 2, 3]
    assert torch.equal(dataset[2].pos, batch.pos[32:48])


def test_shapenet(shapenet):
    dataset = with_ids(shapenet)
    assert dataset.class_names == ("Cap", "Mug")
    assert dataset.labels.tolist() == [0, 1]
    assert dataset[1].sample_id.tolist() == [1]
    assert dataset[1].y.tolist() == [6, 7, 6, 7, 6]


def test_names_default_to_numbers_and_are_checked():
    items = [Data(pos=torch.rand(4, 3), y=torch.tensor([label])) for label in (0, 2)]
    assert with_ids(items).class_names == ("0", "1", "2")
    assert with_ids([]).class_names == ()
    with pytest.raises(ValueError, match=r"'class_names' to name 3 classes \(got 2\)"):
        with_ids(items, ["a", "b"])
    bare = [Data(pos=torch.rand(4, 3))]
    with pytest.raises(ValueError, match="one label per item"):
        with_ids(bare).labels  # noqa: B018


class Endless(torch.utils.data.Dataset[Data]):
    """A data set as torch asks for one: with a length, and with an item for any number."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Data:
        if index >= 100:
            raise AssertionError("asked far behind the end")
        return Data(pos=torch.zeros(3, 3), y=torch.tensor(index % 2), seg=torch.tensor([0, 1, 1]))


def test_a_data_set_without_an_end_is_read_by_its_length():
    assert SampleIds(Endless()).labels.tolist() == [0, 1, 0, 1]
    assert len(list(SampleIds(Endless()))) == 4
    assert PartLabels(SampleIds(Endless())).part_names == ("0", "1")
