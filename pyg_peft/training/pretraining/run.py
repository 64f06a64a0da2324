"""Pre-train a masked autoencoder, in one plain loop that can be killed and resumed at any time."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyg_peft.backbones.point_mae.pretraining import PointMAEPretraining
from pyg_peft.datasets.keyed import keyed_generator, keyed_seed
from pyg_peft.errors import CheckpointError
from pyg_peft.nn.eval_mode import eval_mode
from pyg_peft.storage import claim_folder, remove_leftovers, write_atomic
from pyg_peft.training.data.batches import batch_sizes
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.pretraining.corpus import Corpus
from pyg_peft.training.pretraining.options import PretrainOptions
from pyg_peft.training.runs.checkpoint_files import has_checkpoint, read_latest, save_checkpoint
from pyg_peft.training.runs.decay import decay_groups
from pyg_peft.training.runs.resuming import check_same
from pyg_peft.training.runs.schedule import warmup_cosine

logger = logging.getLogger(__name__)

CHECKPOINT, LOG = "checkpoint.pth", "log.jsonl"
# Keys in the state of runs that use every cloud, and that log epochs from 1.
_EVERY_CLOUD, _FIRST_EPOCH = "every_cloud", "first_epoch"
_STATE = {"model", "optimizer", "identity", "step", "seconds", "lines"}  # of a checkpoint


@dataclass(frozen=True)
class PretrainReport:
    """Progress of a run: steps done, total steps, last logged loss, minutes spent."""

    step: int
    total_steps: int
    loss: float
    minutes: float

    @property
    def finished(self) -> bool:
        return self.step == self.total_steps


# Gets the model in eval mode and the number of epochs done; the returned values are logged.
Watch: TypeAlias = Callable[[PointMAEPretraining, int], Mapping[str, float]]


def pretrain(
    model: PointMAEPretraining,
    corpus: Corpus,
    folder: str | Path,
    options: PretrainOptions,
    watch: Watch | None = None,
) -> PretrainReport:
    """Train ``model`` in place; resume from ``folder`` if it has a checkpoint of the same run.

    The run uses the model's device. On a CPU, a run that was killed and started again gives the
    same bits as one that was not. This holds on the same machine with the same number of threads.
    The order, views, masks and drop-paths of each step depend on seed, epoch and step alone, and
    the optimizer is part of the checkpoint.

    Args:
        model: A new model. The caller seeds its initial weights.
        corpus: The clouds.
        folder: Folder for ``checkpoint.pth`` (replaced atomically), the one before it as
            ``checkpoint_previous.pth``, and ``log.jsonl``, whose epochs count from 1. One run at a
            time can write to it.
        options: See :class:`PretrainOptions`.
        watch: Function that is called after every epoch with the model in eval mode and the number
            of epochs done. Random numbers that it draws do not affect the run.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If the corpus is smaller than a batch, or another process writes to ``folder``.
        CheckpointError: If the checkpoint in ``folder`` belongs to other options, another model or
            another corpus, or was not written by this function; or if it and the one before are
            damaged.
        FloatingPointError: If the loss is no longer finite.
    """
    check_kind(model, "model", PointMAEPretraining)
    check_kind(corpus, "corpus", Corpus)
    check_kind(options, "options", PretrainOptions)
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"Expected 'folder' to be a path (got {folder!r})")
    if len(corpus) < options.batch_size:
        raise ValueError(
            f"Expected 'batch_size' to be at most the {len(corpus)} clouds "
            f"(got {options.batch_size})"
        )
    run = _Run(model, Path(folder), options, corpus)
    run.folder.mkdir(parents=True, exist_ok=True)
    with claim_folder(run.folder) as held:
        run.resume(alone=held)
        return _train(model, corpus, options, watch, run)


def steps_of_epoch(count: int, batch_size: int, *, every_cloud: bool = True) -> int:
    """Return the number of steps of an epoch of :func:`pretrain`.

    Args:
        count: Number of clouds of an epoch.
        batch_size: Largest number of clouds of a step.
        every_cloud: Whether the run uses all clouds. Runs that were started by earlier versions
            leave out a last batch that is not full.
    """
    return len(batch_sizes(count, batch_size, drop_last=not every_cloud))


def _train(
    model: PointMAEPretraining,
    corpus: Corpus,
    options: PretrainOptions,
    watch: Watch | None,
    run: "_Run",
) -> PretrainReport:
    sizes = batch_sizes(len(corpus), options.batch_size, drop_last=not run.every_cloud)
    starts = list(accumulate(sizes, initial=0))
    steps_per_epoch = len(sizes)
    total_steps = steps_per_epoch * options.epochs
    warmup_steps = min(total_steps, round(options.warmup_epochs * steps_per_epoch))
    device = next(model.parameters()).device
    loss, last_save = run.last_loss(), time.monotonic()
    drawn, order = -1, torch.empty(0, dtype=torch.long)
    model.train()
    while run.step < total_steps and not run.out_of_time():
        started = time.monotonic()
        epoch, within = divmod(run.step, steps_per_epoch)
        if epoch != drawn:
            drawn, order = epoch, corpus.order(options.seed, epoch)
        rows = order[starts[within] : starts[within + 1]].tolist()
        pos, batch = corpus.batch(rows, options.views, options.seed, epoch)
        factor = warmup_cosine(run.step, total_steps, warmup_steps, options.lr_floor)
        pos, batch = pos.to(device), batch.to(device)
        loss = run.train_step(pos, batch, len(rows), options.lr * factor)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Expected 'loss' to be finite (got {loss} in step {run.step}); begin again in "
                "another folder with a smaller 'lr'"
            )
        run.seconds += time.monotonic() - started
        if run.step % options.log_every == 0 or run.step == total_steps:
            run.log(epoch=epoch + 1, loss=loss, lr=options.lr * factor)
        if watch is not None and run.step % steps_per_epoch == 0:
            found = _run_watch(watch, model, epoch + 1)
            if found:
                run.log(epoch=epoch + 1, **found)
        if time.monotonic() - last_save > 60 * options.checkpoint_minutes:
            run.save()
            last_save = time.monotonic()
    run.save()
    return PretrainReport(run.step, total_steps, loss, run.seconds / 60)


def _run_watch(watch: Watch, model: PointMAEPretraining, epochs: int) -> Mapping[str, float]:
    own = _own_randomness(next(model.parameters()).device)
    with eval_mode(model), own, torch.no_grad():
        return watch(model, epochs)


def _own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that restores the global generators of the CPU and of ``device``."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _precision(device: str, bf16: bool) -> Generator[None]:
    """Run matrix products in bfloat16 if requested, with the faster attention for it.

    For the few tokens of a cloud, the fused attention on CPUs takes five times as long in bfloat16
    as in float32. Attention as separate products and a softmax is faster there.
    """
    with ExitStack() as stack:
        if bf16:
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            if device == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


class _Run:
    """State of a run for checkpoints: model, optimizer, steps done, seconds spent, log lines."""

    def __init__(
        self,
        model: PointMAEPretraining,
        folder: Path,
        options: PretrainOptions,
        corpus: Corpus,
    ) -> None:
        self.model, self.folder, self.options = model, folder, options
        self.every_cloud = True
        self.num_clouds = len(corpus)
        self.identity = {
            "class": type(model).__name__,
            "model": model.config,
            "options": options.identity(),
            "corpus": corpus.identity(),
        }
        self.optimizer = torch.optim.AdamW(
            decay_groups(model.parameters(), options.weight_decay), lr=0.0
        )
        self.step, self.seconds, self.lines = 0, 0.0, list[str]()

    def out_of_time(self) -> bool:
        limit = self.options.max_minutes
        return limit is not None and self.seconds >= 60 * limit

    def train_step(self, pos: torch.Tensor, batch: torch.Tensor, size: int, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        generator = keyed_generator(self.options.seed, "mask", self.step)
        # Drop-path uses the global generator, which is seeded for this step and then restored.
        with _own_randomness(pos.device):
            torch.manual_seed(keyed_seed(self.options.seed, "step", self.step))
            with _precision(pos.device.type, self.options.bf16):
                rebuilt = self.model.reconstruct(pos, batch, size, generator=generator)
            loss = self.model.loss(rebuilt)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def log(self, **values: float) -> None:
        self.lines.append(json.dumps({"step": self.step, "seconds": self.seconds, **values}))
        logger.info("%s", self.lines[-1])
        with (self.folder / LOG).open("a") as file:
            file.write(self.lines[-1] + "\n")

    def last_loss(self) -> float:
        """Return the last logged loss, or NaN if there is none."""
        losses = [line["loss"] for line in map(json.loads, self.lines) if "loss" in line]
        return losses[-1] if losses else math.nan

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "lines": self.lines,
            _EVERY_CLOUD: self.every_cloud,
            _FIRST_EPOCH: 1,
        }
        save_checkpoint(state, self.folder / CHECKPOINT, keep_previous=True)

    def resume(self, *, alone: bool) -> None:
        """Continue from the checkpoint in the folder, if there is one.

        Args:
            alone: Whether no other process writes to the folder, so that leftovers of killed runs
                can be removed.
        """
        path = self.folder / CHECKPOINT
        for name in (CHECKPOINT, LOG) if alone else ():
            remove_leftovers(self.folder, name)
        if not has_checkpoint(path):
            write_atomic(self.folder / LOG, lambda file: file.write_text(""))
            return
        path, found = read_latest(path)
        state: Any = found
        if not isinstance(state, dict) or not state.keys() >= _STATE:
            raise CheckpointError(f"Expected '{path}' to be a checkpoint of pretrain (got another)")
        kinds = {"identity": dict, "step": int, "seconds": float, "lines": list}
        wrong = [name for name, kind in kinds.items() if not isinstance(state[name], kind)]
        if wrong or not all(isinstance(line, str) for line in state["lines"]):
            raise CheckpointError(
                f"Expected '{path}' to be a checkpoint of pretrain "
                f"(got another kind of value under {', '.join(wrong or ['lines'])})"
            )
        check_same(state["identity"], self.identity, path)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        # PyTorch raises these for another model's tensors, or for values that are not tensors.
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(
                f"Expected '{path}' to hold the tensors of this run (got: {error})"
            ) from error
        self.step, self.seconds, self.lines = state["step"], state["seconds"], state["lines"]
        if _FIRST_EPOCH not in state:  # earlier versions counted epochs from 0
            self.lines = [_from_one(line) for line in self.lines]
        self.every_cloud = bool(state.get(_EVERY_CLOUD, False))
        if not self.every_cloud and (left := self.num_clouds % self.options.batch_size):
            logger.warning(
                "this run was started by a version that left out a last batch that was not full, "
                "and continues that way: %d of %d clouds are left out of each epoch; a run in "
                "another folder uses all of them",
                left,
                self.num_clouds,
            )
        # Removes the log lines of steps after the checkpoint.
        text = "".join(line + "\n" for line in self.lines)
        write_atomic(self.folder / LOG, lambda file: file.write_text(text))
        logger.info("resumed %s at step %d", path, self.step)


def _from_one(line: str) -> str:
    """Convert a log line of an earlier version to epochs counted from 1."""
    values = json.loads(line)
    return json.dumps({**values, "epoch": values["epoch"] + 1})


__all__ = [
    "PretrainOptions",
    "PretrainReport",
    "Watch",
    "pretrain",
    "steps_of_epoch",
]
