"""Evaluate a saved adapter; on the data of its own run this gives the number that fit printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.cli.device import find_device
from pyg_peft.cli.fit import groups_of
from pyg_peft.cli.result import RESULT, read_run
from pyg_peft.cli.saved import Saved, open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.datasets.sample_ids import class_names_of
from pyg_peft.errors import check_count
from pyg_peft.training.data.fingerprint import data_fingerprint
from pyg_peft.training.data.sources import Splits, check_recorded, is_own
from pyg_peft.training.fitting.tasks import DATA_MODULES, wrap_splits
from pyg_peft.training.tasks.contract import Scored

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SPLITS = ("val", "test")


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
    device: str = "auto",
    preprocessing: dict[str, Any] | None = None,
    class_names: list[str] | None = None,
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
        device: "auto" for a GPU if there is one, "cpu", "cuda", "cuda:1" and so on.
        preprocessing: Settings that replace those recorded in the adapter, for example
            {"num_points": 1024}.
        class_names: Names of the classes that replace those recorded in the adapter.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected 'split' to be one of {SPLITS} (got {split!r})")
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    place = find_device(device)
    saved = open_adapter(
        adapter, backbone, backbone_args or {}, preprocessing=preprocessing, class_names=class_names
    )
    saved.model.to(place)
    recorded = Path(adapter) / RESULT
    past = read_run(recorded)
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
    held: dict[str, Any] = {}
    if own:
        held = _held_out(splits, past, split)
    else:
        splits = splits.for_evaluation()
    _check_classes(splits, saved)
    module = wrap_splits(
        saved.task,
        splits,
        preprocessing=saved.preprocessing,
        batch_size=batch_size or past.get("batch_size", 32),
        val_fraction=past.get("val_fraction", 0.15),
        **held,
        seed=past.get("seed", 0),
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
    _show(result, saved, per_class=per_class)
    return result


def _show(result: Scored, saved: Saved, *, per_class: bool) -> None:
    """Print the lines after the first: the task's own, and the accuracy of each class."""
    for line in result.table():
        say(printable(line))
    if per_class:
        names = [printable(name) for name in saved.class_names]
        width = max(len(name) for name in names)
        for name, (right, count) in zip(names, result.per_class(), strict=True):
            say(f"  {name:{width}s} {100 * right / max(1, count):6.2f} % of {count}")


def _held_out(splits: Splits, past: dict[str, Any], split: str) -> dict[str, Any]:
    """Return the arguments of ``wrap_splits`` with which the run held out its test set.

    Raises:
        ValueError: If the data have changed since the run, and the split was drawn from them.
    """
    data, fraction = past["data"], past.get("test_fraction", 0.0)
    drawn = splits.val is None if split == "val" else fraction > 0
    recorded = past.get("data_fingerprint")
    if recorded is not None and recorded != data_fingerprint(splits, data):
        if drawn:
            raise ValueError(
                f"Expected the data of the run in '{data}', from which its {split} split was drawn "
                "(got other files or labels): predict applies the adapter to new files, and "
                "--data tests on another folder"
            )
        say(f"'{data}' has changed since the run")
    return {
        "test_fraction": fraction,
        "test_seed": past.get("test_seed", 0),
        "groups": groups_of(splits.train, past.get("group_field")),
    }


def _default_args(
    data: str | None, past: dict[str, Any], recorded: Path, saved: Saved
) -> dict[str, Any]:
    """Return the arguments of a data set if none are given: those of the run, or of its files."""
    # A user may name their own class; a file may only name data to read.
    if data is None or (data == past.get("data") and not is_own(data)):
        data_args = past.get("data_args", {})
        check_recorded(past["data"], data_args, recorded)
        return dict(data_args or {})
    is_scene = "label_field" in saved.read_args
    return saved.read_args if is_scene or Path(data).is_dir() else {}


def _check_classes(splits: Splits, saved: Saved) -> None:
    found = tuple(class_names_of(splits.test if splits.test is not None else splits.train))
    if found != saved.class_names:
        raise ValueError(
            f"Expected 'data' to have the adapter's classes {saved.class_names} (got {found})"
        )
