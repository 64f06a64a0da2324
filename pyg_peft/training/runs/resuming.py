"""Check that a run continues the same run that was interrupted."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyg_peft.checkpoint import WEIGHTS
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel
from pyg_peft.storage import write_atomic
from pyg_peft.training.runs.checkpoint_files import has_checkpoint, read_checkpoint, read_latest
from pyg_peft.tuners.engine.saving import base_fingerprint

logger = logging.getLogger(__name__)

RUN = "run.json"
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")
_EXTENDED = "extended"  # earlier numbers of epochs, of a run that was given more
_EVERY_CLOUD = "every_cloud"  # set for a run that uses all training clouds in each epoch
_SHOWN = 6
# Settings of the trainer that affect weights and do not depend on the machine.
_TRAINER = ("max_epochs", "precision", "gradient_clip_val", "accumulate_grad_batches")


@dataclass(frozen=True)
class Resumed:
    """The checkpoint and the mode to resume a run with.

    Args:
        checkpoint: The last complete checkpoint.
        every_cloud: Whether the run uses every training cloud in each epoch. A run that was started
            by a version that left out a last batch that was not full continues that way.
        extended: Each earlier number of epochs of the run, if it was given more since.
    """

    checkpoint: Path
    every_cloud: bool
    extended: tuple[int, ...] = ()


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise unless a run may write to ``folder``, or continue in it.

    Raises:
        ValueError: If it is a file, or holds a run or an adapter that would be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected 'folder' to be a folder (got the file '{folder}')")
    has_run = has_checkpoint(folder / LAST)
    if has_run and not resume:
        raise ValueError(
            f"Expected 'folder' to hold no run (got one in '{folder}'): resume it, or choose "
            "another folder"
        )
    if not has_run and (folder / WEIGHTS).exists():
        raise ValueError(
            f"Expected 'folder' to hold no adapter (got one in '{folder}', without a run to "
            "resume): choose another folder"
        )


def describe_run(
    model: PeftModel,
    data: Any,
    options: Mapping[str, Any],
    trainer: Mapping[str, Any],
    *,
    loss: str | None = None,
    from_adapter: Any = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Return everything that determines the final weights of a run, as JSON values.

    Args:
        model: The model, with an adapter active.
        data: The data module.
        options: Options of the fit. Logger and cache are left out, as they do not affect weights.
        trainer: Settings of the trainer.
        loss: Description of a loss of the user's own.
        from_adapter: JSON values that identify the adapter that the run starts from; ``None`` for a
            new one.
        processes: Number of processes that train.
    """
    config = model.peft_config[model.active_adapter or ""]
    bank = model.memory_bank
    described = {
        "base": base_fingerprint(model.base, config)[:16],
        "task": data.task.name,
        # Without a value, as in runs of earlier versions, unless there is something to tell.
        "task_settings": data.task.to_dict() or None,
        "balanced_sampling": data.balanced_sampling or None,
        "loss": loss,
        "method": config.method,
        "settings": config.to_dict(),
        "from_adapter": from_adapter,
        "bank": None if bank is None else bank.hash[:16],
        "classes": list(data.class_names),
        "preprocessing": data.preprocessing.to_dict(),
        "augmentation": type(data.augmentation).__name__,
        "train": len(data.train_set),
        "val": len(data.val_set),
        "batch_size": data.batch_size,
        "processes": processes,
        "num_views": data.train_set.num_views,
        _EVERY_CLOUD: True,
        "seed": data.seed,
        "options": {k: v for k, v in options.items() if k not in ("logger", "cache")},
        "trainer": {name: trainer.get(name) for name in _TRAINER},
    }
    return _plain(described)


def write_run(checkpoint: Path, described: Mapping[str, Any], extended: Sequence[int] = ()) -> None:
    """Write ``run.json`` next to the checkpoints of a run that is new or got more epochs."""
    more = {_EXTENDED: list(extended)} if extended else {}
    text = json.dumps({**described, **more}, indent=2, sort_keys=True) + "\n"
    write_atomic(checkpoint.with_name(RUN), lambda path: path.write_text(text))


def check_resumed(folder: Path, described: Mapping[str, Any]) -> Resumed:
    """Find the checkpoint to resume from, and check that it is complete and of the same run.

    Args:
        folder: Folder of the run.
        described: Description of this run, see :func:`describe_run`. It may have more epochs than
            the run in the folder, and nothing else may differ.

    Raises:
        CheckpointError: If a checkpoint is damaged or of another run.
    """
    checkpoint, state = read_latest(folder / LAST)
    best = folder / BEST
    if best.exists():
        read_checkpoint(best)  # checked now, since it is the only copy of the best epoch
    elif _has_best(state):
        raise CheckpointError(
            f"Expected '{best}' to hold the best epoch (got no file): begin again in another folder"
        )
    path = (folder / LAST).with_name(RUN)
    if not path.is_file():
        logger.warning("'%s' is missing: it is not checked that the options are the same", path)
        return Resumed(checkpoint, every_cloud=True)
    try:
        found = json.loads(path.read_text())
        every_cloud = bool(found.setdefault(_EVERY_CLOUD, False))
        for name in ("task", "processes"):  # earlier versions did not record them
            found.setdefault(name, described[name])
        _allow_processes(found, described)
        extended = [int(number) for number in found.pop(_EXTENDED, [])]
        before, now = found["trainer"]["max_epochs"], described["trainer"]["max_epochs"]
        if isinstance(before, int) and before < now:
            extended.append(before)
            found["trainer"]["max_epochs"] = now
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise CheckpointError(f"Expected '{path}' to be as fit wrote it (got: {error})") from error
    check_same({**found, _EVERY_CLOUD: True}, described, path)
    return Resumed(checkpoint, every_cloud, tuple(extended))


def _allow_processes(found: dict[str, Any], described: Mapping[str, Any]) -> None:
    """Accept another number of processes, if a step still has the same number of clouds.

    The run then continues with the same steps, learning rates and, up to rounding, gradients.
    """
    sizes = [int(run["processes"]) * int(run["batch_size"]) for run in (found, described)]
    if sizes[0] == sizes[1] and found[_EVERY_CLOUD]:
        found.update({name: described[name] for name in ("processes", "batch_size")})


def _has_best(state: Any) -> bool:
    callbacks = state.get("callbacks") if isinstance(state, dict) else None
    kept = callbacks.get("KeptEpoch") if isinstance(callbacks, dict) else None
    return isinstance(kept, dict) and kept.get("best") is not None


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], source: str | Path) -> None:
    """Raise unless two runs are the same; the message lists the differences.

    Args:
        found: JSON values of the interrupted run.
        expected: JSON values of the run that continues it.
        source: File of ``found``, for the message.

    Raises:
        CheckpointError: If they differ.
    """
    lines = list(_differences(_plain(found), _plain(expected), ""))
    if lines:
        more = f"; {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise CheckpointError(
            f"Expected '{source}' to belong to this run (got another: "
            f"{'; '.join(lines[:_SHOWN])}{more})"
        )


def _plain(values: Any) -> Any:
    """Return values as JSON loads them, for example lists instead of tuples."""
    return json.loads(json.dumps(values, default=str))


def _differences(found: Any, expected: Any, path: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected}):
            inner = f"{path}.{key}" if path else key
            yield from _differences(found.get(key), expected.get(key), inner)
    elif found != expected:
        yield f"{path} {found!r} instead of {expected!r}"


__all__ = [
    "BEST",
    "LAST",
    "RUN",
    "Resumed",
    "check_folder",
    "check_resumed",
    "check_same",
    "describe_run",
    "write_run",
]
