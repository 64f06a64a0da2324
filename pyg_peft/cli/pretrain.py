"""Pre-train a Point-MAE on unlabeled clouds: rebuild hidden patches and complete the whole shape.

The run can be interrupted at any time. The same command continues from the last checkpoint.
"""

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyg_peft.backbones import PointMAECompletion, PointMAEPretraining
from pyg_peft.cli.device import find_device
from pyg_peft.cli.pretrain_watch import PretrainWatch, draw_curve
from pyg_peft.cli.say import say
from pyg_peft.errors import check_count
from pyg_peft.training.pretraining.corpus_sources import WhichSplits, open_corpus
from pyg_peft.training.pretraining.run import CHECKPOINT, LOG, PretrainOptions, pretrain

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


# Pre-training tasks. "masked" is the task of Point-MAE; "completion" adds the whole shape.
TASKS: dict[str, type[PointMAEPretraining]] = {
    "completion": PointMAECompletion,
    "masked": PointMAEPretraining,
}


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run` and of the model's constructor."""
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
    """Pre-train a model.

    Args:
        model: Sizes of the model.
        data: Training data: FILE.npz, FOLDER of shape files, modelnet10:ROOT, modelnet40:ROOT,
            shapenet:ROOT, scanobjectnn:ROOT, procedural:COUNT or scans:COUNT, or COUNT/epoch for an
            endless stream of new ones; give a list to join several. Labels are not read.
        output: Folder of the checkpoint and the log.
        options: Length, learning rate, views and random seed.
        task: "completion", or "masked" for the task of Point-MAE, which ignores the model's
            num_cloud_points and completion_weight.
        look_every: Number of epochs between pictures of reconstructions; without it none are drawn.
        probe: Labeled data, as in fit. With each picture a linear layer is fitted to their training
            samples, and its accuracy on validation samples is logged. Their test split is never
            read.
        threads: Number of threads of torch; a resumed run gives the same bits only with the same
            number.
        device: "cpu", "cuda", "cuda:1" and so on; "auto" is a GPU if there is one.
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
