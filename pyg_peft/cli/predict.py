"""Classify shape or scan files with a saved adapter."""

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_peft.cli.saved import open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.datasets.files import FILE_TYPES, columns_of, read_points
from pyg_peft.datasets.folders.index import files_below
from pyg_peft.errors import check_count
from pyg_peft.training.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`, with the adapter and the files as positional arguments."""
    parser.add_argument("adapter", help="folder that fit wrote")
    parser.add_argument("files", nargs="+", help="files, or folders whose files are taken")
    parser.add_function_arguments(run, skip={"adapter", "files"})


def run(
    adapter: str,
    files: list[str],
    backbone: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    top: int = 3,
    batch_size: int = 32,
    precision: str = "32-true",
    read_args: dict[str, Any] | None = None,
) -> list[tuple[Path, Tensor]]:
    """Classify files.

    Args:
        adapter: Folder written by fit.
        files: Files, or folders of files.
        backbone: Weights of the base; by default those recorded in the adapter.
        backbone_args: Constructor arguments that replace the recorded ones.
        top: Number of classes to print for each file.
        batch_size: Number of clouds per batch; it does not change the predictions.
        precision: 32-true, bf16-mixed or 16-mixed.
        read_args: How to read files, for example {"columns": ["x", "y", "z", "intensity"]} or
            {"num_points": null}; the defaults are those with which the training files were read.
    """
    for name, number in (("top", top), ("batch_size", batch_size)):
        check_count(number, name)
    paths = find_files(files)
    saved = open_adapter(adapter, backbone, backbone_args or {})
    task = saved.make_task()
    if task.head != "classification":
        raise ValueError(
            f"Expected 'adapter' to classify clouds (got one for {saved.task}): label points by "
            "PeftModel.from_pretrained and score_scene or the model itself"
        )
    settings = {**saved.read_args, **(read_args or {})}
    # Before the model's preprocessing, meshes and clouds get as many points as in training.
    num_points = settings.pop("num_points", None)
    settings.setdefault("mesh_points", num_points or 2048)
    cut = Preprocessing(num_points, normalize=False).evaluation()
    prepare = saved.preprocessing.evaluation()
    items: list[Data] = [prepare(cut(cloud)) for cloud in read_files(paths, settings)]
    loader = DataLoader(items, batch_size=batch_size)
    results: list[tuple[Path, Tensor]] = []
    for _, probabilities in task.predict(saved.model, loader, precision=precision):
        for row in probabilities:
            path = paths[len(results)]
            results.append((path, row))
            text = task.summary(row, saved.class_names, top)
            say(printable(f"{path}   {text}"))  # one line for each file, whatever its name
    return results


def read_files(paths: list[Path], settings: dict[str, Any]) -> list[Data]:
    """Return the clouds of files; ``columns`` applies to the files that are tables.

    Raises:
        ValueError: If files cannot be read, all of which are named, or the settings do not fit.
    """
    unknown = sorted(set(settings) - set(signature(read_points).parameters))
    if unknown:
        raise ValueError(f"Expected 'read_args' to be arguments of read_points (got {unknown})")
    clouds: list[Data] = []
    failures: list[str] = []
    columns = settings.get("columns")
    for path in paths:
        fitting: dict[str, Any] = {**settings, "columns": columns_of(path, columns)}
        try:
            clouds.append(read_points(path, **fitting))
        except (ValueError, OSError) as error:
            failures.append(str(error))
    if len(failures) == 1:
        raise ValueError(failures[0])
    if failures:
        raise ValueError(
            f"Expected the {len(paths)} files to be readable (got {len(failures)} that are not):"
            + "".join(f"\n  {failure}" for failure in failures)
        )
    return clouds


def find_files(names: list[str]) -> list[Path]:
    """Return the files that ``names`` refer to, with sorted files for each folder.

    Raises:
        ValueError: If a folder has no file of a known type, or a name does not exist.
    """
    paths: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            inside = sorted(p for p in files_below(name) if p.suffix.lower() in FILE_TYPES)
            if not inside:
                raise ValueError(
                    f"Expected '{name}' to hold files that end in one of {', '.join(FILE_TYPES)} "
                    "(got none)"
                )
            paths += inside
        elif name.is_file():
            paths.append(name)
        else:
            raise ValueError(f"Expected 'files' to exist (got '{name}')")
    return paths
