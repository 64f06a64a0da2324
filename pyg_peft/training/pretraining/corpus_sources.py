"""From words on the command line to the unlabelled clouds of pre-training."""

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
from pyg_peft.datasets.folder_cache import load_folder
from pyg_peft.datasets.folder_index import FolderIndex, files_below, index_folder
from pyg_peft.datasets.npz_file import read_npz
from pyg_peft.datasets.npz_select import SPLITS, read_split, select_rows, split_of_folder
from pyg_peft.training.data.preprocessing import Preprocessing
from pyg_peft.training.data.sources import open_source
from pyg_peft.training.pretraining.corpus import Corpus

WhichSplits = Literal["train", "all"]

# What open_source knows besides files, and the axis that points up there.
_UP = {"modelnet10": "z", "modelnet40": "z", "shapenet": "y", "scanobjectnn": "y"}
# How "procedural" and "scans" are made; another value here would be another corpus.
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
    """Join the clouds that ``specs`` name, z up, centred and scaled into the unit ball.

    Args:
        specs: each ``FILE.npz`` or a folder of shape files in any layout, whose labels are neither
            needed nor read; ``modelnet10:ROOT``, ``modelnet40:ROOT`` or ``shapenet:ROOT``, PyG's
            data sets; ``scanobjectnn:ROOT``, the authors' files; ``procedural:COUNT``, the first
            shapes of :class:`~pyg_peft.datasets.ProceduralStream`; or ``scans:COUNT``, the same,
            half of them with something cut out, all as a scanner sees them. With ``COUNT/epoch``
            each epoch has as many new ones, which are made as they are read. Each further spec of
            shapes that are made has the next seed, and so other solids.
        splits: ``"train"`` reads the training split of whatever has one, so that nothing is learned
            from shapes that are to test it; ``"all"`` reads everything.
        num_points: of a view. Shapes that are made have as many, and no fewer than 1,024; of the
            meshes and clouds of PyG's data sets and ScanObjectNN at most twice as many are drawn.
        progress: show a bar for shapes that take long to make or read, where somebody watches.

    Raises:
        ValueError: a name is none of these, or there is none; a source holds no shapes, or ones
            that cannot be read.
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
    """Normalised clouds of a file, labelled or not."""
    file = read_npz(path)
    codes = read_split(file, None)
    present = [name for name, code in SPLITS.items() if code in codes]
    wanted = _wanted(path, present, splits)
    rows = np.flatnonzero(select_rows(file, wanted, codes)).tolist()
    return [_normalised(torch.from_numpy(file.positions(row))) for row in rows]


def _datasets(spec: str, splits: WhichSplits) -> list[Any]:
    """Those of PyG's data sets, or of ScanObjectNN."""
    source = open_source(spec)
    sets = [source.train] if splits == "train" else [source.train, source.val, source.test]
    return [one for one in sets if one is not None]


def _folder_clouds(root: Path, splits: WhichSplits) -> list[Tensor]:
    """Normalised shapes of a folder; read once, then from the folder's cache."""
    found = [path for path in files_below(root) if path.suffix.lower() in FILE_TYPES]
    loose = [path for path in found if path.parent == root]
    tops = {path: path.relative_to(root).parts[0] for path in found}
    if not loose and found and all(map(split_of_folder, tops.values())):
        present = sorted({str(split_of_folder(top)) for top in tops.values()})
        wanted = _wanted(root, present, splits)
        if any(path.parent.parent == root for path in found):  # splits without folders of classes
            taken = [p for p in found if wanted in (None, split_of_folder(tops[p]))]
            return _unlabelled(root, taken)
    # A README.txt beside the folders of classes is no cloud, and none is expected there.
    if not loose or (len(loose) < len(found) and not any(map(may_be_cloud, loose))):
        wanted = _wanted(root, index_folder(root).splits, splits)
        shapes: Any = ShapeFolder(root, wanted, num_points=None)
        return [_pos(shapes[number]) for number in range(len(shapes))]
    return _unlabelled(root, found)


def _unlabelled(root: Path, found: Sequence[Path]) -> list[Tensor]:
    """Shapes outside of folders of classes, so in no data set of labelled shapes."""
    names = tuple(path.relative_to(root).as_posix() for path in found)
    index = FolderIndex(root, names, ("",) * len(names), (None,) * len(names))
    # Part of the cache's key: a data set of labelled shapes must not find these.
    options: dict[str, Any] = {"num_points": None, "channels": (), "fill": None, "columns": None}
    options |= {"decimal": ".", "mesh_vertices": False}
    options |= {"drop_invalid": False, "seed": 0, "labels": False}
    file = load_folder(index, options, None)
    return [_normalised(torch.from_numpy(file.positions(row))) for row in range(len(names))]


def _wanted(path: Path, present: Sequence[str], splits: WhichSplits) -> str | None:
    """The split to read, ``None`` for all; test shapes are learned from only if it is asked for."""
    if splits == "all" or not present:
        return None
    if "train" not in present:
        raise ValueError(
            f"Expected '{path}' to have a training split (got only {', '.join(sorted(present))}); "
            "splits='all' reads every split"
        )
    return "train"


def _normalised(pos: Tensor) -> Tensor:
    return _pos(Normalize()(Data(pos=pos)))


def _pos(data: Data) -> Tensor:
    if data.pos is None:
        raise ValueError(f"Expected 'data' to have 'pos' (got the keys {data.keys()})")
    return data.pos


__all__ = ["WhichSplits", "open_corpus"]
