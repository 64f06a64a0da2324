"""Show how far a run has come: its epochs, its learning curve, and the time that is left."""

from itertools import pairwise

from pyg_peft.cli.say import printable, say
from pyg_peft.training.runs.progress import Progress, read_progress, shown_epochs

# An epoch that takes this many times as long as the ones before was probably interrupted.
_LATE = 3


def show_run(folder: str) -> None:
    """Print the state of a run, which may be in progress, interrupted or finished."""
    progress = read_progress(folder)
    of = "" if progress.max_epochs is None else f" of {progress.max_epochs}"
    say(f"{progress.epochs}{of} epochs are done")
    steps = [*progress.extended, progress.max_epochs]
    for before, after in pairwise(steps):
        say(f"the run was continued from {before} to {after} epochs")
    if progress.best_epoch is not None:
        say(f"best epoch on validation: {progress.best_epoch}")
    if progress.max_epochs is None or progress.epochs < progress.max_epochs:
        _show_time(progress)
    if progress.curves:
        say()
        _show_curves(progress)


def _show_time(progress: Progress) -> None:
    each, left = progress.seconds_per_epoch, progress.seconds_left
    if each is None:
        say("time left: not known before an epoch has ended")
        return
    say(f"last epoch ended {_time(progress.idle_seconds)} ago; an epoch takes {_time(each)}")
    if progress.idle_seconds > _LATE * each + 1:
        say("the run seems to be interrupted: the same command with --resume true continues it")
    elif left is not None:
        say(f"time left: about {_time(left)}, if it is running")


def _show_curves(progress: Progress) -> None:
    names = sorted(progress.curves)
    widths = [max(10, len(printable(name))) for name in names]
    columns = list(zip(names, widths, strict=True))
    say("epoch  " + "  ".join(f"{printable(name):>{width}s}" for name, width in columns))
    for epoch in shown_epochs(progress):
        cells: list[str] = []
        for name, width in columns:
            values = progress.curves[name]
            # A metric of which the first epochs have no value, since validation began later.
            row = epoch - 1 - (progress.epochs - len(values))
            cells.append(f"{values[row]:{width}.4f}" if 0 <= row < len(values) else " " * width)
        mark = "  best" if epoch == progress.best_epoch else ""
        say(f"{epoch:5d}  " + "  ".join(cells) + mark)


def _time(seconds: float) -> str:
    """Return a duration in the unit that a reader would use."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


__all__ = ["show_run"]
