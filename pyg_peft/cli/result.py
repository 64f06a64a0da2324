"""Write and read ``result.json``, which holds the numbers of a run and all that reproduces it."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pyg_peft.model import PeftModel
from pyg_peft.storage import remove_leftovers, write_atomic
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import FitReport
from pyg_peft.tuners.engine.saving import base_fingerprint

RESULT = "result.json"
# Packages whose versions may change a result.
_PACKAGES = ("pyg_peft", "torch", "torch_geometric", "lightning", "numpy", "scipy", "fpsample")
# Settings of a run that are read besides its data, and their types.
_RECORDED: dict[str, type] = {
    "batch_size": int,
    "seed": int,
    "test_seed": int,
    "val_fraction": float,
    "test_fraction": float,
    "precision": str,
}


def write_result(
    report: FitReport,
    model: PeftModel,
    data: ShapeDataModule,
    folder: Path,
    run: dict[str, Any],
) -> None:
    """Write the numbers of a run with its settings, data, versions and curves.

    Args:
        report: What ``fit`` returned.
        model: The trained model.
        data: The data module.
        folder: Folder of the run.
        run: Options of the command by name, as JSON values.
    """
    config = model.peft_config[model.active_adapter or ""]
    bank = model.memory_bank
    counts = model.count_parameters()
    content: dict[str, Any] = {
        "run": run,
        "versions": versions(),
        "method_settings": config.to_dict(),
        "base_fingerprint": base_fingerprint(model.base, config),
        "parameters": {
            "trainable": counts.trainable,
            "head": counts.head,
            "frozen": counts.frozen,
        },
        "class_names": list(data.class_names),
        "clouds": {
            "train": len(data.train_set),
            "val": len(data.val_set),
            "test": 0 if data.test_set is None else len(data.test_set),
        },
        "bank_rows": 0 if bank is None else len(bank),
        "kept_epoch": report.epoch,
        "chosen_by": report.chosen_by,
        "extended": list(report.extended),
    }
    for name, found in (("val", report.val), ("test", report.test)):
        if found is not None:
            content[name] = found.record()
    content["curves"] = report.curves
    text = json.dumps(content, indent=2, default=str) + "\n"
    remove_leftovers(folder, RESULT)
    write_atomic(folder / RESULT, lambda path: path.write_text(text))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may change a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_run(path: Path) -> dict[str, Any]:
    """Return the recorded settings of a run; empty without a file.

    Raises:
        ValueError: If the file is not as :func:`write_result` wrote it.
    """
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
    for name in ("group_field", "data_fingerprint"):
        if not isinstance(run.get(name), str | None):
            raise ValueError(
                f"Expected 'run.{name}' in '{path}' to be str or null (got {run[name]!r})"
            )
    return run


__all__ = ["RESULT", "read_run", "versions", "write_result"]
