"""Loading of a saved adapter onto its base, with the settings that it records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pyg_peft.cli.say import complain
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import CheckpointError
from pyg_peft.loading import load
from pyg_peft.model import PeftModel
from pyg_peft.tensor_file import short
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.registry import TASKS, list_tasks
from pyg_peft.tuners.engine.hub import find_adapter
from pyg_peft.tuners.engine.loading import read_whole
from pyg_peft.tuners.engine.saving import check_class_names


@dataclass(frozen=True)
class Saved:
    """A saved adapter with everything that prediction needs.

    Args:
        model: Base with the adapter, in eval mode.
        class_names: Names of the classes in the order of the logits.
        preprocessing: Preprocessing as in training.
        read_args: Arguments of ``read_points`` with which the training files were read.
        task: Name of the task.
        task_settings: Settings of the task, see ``Task.from_dict``.
    """

    model: PeftModel
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    read_args: dict[str, Any]
    task: str
    task_settings: dict[str, Any]

    def make_task(self) -> Task:
        """Return the task with its settings, for predictions."""
        return TASKS[self.task].from_dict(self.task_settings, self.class_names)


def open_adapter(
    folder: str,
    weights: str | None,
    settings: Mapping[str, Any],
    *,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Saved:
    """Load an adapter folder onto its base.

    Args:
        folder: Folder of the saved adapter, or its name on the Hub.
        weights: Weights of the base, as in ``open_backbone``; ``None`` for those recorded in the
            adapter.
        settings: Constructor arguments of the base that replace the recorded ones.
        preprocessing: Settings of the preprocessing that replace the recorded ones.
        class_names: Names of the classes that replace the recorded ones.

    Raises:
        CheckpointError: If a file is damaged, if the base is a different one, or if names and
            preprocessing are neither in the folder nor given.
        TypeError: If a setting has another type.
        ValueError: If there is not one name per score, or a setting of the preprocessing is unknown
            or out of range.
    """
    folder = str(find_adapter(folder))
    config = read_whole(folder).config
    given = _checked(preprocessing or {})
    if config.get("preprocessing") is None and preprocessing is None:
        raise CheckpointError(
            f"Expected '{folder}' to hold 'preprocessing' (got none): the option --preprocessing "
            "of predict and evaluate supplies it"
        )
    model = load(folder, backbone=weights, backbone_args=settings)
    recorded = {**(config.get("preprocessing") or {}), **given}
    names = tuple(class_names or config.get("class_names") or _numbered(model.base))
    read_args = recorded.get("read_args", {})  # older adapters have none
    if not isinstance(read_args, dict):
        raise CheckpointError(
            f"Expected 'preprocessing.read_args' in '{folder}' to be an object "
            f"(got {short(read_args)})"
        )
    # Older releases did not check this when saving.
    check_class_names(names, model.base, model.peft_config["default"])
    try:
        used = Preprocessing.from_dict(recorded)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{error}, in 'preprocessing' of '{folder}'") from error
    if recorded.get("assumed") and preprocessing is None:
        complain(
            f"'{folder}' was saved without its preprocessing: {used} is assumed, and "
            "--preprocessing gives another"
        )
    task = _task_of(model.base, recorded, folder)
    task_settings = _settings_of(task, recorded, names, folder)
    return Saved(model, names, used, dict(read_args), task, task_settings)


def _checked(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a ``Preprocessing``; raise for those that it does not have."""
    known = [entry.name for entry in fields(Preprocessing)]
    unknown = [name for name in preprocessing if name not in known]
    if unknown:
        raise ValueError(
            f"Expected 'preprocessing' to be among {', '.join(known)} (got {', '.join(unknown)})"
        )
    Preprocessing(**preprocessing)
    return dict(preprocessing)


def _numbered(base: Any) -> list[str]:
    """Return names for the classes of an adapter that was saved without any."""
    return [f"class {number}" for number in range(base.num_classes)]


def _settings_of(
    task: str, recorded: Mapping[str, Any], names: tuple[str, ...], folder: str
) -> dict[str, Any]:
    """Return the recorded settings of the task, from which it can be made; older ones have none."""
    settings = recorded.get("task_settings", {})
    try:
        if not isinstance(settings, dict):
            raise TypeError(f"Expected an object (got {short(settings)})")
        TASKS[task].from_dict(settings, names)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected 'preprocessing.task_settings' in '{folder}' to be settings of the task "
            f"{task} (got {short(settings)}: {error})"
        ) from error
    return settings


def _task_of(base: Any, recorded: Mapping[str, Any], folder: str) -> str:
    """Return the recorded task; older adapters have none, and their base has one of its own."""
    task = recorded.get("task_name", base.task)
    if not isinstance(task, str) or task not in TASKS or TASKS[task].head != base.task:
        raise CheckpointError(
            f"Expected 'preprocessing.task_name' in '{folder}' to be a task for a backbone for "
            f"{base.task}: {', '.join(list_tasks())} (got {short(task)}); the option --import "
            "loads a module that registers others"
        )
    return task


__all__ = ["Saved", "open_adapter"]
