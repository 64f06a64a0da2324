"""A data set in one file: long boxes and flat ones, each of random points in it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_peft.datasets import SampleIds
from pyg_peft.training import Splits, register_source

SHAPES = {"long": (4.0, 1.0, 1.0), "flat": (2.0, 2.0, 0.2)}


class Boxes(Dataset[Data]):
    """Items with positions and a label."""

    class_names = tuple(SHAPES)

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Data:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        label = index % len(SHAPES)
        pos = torch.rand(64, 3, generator=generator) * torch.tensor(SHAPES[self.class_names[label]])
        return Data(pos=pos, y=torch.tensor(label))


def open_boxes(rest: str, options: Mapping[str, Any]) -> Splits:
    train, test = SampleIds(Boxes(int(rest), seed=0)), SampleIds(Boxes(int(rest) // 2, seed=1))
    return Splits(train, None, test, train.class_names)


register_source("boxes", open_boxes, "boxes of two shapes, as many as the number says")
