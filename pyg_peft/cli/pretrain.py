"""Pre-train a Point-MAE on unlabeled clouds: rebuild hidden patches and draw the whole shape.

The run can be killed at any moment: the same command goes on where the last checkpoint was.
"""

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyg_peft.backbones import PointMAECompletion, PointMAEPretraining
from pyg_peft.cli.pretrain_watch import PretrainWatch, draw_curve
from pyg_peft.cli.say import say
from pyg_peft.errors import check_count
from pyg_peft.training.pretraining.corpus_sources import WhichSplits, open_corpus
from pyg_peft.training.pretraining.run import CHECKPOINT, LOG, PretrainOptions, pretrain

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


# What there is to learn. "masked" is Point-MAE's own task; "completion" adds the whole shape.
TASKS: dict[str, type[PointMAEPretraining]] = {
    "completion": PointMAECompletion,
    "masked": PointMAEPretraining,
}


def add_arguments(parser: "ArgumentParser") -> None:
    """Options from :func:`run` and from the constructor of the model."""
    parser.add_class_arguments(PointMAECompletion, "model", instantiate=False)
    parser.add_function_arguments(run, skip={"model"})


def run(
    model: object,
    data: str | list[str],
    output: str,
    options: PretrainOptions,
    task: str = "completion",
    look_every: int | None = None,
    probe: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    splits: WhichSplits = "train",
) -> None:
    """Pre-train.

    Args:
        model: sizes of the model.
        data: what to learn from: FILE.npz, FOLDER of shape files, modelnet10:ROOT, modelnet40:ROOT,
            shapenet:ROOT, scanobjectnn:ROOT, procedural:COUNT or scans:COUNT, or COUNT/epoch for
            an endless stream of new ones; give a list to join several. Labels are not read.
        output: folder of the checkpoint and the log.
        options: length, learning rate, views and the seed.
        task: "completion", or "masked" for Point-MAE's own, which has no use for the model's
            num_cloud_points and completion_weight.
        look_every: epochs between pictures of reconstructions; none are made if left out.
        probe: labeled data, as for fit, that a linear layer is fitted to at each look; its
            accuracy on validation samples goes to the log, and its test split is never read.
        threads: threads of torch; a resumed run needs the same number to give the same bits.
        device: "cpu", "cuda", "cuda:1" ...; "auto" is a GPU if there is one.
        splits: "train" reads the training split of data that has splits, "all" reads everything.
    """
    if task not in TASKS:
        raise ValueError(f"Expected 'task' to be one of {', '.join(TASKS)} (got {task!r})")
    if probe is not None and look_every is None:
        raise ValueError("Expected 'look_every' to be given with 'probe' (got None)")
    sizes = dict(vars(model))
    if task == "masked":
        sizes = {k: v for k, v in sizes.items() if k in signature(PointMAEPretraining).parameters}
    if threads is not None:
        check_count(threads, "threads")
    if Path(output).is_file():
        raise ValueError(f"Expected 'output' to be a folder (got the file '{output}')")
    if threads is not None:
        torch.set_num_threads(threads)
    place = find_device(device)
    names = [data] if isinstance(data, str) else data
    corpus = open_corpus(names, splits=splits, num_points=options.views.num_points, progress=True)
    torch.manual_seed(options.seed)
    network = TASKS[task](**sizes).to(place)
    count = sum(p.numel() for p in network.parameters())
    say(f"{len(corpus):,} clouds an epoch, {count:,} parameters, on {place}")
    watch = None
    if look_every is not None:
        watch = PretrainWatch(
            Path(output),
            corpus,
            num_points=options.views.num_points,
            every=look_every,
            probe=probe,
            seed=options.seed,
        )
    report = pretrain(network, corpus, output, options, watch)
    say(
        f"step {report.step:,} of {report.total_steps:,}, loss {report.loss:.5f}, "
        f"{report.minutes:.1f} minutes"
    )
    if look_every is not None:
        draw_curve(Path(output))
    say(f"weights: {Path(output) / CHECKPOINT}   log: {Path(output) / LOG}")
    if not report.finished:
        say("The time was up before the end: more --options.max_minutes go on from here.")


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: torch has none of that name, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"Expected 'device' to be 'auto' or a device that is there (got {name!r}: {error})"
        ) from error
    if device.type not in ("cpu", "cuda"):  # nothing else is tried, and MPS has no float64
        raise ValueError(f"Expected 'device' to be a CPU or a CUDA device (got {name!r})")
    return device
