"""The data module of each task, and the registration of further tasks."""

from typing import Any

from pyg_peft.backbones.registry import HEADS
from pyg_peft.datasets import SceneFolder
from pyg_peft.training.data.sources import Splits
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.scenes import SceneDataModule
from pyg_peft.training.fitting.segmentation import SegmentationDataModule
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.registry import TASKS
from pyg_peft.training.tasks.scene import SceneTask
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


def wrap_splits(
    task: str,
    splits: Splits,
    *,
    test_fraction: float = 0.0,
    test_seed: int = 0,
    groups: Any = None,
    **options: Any,
) -> ShapeDataModule:
    """Return the data module of a task for opened splits.

    Args:
        task: Name of the task.
        splits: Splits that its data module's ``open_splits`` returned.
        test_fraction: Share of the training split that is held out as the test set, see
            :meth:`Splits.hold_out_test`; 0 for none.
        test_seed: Key of the held-out test set.
        groups: One number per training cloud. Clouds of one group stay in one split.
        options: Further arguments of the data module.

    Raises:
        TypeError: If the data module gives another task than it was registered for.
        ValueError: If the fraction is outside [0, 1), or there is a test split already.
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(
            "Expected 'test_fraction' to lie between 0 and 1, or to be 0 to train on everything "
            f"(got {test_fraction})"
        )
    if splits.test is not None and test_fraction > 0:
        raise ValueError(
            "Expected 'test_fraction' to be 0 for data with a test split of their own "
            f"(got {test_fraction})"
        )
    is_scene = isinstance(splits.train, SceneFolder)
    module = SceneDataModule if is_scene else DATA_MODULES[task]
    if is_scene:
        options |= {"test_fraction": test_fraction, "test_seed": test_seed}
    elif test_fraction > 0:
        splits, groups = splits.hold_out_test(test_fraction, test_seed, groups=groups)
    data = module.from_source(splits, data_args={}, groups=groups, **options)
    if type(data.task) is not (SceneTask if is_scene else TASKS[task]):
        raise TypeError(
            f"Expected 'task' of {type(data).__name__} to be a {TASKS[task].__name__}, as it was "
            f"registered (got a {type(data.task).__name__})"
        )
    return data


__all__ = ["DATA_MODULES", "register_task", "wrap_splits"]
