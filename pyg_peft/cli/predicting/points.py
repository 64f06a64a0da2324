"""Labels of the points of whole files, in the coordinates and the order of the files."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from pyg_peft.cli.predicting.inputs import read_with_coordinates
from pyg_peft.cli.predicting.job import Job
from pyg_peft.cli.predicting.results import Results, result_of_points
from pyg_peft.cli.saved import Saved
from pyg_peft.datasets import SceneSettings, write_labeled_points
from pyg_peft.datasets.formats.labeled_files import LABELED_TYPES
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.datasets.scenes.reading import open_tile, to_data
from pyg_peft.errors import check_count, check_number
from pyg_peft.training.evaluation.cloud import score_cloud
from pyg_peft.training.evaluation.forward import check_precision, device_of
from pyg_peft.training.evaluation.scene import score_scene
from pyg_peft.training.evaluation.tiles import label_tile

OUTPUT_TYPES = ("same", *(ending.removeprefix(".") for ending in LABELED_TYPES))
# Number of points per block if the preprocessing of an adapter has no limit.
MAX_POINTS = 4096

#: Gives the label ``[N]`` of each point of a raw cloud, as ``read_points`` returns it, and the
#: probability ``[N]`` of that label.
Labeler = Callable[[Data], tuple[Tensor, Tensor]]
#: Reads a file: the coordinates ``[N, 3]`` of all of its points, and the cloud for a labeler.
Reader = Callable[[Path], tuple[np.ndarray, Data]]


@dataclass(frozen=True)
class PointOptions:
    """How points are labeled.

    Args:
        window: Side of the windows of a scene; ``None`` to treat each file as one shape.
        stride: Step between windows; ``None`` for half of the side.
        num_votes: How often a shape of many points is divided into blocks.
        category: Category of the shapes, for a backbone that takes one.
        batch_size: Number of blocks per batch.
        precision: 32-true, bf16-mixed or 16-mixed.

    Raises:
        TypeError, ValueError: If a value has another type or range.
    """

    window: float | None = None
    stride: float | None = None
    num_votes: int = 3
    category: int | None = None
    batch_size: int = 32
    precision: str = "32-true"

    def __post_init__(self) -> None:
        check_count(self.num_votes, "num_votes")
        check_count(self.batch_size, "batch_size")
        check_precision(self.precision)
        if self.window is not None:
            check_number(self.window, "window", above=0)
        if self.stride is not None:
            if self.window is None:
                raise ValueError(
                    f"Expected 'window' to be given with 'stride' {self.stride} (got None)"
                )
            check_number(self.stride, "stride", above=0, most=self.window)
        if self.category is not None:
            check_count(self.category, "category", least=0)


def find_labeler(saved: Saved, options: PointOptions) -> Labeler:
    """Return the function that labels the points of a cloud with a saved adapter.

    Raises:
        ValueError: If the backbone needs a category that is not given, or takes none.
    """
    _check_category(saved, options.category)
    turn = Preprocessing(None, normalize=False, up_axis=saved.preprocessing.up_axis).evaluation()
    prepare = Preprocessing(None, normalize=saved.preprocessing.normalize).evaluation()
    block = Compose([prepare, _SetCategory(options.category)])
    num_points = saved.preprocessing.num_points

    def label(cloud: Data) -> tuple[Tensor, Tensor]:
        turned = turn(cloud)
        pos, x = _pos_of(turned), turned.x
        with _autocast(saved, options.precision):
            if options.window is None:
                scores = score_cloud(
                    saved.model,
                    pos,
                    x,
                    max_points=num_points,
                    num_votes=options.num_votes,
                    batch_size=options.batch_size,
                    transform=block,
                )
            else:
                scores = score_scene(
                    saved.model,
                    pos,
                    x,
                    size=options.window,
                    stride=options.stride,
                    max_points=num_points or MAX_POINTS,
                    batch_size=options.batch_size,
                    transform=block,
                )
        probability, label = scores.max(dim=1)
        return label, probability

    return label


def find_tile_labeler(saved: Saved, tiles: SceneSettings, options: PointOptions) -> Labeler:
    """Return the function that labels the points of a tile, for an adapter that records tiles.

    Raises:
        ValueError: If options are given that the adapter records itself.
    """
    if options.window is not None or options.category is not None:
        raise ValueError(
            "Expected 'window', 'stride' and 'category' to be left out, as the adapter records the "
            "blocks of its tiles (got another value)"
        )

    def label(cloud: Data) -> tuple[Tensor, Tensor]:
        found = label_tile(
            saved.model,
            tiles,
            cloud,
            preprocessing=saved.preprocessing,
            batch_size=options.batch_size,
            precision=options.precision,
        )
        return found.classes, found.confidence

    return label


def shape_reader(saved: Saved, settings: Mapping[str, Any]) -> Reader:
    """Return the function that reads a shape; meshes get as many points as in training."""
    wanted = {"mesh_points": saved.preprocessing.num_points or 2048, **settings}

    def read(path: Path) -> tuple[np.ndarray, Data]:
        raw, cloud = read_with_coordinates(path, wanted)
        return raw.pos, cloud

    return read


def tile_reader(tiles: SceneSettings) -> Reader:
    """Return the function that reads a tile as in training, without its labels."""

    def read(path: Path) -> tuple[np.ndarray, Data]:
        tile = open_tile(path, tiles)
        return tile.raw.pos, to_data(tile, tiles)

    return read


def find_targets(
    paths: Sequence[Path], output: Path | None, output_type: str, *, overwrite: bool
) -> dict[Path, Path]:
    """Return the file to write for each input: the same name in the folder ``output``.

    Args:
        paths: The input files.
        output: The folder. It may be missing.
        output_type: One of :data:`OUTPUT_TYPES`. With ``"same"``, files of types that cannot be
            written give .ply files.
        overwrite: Whether to replace files that exist.

    Raises:
        ValueError: If there is no folder, two inputs have the same target, or a target exists.
    """
    if output is None:
        raise ValueError(
            "Expected 'output' to be a folder for the files with labels, because the adapter "
            "labels points (got None)"
        )
    if output.exists() and not output.is_dir():
        raise ValueError(f"Expected 'output' to be a folder (got the file '{output}')")
    taken: dict[Path, Path] = {}
    for path in paths:
        target = output / f"{path.stem}{_ending(path, output_type)}"
        if target in taken:
            raise ValueError(
                "Expected input files with different names, because each gives a file in "
                f"'{output}' (got '{taken[target]}' and '{path}', which both give '{target.name}')"
            )
        taken[target] = path
    there = [target for target in taken if target.exists()]
    inputs = [target for target in there if any(target.samefile(path) for path in paths)]
    if inputs:
        raise ValueError(
            f"Expected 'output' to be another folder than that of the inputs (got '{output}', "
            f"whose '{inputs[0].name}' is an input)"
        )
    if there and not overwrite:
        raise ValueError(
            f"Expected 'output' to hold none of the files to write (got '{there[0]}'"
            f"{f' and {len(there) - 1} more' if len(there) > 1 else ''}): "
            "--overwrite true replaces them"
        )
    return {path: target for target, path in taken.items()}


class PointJob(Job[tuple[np.ndarray, Data]]):
    """Writes a file with labels of all points for each file.

    Args:
        class_names: Names of the classes.
        codes: Label of each class in files.
        reader: See :data:`Reader`.
        labeler: See :data:`Labeler`.
        targets: The file to write for each input file.
        probability: Whether to also write the probability of each label.
        results: Where the results go.
        top: Number of classes in a line of text.
    """

    batch_size = 1
    excused = (ValueError,)  # for example labels that the type of a file cannot hold

    def __init__(
        self,
        class_names: Sequence[str],
        codes: Sequence[int],
        reader: Reader,
        labeler: Labeler,
        targets: Mapping[Path, Path],
        *,
        probability: bool,
        results: Results,
        top: int,
    ) -> None:
        self.class_names = class_names
        self.codes = torch.tensor(codes)
        self.reader = reader
        self.labeler = labeler
        self.targets = targets
        self.probability = probability
        self.results = results
        self.top = top

    def read(self, path: Path) -> tuple[np.ndarray, Data]:
        return self.reader(path)

    def predict(self, files: Sequence[tuple[Path, tuple[np.ndarray, Data]]]) -> list[Tensor]:
        counts: list[Tensor] = []
        names = dict(zip(self.codes.tolist(), self.class_names, strict=True))
        for path, (pos, cloud) in files:
            labels, probability = self.labeler(cloud)
            target = self.targets[path]
            target.parent.mkdir(exist_ok=True)
            write_labeled_points(
                target,
                pos,
                self.codes[labels],
                class_names=names,
                source=path,
                probability=probability if self.probability else None,
            )
            counts.append(labels.bincount(minlength=len(self.class_names)))
            self.results.add(result_of_points(path, target, counts[-1], self.class_names, self.top))
        return counts


class _SetCategory:
    """Give a cloud the category, unless it is ``None``."""

    def __init__(self, category: int | None) -> None:
        self.category = category

    def __call__(self, data: Data) -> Data:
        if self.category is not None:
            data.category = torch.tensor([self.category])
        return data


def _check_category(saved: Saved, category: int | None) -> None:
    count = int(getattr(saved.model.base, "num_categories", 0))
    if count and (category is None or category >= count):
        raise ValueError(
            f"Expected 'category' to be the number of a category below {count}, which the backbone "
            f"takes (got {category})"
        )
    if not count and category is not None:
        raise ValueError(
            f"Expected 'category' to be left out, because the backbone takes none (got {category})"
        )


def _autocast(saved: Saved, precision: str) -> AbstractContextManager[object]:
    kind, dtype = device_of(saved.model).type, check_precision(precision)
    return torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None)


def _pos_of(cloud: Data) -> Tensor:
    pos = cloud.pos
    assert pos is not None  # of every cloud that a file gives
    return pos


def _ending(path: Path, output_type: str) -> str:
    ending = path.suffix.lower() if output_type == "same" else f".{output_type}"
    return ending if ending in LABELED_TYPES else ".ply"


__all__ = [
    "MAX_POINTS",
    "OUTPUT_TYPES",
    "Labeler",
    "PointJob",
    "PointOptions",
    "Reader",
    "find_labeler",
    "find_targets",
    "find_tile_labeler",
    "shape_reader",
    "tile_reader",
]
