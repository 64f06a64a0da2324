"""Read how far a run has come, while another process may be writing it; nothing is written."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyg_peft.errors import CheckpointError
from pyg_peft.training.runs.checkpoint_files import previous_of, read_checkpoint
from pyg_peft.training.runs.resuming import BEST, LAST, RUN


@dataclass(frozen=True)
class Progress:
    """State of a run that trains an adapter.

    Attributes:
        epochs: Number of finished epochs.
        max_epochs: Number of epochs of the whole run; ``None`` if it is not recorded.
        extended: Earlier numbers of epochs, if the run was continued with more.
        curves: Values per epoch, by name of the metric.
        best_epoch: Best epoch on validation so far, from 1; ``None`` without validation.
        seconds_per_epoch: Duration of an epoch; ``None`` if it cannot be told from file times.
        idle_seconds: Time since the last epoch ended.
    """

    epochs: int
    max_epochs: int | None
    extended: tuple[int, ...]
    curves: dict[str, list[float]]
    best_epoch: int | None
    seconds_per_epoch: float | None
    idle_seconds: float

    @property
    def seconds_left(self) -> float | None:
        """Time until the last epoch ends if the run goes on as before, or ``None``."""
        if self.max_epochs is None or self.seconds_per_epoch is None:
            return None
        left = (self.max_epochs - self.epochs) * self.seconds_per_epoch - self.idle_seconds
        return max(0.0, left)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run, perhaps one whose first epoch has not ended."""
    folder = Path(folder)
    files = [(folder / LAST).with_name(RUN), folder / LAST, previous_of(folder / LAST)]
    return any(path.is_file() for path in files)


def read_progress(folder: str | Path) -> Progress:
    """Read the state of a run.

    Raises:
        CheckpointError: If a file is not as a run writes it.
    """
    last = Path(folder) / LAST
    described = _read_run(last.with_name(RUN))
    trainer = described.get("trainer")
    most = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    extended = described.get("extended") or ()
    path, state = _read_last(last)
    epochs = 0 if state is None else _number(state.get("epoch"), last) + 1
    best = Path(folder) / BEST
    best_epoch = _number(read_checkpoint(best).get("epoch"), best) + 1 if best.is_file() else None
    return Progress(
        epochs=epochs,
        max_epochs=most if isinstance(most, int) else None,
        extended=tuple(n for n in extended if isinstance(n, int)),
        curves={} if state is None else _curves(state),
        best_epoch=best_epoch,
        seconds_per_epoch=_seconds_per_epoch(last, epochs, bool(extended)),
        idle_seconds=max(0.0, time.time() - path.stat().st_mtime) if path is not None else 0.0,
    )


def _read_last(last: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the newest whole checkpoint, or ``None`` if there is none yet.

    A running process may rename the file between a look and a read, so it is read twice.
    """
    error: CheckpointError | None = None
    for path in (last, last, previous_of(last)):
        if path.is_file():
            try:
                return path, read_checkpoint(path)
            except CheckpointError as found:
                error = error or found
    if error is not None:
        raise error
    return None, None


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Expected '{path}' to be as fit wrote it (got: {error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"Expected '{path}' to be as fit wrote it (got {type(found)})")
    return found


def _number(value: Any, source: Path) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise CheckpointError(f"Expected 'epoch' in '{source}' to be a number (got {value!r:.40})")
    return value


def _curves(state: dict[str, Any]) -> dict[str, list[float]]:
    """Return the curves in a checkpoint; those that are no lists of numbers are left out."""
    found: Any = state.get("callbacks")
    for name in ("_Curves", "values"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return {}
    return {
        str(name): [float(value) for value in values]
        for name, values in found.items()
        if isinstance(values, list) and all(isinstance(v, (int, float)) for v in values)
    }


def _seconds_per_epoch(last: Path, epochs: int, extended: bool) -> float | None:
    """Return the duration of an epoch from file times.

    A pause of an interrupted run makes an estimate too long, so the shorter one of two is taken.
    """
    times = {
        name: path.stat().st_mtime
        for name, path in (
            ("last", last),
            ("previous", previous_of(last)),
            ("start", last.with_name(RUN)),
        )
        if path.is_file()
    }
    if "last" not in times or epochs < 1:
        return None
    found = [times["last"] - times["previous"]] if "previous" in times else []
    if "start" in times and not extended:
        found.append((times["last"] - times["start"]) / epochs)
    return min((seconds for seconds in found if seconds > 0), default=None)


def shown_epochs(progress: Progress, most: int = 40) -> list[int]:
    """Return the epochs to print, from 1: all if they are few, else some, the best and the last."""
    if progress.epochs <= most:
        return list(range(1, progress.epochs + 1))
    step = math.ceil(progress.epochs / (most - 2))
    kept = {1, progress.epochs, *range(step, progress.epochs + 1, step)}
    best = progress.best_epoch
    return sorted(kept | ({best} if best is not None and best <= progress.epochs else set()))


__all__ = ["Progress", "is_run", "read_progress", "shown_epochs"]
