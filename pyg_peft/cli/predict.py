"""Classify shape or scan files with a saved adapter, or label their points."""

from typing import TYPE_CHECKING, Any

from pyg_peft.cli.device import find_device
from pyg_peft.cli.predicting.clouds import CloudJob
from pyg_peft.cli.predicting.inputs import check_settings, find_files
from pyg_peft.cli.predicting.job import Job, Predictions, predict_all
from pyg_peft.cli.predicting.points import (
    OUTPUT_TYPES,
    PointJob,
    PointOptions,
    find_labeler,
    find_targets,
    find_tile_labeler,
    shape_reader,
    tile_reader,
)
from pyg_peft.cli.predicting.results import Results, check_file, check_output, find_format
from pyg_peft.cli.saved import open_adapter
from pyg_peft.datasets import SceneSettings
from pyg_peft.errors import check_count
from pyg_peft.training.evaluation.forward import check_precision
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.registry import TASKS
from pyg_peft.training.tasks.segmentation import SegmentationTask

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`, with the adapter and the files as positional arguments."""
    parser.add_argument("adapter", help="folder that fit wrote")
    parser.add_argument("files", nargs="+", help="files, or folders whose files are taken")
    parser.add_function_arguments(run, skip={"adapter", "files"})


def run(  # noqa: PLR0913, since each argument is an option of the command
    adapter: str,
    files: list[str],
    backbone: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    top: int = 3,
    batch_size: int = 32,
    precision: str = "32-true",
    read_args: dict[str, Any] | None = None,
    format: str | None = None,
    output: str | None = None,
    overwrite: bool = False,
    skip_errors: bool = False,
    device: str = "auto",
    preprocessing: dict[str, Any] | None = None,
    class_names: list[str] | None = None,
    output_type: str = "same",
    probability: bool = False,
    num_votes: int = 3,
    window: float | None = None,
    stride: float | None = None,
    category: int | None = None,
) -> Predictions:
    """Classify files, or label the points of files.

    Args:
        adapter: Folder written by fit, or by save_pretrained.
        files: Files, or folders of files.
        backbone: Weights of the base; by default those recorded in the adapter.
        backbone_args: Constructor arguments that replace the recorded ones.
        top: Number of classes to print for each file.
        batch_size: Number of clouds per batch; it does not change the predictions.
        precision: 32-true, bf16-mixed or 16-mixed.
        read_args: How to read files, for example {"columns": ["x", "y", "z", "intensity"]} or
            {"num_points": null}; the defaults are those with which the training files were read.
        format: "text", "json" or "csv"; by default that of the output's extension, otherwise text.
        output: File for the results. For an adapter that labels points: folder for the labeled
            files, one for each input file.
        overwrite: Whether to replace files that exist.
        skip_errors: Whether to go on after files that cannot be read. They are listed at the end,
            and the exit code is 1.
        device: "auto" for a GPU if there is one, "cpu", "cuda", "cuda:1" and so on.
        preprocessing: Settings that replace those recorded in the adapter, for example
            {"num_points": 1024}.
        class_names: Names of the classes that replace those recorded in the adapter.
        output_type: Type of labeled files: "ply", "las", "laz", "npz", or "same" as the input file,
            and ply for types that cannot be written.
        probability: Whether labeled files also have the probability of each label.
        num_votes: How often the points of a large shape are divided into blocks of as many points
            as training clouds have; the votes of a point are averaged.
        window: For scenes: side of the windows that are labeled, in the unit of the files. By
            default each file is one shape.
        stride: Step between windows; by default half of the side.
        category: Number of the shapes' category, for a backbone that takes one.
    """
    for name, number in (("top", top), ("batch_size", batch_size)):
        check_count(number, name)
    check_precision(precision)
    if output_type not in OUTPUT_TYPES:
        raise ValueError(
            f"Expected 'output_type' to be one of {', '.join(OUTPUT_TYPES)} (got {output_type!r})"
        )
    options = PointOptions(window, stride, num_votes, category, batch_size, precision)
    form = find_format(format, output)
    place = find_device(device)
    paths = find_files(files)
    target = check_output(output, paths)
    saved = open_adapter(
        adapter, backbone, backbone_args or {}, preprocessing=preprocessing, class_names=class_names
    )
    saved.model.to(place)
    settings = {**saved.read_args, **(read_args or {})}
    tiles = SceneSettings.recorded_in(settings)
    num_points = settings.pop("num_points", None)
    if tiles is None:
        check_settings(settings)
    task = TASKS[saved.task]
    if issubclass(task, SegmentationTask):
        if tiles is None:
            more = {} if num_points is None else {"mesh_points": num_points}
            reader = shape_reader(saved, {**more, **settings})
            codes, labeler = range(len(saved.class_names)), find_labeler(saved, options)
        else:
            reader, codes = tile_reader(tiles), tiles.raw_labels
            labeler = find_tile_labeler(saved, tiles, options)
        job: Job[Any] = PointJob(
            saved.class_names,
            codes,
            reader,
            labeler,
            find_targets(paths, target, output_type, overwrite=overwrite),
            probability=probability,
            results=Results(form, None, ["path", "output", "points", *saved.class_names]),
            top=top,
        )
    elif issubclass(task, ClassificationTask):
        check_file(target, overwrite=overwrite)
        job = CloudJob(
            saved,
            task(len(saved.class_names)),
            settings,
            num_points=num_points,
            batch_size=batch_size,
            precision=precision,
            results=Results(form, target, ["path", "label", "probability", *saved.class_names]),
            top=top,
        )
    else:
        raise ValueError(
            f"Expected 'adapter' to classify clouds or points (got one for {saved.task}): predict "
            "with PeftModel.from_pretrained and the model itself"
        )
    return predict_all(paths, job, skip_errors=skip_errors)


__all__ = ["add_arguments", "run"]
