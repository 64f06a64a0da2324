"""The data module of each task, and the registration of further tasks."""

from typing import Any

from pyg_peft.backbones.registry import HEADS
from pyg_peft.training.data.sources import Splits
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.segmentation import SegmentationDataModule
from pyg_peft.training.fitting.targets import MultiLabelDataModule, RegressionDataModule
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.multi_label import MultiLabelTask
from pyg_peft.training.tasks.registry import TASKS
from pyg_peft.training.tasks.regression import RegressionTask
from pyg_peft.training.tasks.segmentation import SegmentationTask

DATA_MODULES: dict[str, type[ShapeDataModule]] = {
    ClassificationTask.name: ShapeDataModule,
    SegmentationTask.name: SegmentationDataModule,
    RegressionTask.name: RegressionDataModule,
    MultiLabelTask.name: MultiLabelDataModule,
}


def register_task(task: type[Task], data_module: type[ShapeDataModule]) -> None:
    """Register your own task, for ``pyg-peft fit --task NAME`` and the adapters that it saves.

    Args:
        task: The task. Its ``name`` becomes the name of the option.
        data_module: The data module, whose property ``task`` returns an instance of ``task``, and
            whose ``open_splits`` opens a source with labels for it.

    Raises:
        TypeError: If an argument is another kind of class.
        ValueError: If the name is taken by another task, or ``head`` names no kind of backbone.

    Example:
        >>> from pyg_peft.training import (
        ...     ClassificationTask, ShapeDataModule, list_tasks, register_task)
        >>> class Smooth(ClassificationTask):
        ...     name = "smooth_classification"
        ...     def loss(self, scores, labels, label_smoothing=0.0):
        ...         return super().loss(scores, labels, max(label_smoothing, 0.3))
        >>> class SmoothData(ShapeDataModule):
        ...     @property
        ...     def task(self):
        ...         return Smooth(self.num_classes)
        >>> register_task(Smooth, SmoothData)
        >>> "smooth_classification" in list_tasks()
        True
    """
    if getattr(task, "__abstractmethods__", None):
        raise TypeError(
            f"Expected 'task' to implement {', '.join(sorted(task.__abstractmethods__))} "
            f"(got {task!r}, which does not)"
        )
    for name, kind, base in (("task", task, Task), ("data_module", data_module, ShapeDataModule)):
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise TypeError(f"Expected '{name}' to be a subclass of {base.__name__} (got {kind!r})")
    unset = [name for name in ("name", "head", "monitor") if not hasattr(task, name)]
    if unset:
        raise TypeError(f"Expected 'task' to set {', '.join(unset)} (got {task!r}, which does not)")
    registered = TASKS.get(task.name, task), DATA_MODULES.get(task.name, data_module)
    if registered != (task, data_module):
        raise ValueError(f"Expected a name that is free (got {task.name!r}, which is taken)")
    if task.head not in HEADS:
        raise ValueError(
            f"Expected 'head' of {task.__name__} to be one of {', '.join(HEADS)} "
            f"(got {task.head!r})"
        )
    TASKS[task.name] = task
    DATA_MODULES[task.name] = data_module


def wrap_splits(task: str, splits: Splits, **options: Any) -> ShapeDataModule:
    """Return the data module of a task for opened splits.

    Args:
        task: Name of the task.
        splits: Splits that its data module's ``open_splits`` returned.
        options: Arguments of the data module.

    Raises:
        TypeError: If the data module gives another task than it was registered for.
    """
    own = {name: options.pop(name, None) for name in ("task_args", "balanced_sampling")}
    options |= {name: value for name, value in own.items() if value}  # others need not take them
    data = DATA_MODULES[task].from_source(splits, data_args={}, **options)
    if type(data.task) is not TASKS[task]:
        raise TypeError(
            f"Expected 'task' of {type(data).__name__} to be a {TASKS[task].__name__}, as it was "
            f"registered (got a {type(data.task).__name__})"
        )
    return data


__all__ = ["DATA_MODULES", "register_task", "wrap_splits"]
