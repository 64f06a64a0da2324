"""The data module of each task, and the registration of further tasks."""

from pyg_peft.backbones.registry import TASKS as HEADS
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.segmentation import SegmentationDataModule
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.registry import TASKS
from pyg_peft.training.tasks.segmentation import SegmentationTask

DATA_MODULES: dict[str, type[ShapeDataModule]] = {
    ClassificationTask.name: ShapeDataModule,
    SegmentationTask.name: SegmentationDataModule,
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
    for name, kind, base in (("task", task, Task), ("data_module", data_module, ShapeDataModule)):
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise TypeError(f"Expected '{name}' to be a subclass of {base.__name__} (got {kind!r})")
    if TASKS.get(task.name, task) is not task:
        raise ValueError(f"Expected a name that is free (got {task.name!r}, which is taken)")
    if task.head not in HEADS:
        raise ValueError(
            f"Expected 'head' of {task.__name__} to be one of {', '.join(HEADS)} "
            f"(got {task.head!r})"
        )
    TASKS[task.name] = task
    DATA_MODULES[task.name] = data_module


__all__ = ["DATA_MODULES", "register_task"]
