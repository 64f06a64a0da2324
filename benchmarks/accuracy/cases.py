"""From a slot of the plan to training, validation and test clouds."""

from pathlib import Path
from typing import Any

import torch
from plan import Slot, Task
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_peft.datasets import (
    FewShotSubset,
    NpzShapes,
    ScaleTranslate,
    UpRotate,
    few_shot_episode,
    keyed_generator,
)
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.training.comparing.draws import resample
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.segmentation import SegmentationDataModule

AUGMENTATIONS = {"scale_translate": ScaleTranslate, "rotate": UpRotate, "none": lambda: None}


def open_case(
    folder: Path,
    task: Task,
    slot: Slot,
    training: dict[str, Any],
    axes: tuple[int, int, int] = (0, 1, 2),
) -> ShapeDataModule:
    """The splits of one run; which clouds are in them depends on the task, seed and fold only."""
    path = folder / task.file
    options: dict[str, Any] = {"normalize": False, "transform": OrderAxes(axes), **task.options}
    settings: dict[str, Any] = {
        "preprocessing": Preprocessing(training["num_points"]),
        "augmentation": AUGMENTATIONS[training["augmentation"]](),
        "num_views": training["num_views"],
        "batch_size": training["batch_size"],
        "val_fraction": training["val_fraction"],
        "seed": slot.seed,
    }
    if task.test_fraction is not None:
        whole: Any = NpzShapes(path, None, **options)
        rows = resample(whole.labels, task.test_fraction, training["val_fraction"], slot.seed)
        train, val, test = (whole[part] for part in rows)
        return ShapeDataModule(train, val, test, class_names=whole.class_names, **settings)
    fold = {} if slot.fold is None else {"fold": slot.fold}
    train: Any = NpzShapes(path, "train", **fold, **options)
    test: Any = NpzShapes(path, "test", **fold, **options)
    if task.categories:
        train, test = (of_categories(shapes, task.categories) for shapes in (train, test))
    if task.ways is not None:
        return ShapeDataModule(*episode(train, test, task, slot.seed), **settings)
    if task.per_class is not None:  # of a category, where points are labeled
        train = train[first_of_each(train.labels, task.per_class)]
    groups = None
    if task.group_field is not None:
        names = train.field(task.group_field).tolist()
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        groups = torch.tensor([number[name] for name in names])
    if task.parts:
        return SegmentationDataModule(train, None, test, groups=groups, **settings)
    return ShapeDataModule(
        train, None, test, class_names=train.class_names, groups=groups, **settings
    )


class OrderAxes(BaseTransform):
    """Put the coordinates into the order that weights were trained with."""

    def __init__(self, axes: tuple[int, int, int]) -> None:
        self.axes = list(axes)

    def forward(self, data: Data) -> Data:
        data.pos = data.pos[:, self.axes]  # pyright: ignore[reportOptionalSubscript]
        return data


def of_categories(shapes: Any, names: tuple[str, ...]) -> Any:
    """The shapes of the categories that are named.

    Raises:
        ValueError: the data have no such category.
    """
    if strange := sorted(set(names) - set(shapes.class_names)):
        raise ValueError(f"Expected 'categories' of the data (got {', '.join(strange)})")
    wanted = torch.tensor([shapes.class_names.index(name) for name in names])
    return shapes[torch.isin(shapes.labels, wanted).nonzero().flatten()]


def first_of_each(labels: Tensor, per_class: int) -> Tensor:
    """A fixed draw of ``per_class`` rows a class, the same for every seed."""
    rows: list[Tensor] = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        generator = keyed_generator("benchmark subset", label)
        rows.append(own[torch.randperm(len(own), generator=generator)[:per_class]])
    return torch.cat(rows).sort().values


def episode(train: Any, test: Any, task: Task, seed: int) -> tuple[Any, Any, Any]:
    """Support and validation queries from the training split, test queries from the test split."""
    if task.ways is None or task.shots is None:
        raise ValueError("Expected 'ways' and 'shots' to be given (got None)")
    drawn = few_shot_episode(
        train.labels,
        num_ways=task.ways,
        num_shots=task.shots,
        num_queries=task.queries,
        episode=seed,
    )
    queries: list[Tensor] = []
    for label in drawn.classes:
        own = (test.labels == label).nonzero().flatten()
        generator = keyed_generator("benchmark queries", seed, label)
        queries.append(own[torch.randperm(len(own), generator=generator)[: task.queries]])
    return (
        FewShotSubset(train, drawn.support, drawn.classes),
        FewShotSubset(train, drawn.query, drawn.classes),
        FewShotSubset(test, torch.cat(queries), drawn.classes),
    )
