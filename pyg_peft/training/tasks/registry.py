"""The registry of tasks, by the names that ``--task`` and a saved adapter use."""

from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.multi_label import MultiLabelTask
from pyg_peft.training.tasks.regression import RegressionTask
from pyg_peft.training.tasks.segmentation import SegmentationTask

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (ClassificationTask, SegmentationTask, RegressionTask, MultiLabelTask)
}


def list_tasks() -> list[str]:
    """Return the names of all tasks.

    Example:
        >>> from pyg_peft.training import list_tasks
        >>> {"classification", "segmentation"} <= set(list_tasks())
        True
    """
    return sorted(TASKS)


def find_task(name: str) -> type[Task]:
    """Return the task of a name.

    Raises:
        ValueError: If there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"Expected 'task' to be one of {', '.join(list_tasks())} (got {name!r})")
    return TASKS[name]


__all__ = ["TASKS", "find_task", "list_tasks"]
