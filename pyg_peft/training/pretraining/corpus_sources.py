"""Open the unlabeled clouds for pre-training that a command line names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from pyg_peft.datasets import Normalize, ProceduralStream, ScanEffects, ShapeFolder
from pyg_peft.datasets.files import FILE_TYPES, may_be_cloud
from pyg_peft.datasets.folders.cache import load_folder
from pyg_peft.datasets.folders.index import FolderIndex, files_below, index_folder
from pyg_peft.datasets.npz.file import read_npz
from pyg_peft.datasets.npz.select import SPLITS, read_split, select_rows, split_of_folder
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.training.data.sources import open_source
from pyg_peft.training.pretraining.corpus import Corpus

WhichSplits = Literal["train", "all"]

# Sources of open_source other than files, and the axis that points up there.
_UP = {"modelnet10": "z", "modelnet40": "z", "shapenet": "y", "scanobjectnn": "y"}
# Settings of "procedural" and "scans". Changing one changes the corpus.
_STREAMS: dict[str, dict[str, Any]] = {
    "procedural": {},
    "scans": {"difference_probability": 0.5, "scan": ScanEffects()},
}
_LEAST_POINTS = 1024
_MOST_SHAPES = 100_000_000  # the order of an epoch is drawn in memory


def open_corpus(
    specs: Sequence[str],
    *,
    splits: WhichSplits = "train",
    num_points: int = 1024,
    progress: bool = False,
) -> Corpus:
    """Join the clouds that ``specs`` name, z up, centered and scaled into the unit ball.

    Args:
        specs: Names of sources. Each is one of ``FILE.npz`` or a folder of shape files in any
            layout, whose labels are neither needed nor read; ``modelnet10:ROOT``,
            ``modelnet40:ROOT`` or ``shapenet:ROOT``, PyG's data sets; ``scanobjectnn:ROOT``, the
            authors' files; ``procedural:COUNT``, the first shapes of
            :class:`~pyg_peft.datasets.ProceduralStream`; or ``scans:COUNT``, the same shapes as
            seen by a scanner, half of them with something cut out. With ``COUNT/epoch`` each epoch
            has this many new shapes, generated as they are read. Each further spec of generated
            shapes has the next seed, and so other solids.
        splits: ``"train"`` reads only the training split of sources with splits, so that test
            shapes are not used for training. ``"all"`` reads everything.
        num_points: Number of points of a view. Generated shapes have this many points, but at least
            1,024. From meshes and clouds of PyG's data sets and ScanObjectNN at most twice as many
            points are sampled.
        progress: Whether to show a progress bar for shapes that take long to generate or read, if
            the output is a terminal.

    Raises:
        ValueError: If a name is none of these, or there is none; or if a source has no shapes, or
            shapes that cannot be read.
    """
    if splits not in ("train", "all"):
        raise ValueError(f"Expected 'splits' to be 'train' or 'all' (got {splits!r})")
    if not specs:
        raise ValueError("Expected 'data' to name what to learn from (got nothing)")
    hidden = None if progress else True
    clouds: list[Tensor] = []
    streams: list[tuple[ProceduralStream, int]] = []
    seed = 0  # of the next stream, so that no two share a solid
    for spec in specs:
        kind, _, rest = spec.partition(":")
        count, new = rest.removesuffix("/epoch"), rest.endswith("/epoch")
        if kind in _STREAMS and count.isdecimal() and int(count) > 0:
            if int(count) > _MOST_SHAPES:
                raise ValueError(f"Expected COUNT to be at most {_MOST_SHAPES:,} (got {spec!r})")
            stream = ProceduralStream(max(num_points, _LEAST_POINTS), seed, **_STREAMS[kind])
            seed += 1
            streams += [(stream, int(count))] if new else []
            rows = tqdm(range(0 if new else int(count)), desc=spec, leave=False, disable=hidden)
            clouds += [_pos(stream.shape(row)) for row in rows]
        elif kind in _UP and rest:
            prepare = Preprocessing(2 * num_points, up_axis=_UP[kind]).evaluation()
            for dataset in _datasets(spec, splits):
                items = tqdm(dataset, desc=spec, leave=False, disable=hidden)
                clouds += [_pos(prepare(item)) for item in items]
        elif Path(spec).suffix == ".npz" and Path(spec).is_file():
            clouds += _npz_clouds(Path(spec), splits)
        elif Path(spec).is_dir():
            clouds += _folder_clouds(Path(spec), splits)
        else:
            raise ValueError(
                "Expected 'data' to be a FILE.npz or a FOLDER that exists, "
                f"{', '.join(f'{name}:ROOT' for name in _UP)}, "
                f"{' or '.join(f'{name}:COUNT[/epoch]' for name in _STREAMS)} (got {spec!r})"
            )
    return Corpus(clouds, streams)


def _npz_clouds(path: Path, splits: WhichSplits) -> list[Tensor]:
    """Return the normalized clouds of a file, with or without labels."""
    file = read_npz(path)
    codes = read_split(file, None)
    present = [name for name, code in SPLITS.items() if code in codes]
    wanted = _wanted(path, present, splits)
    rows = np.flatnonzero(select_rows(file, wanted, codes)).tolist()
    return [_normalized(torch.from_numpy(file.positions(row))) for row in rows]


def _datasets(spec: str, splits: WhichSplits) -> list[Any]:
    """Return the data sets of a spec for PyG's data sets or ScanObjectNN."""
    source = open_source(spec)
    sets = [source.train] if splits == "train" else [source.train, source.val, source.test]
    return [one for one in sets if one is not None]


def _folder_clouds(root: Path, splits: WhichSplits) -> list[Tensor]:
    """Return the normalized shapes of a folder; later calls read the folder's cache."""
    found = [path for path in files_below(root) if path.suffix.lower() in FILE_TYPES]
    loose = [path for path in found if path.parent == root]
    tops = {path: path.relative_to(root).parts[0] for path in found}
    if not loose and found and all(map(split_of_folder, tops.values())):
        present = sorted({str(split_of_folder(top)) for top in tops.values()})
        wanted = _wanted(root, present, splits)
        if any(path.parent.parent == root for path in found):  # splits without folders of classes
            taken = [p for p in found if wanted in (None, split_of_folder(tops[p]))]
            return _unlabeled(root, taken)
    # A README.txt next to the class folders is not a cloud.
    if not loose or (len(loose) < len(found) and not any(map(may_be_cloud, loose))):
        wanted = _wanted(root, index_folder(root).splits, splits)
        shapes: Any = ShapeFolder(root, wanted, num_points=None)
        return [_pos(shapes[number]) for number in range(len(shapes))]
    return _unlabeled(root, found)


def _unlabeled(root: Path, found: Sequence[Path]) -> list[Tensor]:
    """Return shapes outside of class folders, which belong to no data set of labeled shapes."""
    names = tuple(path.relative_to(root).as_posix() for path in found)
    index = FolderIndex(root, names, ("",) * len(names), (None,) * len(names))
    # Part of the cache's key, so that a data set of labeled shapes does not find these.
    options: dict[str, Any] = {"num_points": None, "channels": (), "fill": None, "columns": None}
    options |= {"decimal": ".", "mesh_vertices": False}
    options |= {"drop_invalid": False, "seed": 0, "labels": False}
    file = load_folder(index, options, None)
    return [_normalized(torch.from_numpy(file.positions(row))) for row in range(len(names))]


def _wanted(path: Path, present: Sequence[str], splits: WhichSplits) -> str | None:
    """Return the split to read, ``None`` for all; test shapes are read only with ``"all"``."""
    if splits == "all" or not present:
        return None
    if "train" not in present:
        raise ValueError(
            f"Expected '{path}' to have a training split (got only {', '.join(sorted(present))}); "
            "splits='all' reads every split"
        )
    return "train"


def _normalized(pos: Tensor) -> Tensor:
    return _pos(Normalize()(Data(pos=pos)))


def _pos(data: Data) -> Tensor:
    if data.pos is None:
        raise ValueError(f"Expected 'data' to have 'pos' (got the keys {data.keys()})")
    return data.pos


__all__ = ["WhichSplits", "open_corpus"]
