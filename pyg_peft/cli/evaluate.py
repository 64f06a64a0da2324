"""Evaluate a saved adapter; on the data of its own run this gives the number that fit printed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.cli.fit import RESULT, groups_of
from pyg_peft.cli.saved import Saved, open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.datasets.sample_ids import class_names_of
from pyg_peft.errors import check_count
from pyg_peft.training.data.sources import Splits, check_recorded, is_own
from pyg_peft.training.fitting.tasks import DATA_MODULES, wrap_splits
from pyg_peft.training.tasks.contract import Scored

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SPLITS = ("val", "test")
# Settings of a run that are read besides its data, and their types.
_RECORDED: dict[str, type] = {
    "batch_size": int,
    "seed": int,
    "val_fraction": float,
    "precision": str,
}


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`."""
    parser.add_function_arguments(run, as_positional=True)


def run(
    adapter: str,
    data: str | None = None,
    data_args: dict[str, Any] | None = None,
    backbone: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    split: str = "test",
    batch_size: int | None = None,
    precision: str | None = None,
    per_class: bool = False,
) -> Scored:
    """Evaluate a saved adapter.

    Args:
        adapter: Folder written by fit.
        data: As in fit; by default the data of the run. Other data need only a test split; if they
            have no splits, all clouds are tested.
        data_args: As in fit; by default those of the run. For another folder of shapes, the default
            is how the training files were read.
        backbone: Weights of the base; by default those recorded in the adapter.
        backbone_args: Constructor arguments that replace the recorded ones.
        split: "test", or "val" for the split of the training set that selected the epoch.
        batch_size: Number of clouds per batch; by default that of the run.
        precision: 32-true, bf16-mixed or 16-mixed; by default that of the run.
        per_class: Whether to also print the accuracy of each class.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected 'split' to be one of {SPLITS} (got {split!r})")
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    saved = open_adapter(adapter, backbone, backbone_args or {})
    recorded = Path(adapter) / RESULT
    past = _past(recorded)
    if data is None and "data" not in past:
        raise ValueError(f"Expected 'data' to be given, since '{recorded}' is missing (got None)")
    own = data is None or data == past.get("data")
    if data_args is None:
        data_args = _default_args(data, past, recorded, saved)
    elif data is None:
        check_recorded(past["data"], {}, recorded)
    splits = DATA_MODULES[saved.task].open_splits(
        past["data"] if data is None else data, **data_args
    )
    whole = splits.whole and not own and split == "test"
    if not own:
        splits = splits.for_evaluation()
    _check_classes(splits, saved)
    module = wrap_splits(
        saved.task,
        splits,
        preprocessing=saved.preprocessing,
        batch_size=batch_size or past.get("batch_size", 32),
        val_fraction=past.get("val_fraction", 0.15),
        groups=groups_of(splits.train, past.get("group_field")) if own else None,
        seed=past.get("seed", 0),
        task_args=saved.task_settings,
    )
    loader = module.val_dataloader() if split == "val" else module.test_dataloader()
    result = module.task.evaluate(
        saved.model,
        loader,
        precision=precision or past.get("precision", "32-true"),
        progress=split,
    )
    if whole:
        say(f"'{data}' has no splits: all of its clouds are tested")
    say(f"{'validation' if split == 'val' else split} {result}")
    if per_class:
        names = [printable(name) for name in saved.class_names]
        width = max(len(name) for name in names)
        for name, (right, count) in zip(names, result.per_class(), strict=True):
            say(f"  {name:{width}s} {100 * right / max(1, count):6.2f} % of {count}")
    return result


def _default_args(
    data: str | None, past: dict[str, Any], recorded: Path, saved: Saved
) -> dict[str, Any]:
    """Return the arguments of a data set if none are given: those of the run, or of its files."""
    # A user may name their own class; a file may only name data to read.
    if data is None or (data == past.get("data") and not is_own(data)):
        data_args = past.get("data_args", {})
        check_recorded(past["data"], data_args, recorded)
        return dict(data_args or {})
    return saved.read_args if Path(data).is_dir() else {}


def _check_classes(splits: Splits, saved: Saved) -> None:
    found = tuple(class_names_of(splits.test if splits.test is not None else splits.train))
    if found != saved.class_names:
        raise ValueError(
            f"Expected 'data' to have the adapter's classes {saved.class_names} (got {found})"
        )


def _past(path: Path) -> dict[str, Any]:
    """Return the recorded settings of the run in the adapter's folder, if there are any."""
    if not path.is_file():
        return {}
    try:
        run: Any = json.loads(path.read_text(encoding="utf-8"))["run"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"Expected '{path}' to be as fit wrote it (got: {error})") from error
    if not isinstance(run, dict):
        raise ValueError(f"Expected '{path}' to be as fit wrote it (got {run!r} under 'run')")
    for name, kind in _RECORDED.items():
        value = run.get(name, kind())
        if not isinstance(value, (kind, int) if kind is float else kind) or value is True:
            raise ValueError(
                f"Expected 'run.{name}' in '{path}' to be {kind.__name__} (got {value!r})"
            )
    if not isinstance(run.get("group_field"), str | None):
        raise ValueError(
            f"Expected 'run.group_field' in '{path}' to be str or null (got {run['group_field']!r})"
        )
    return run
