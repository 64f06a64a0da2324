"""Open the data sets that ``--data`` names by a shorthand."""

import importlib
import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_peft.datasets import (
    NpzShapes,
    PartLabels,
    ProceduralShapes,
    SampleIds,
    ScanObjectNN,
    SceneFolder,
    SceneSettings,
    ShapeFolder,
    train_val_split,
)
from pyg_peft.datasets.folders.index import index_folder
from pyg_peft.datasets.npz.file import read_npz
from pyg_peft.datasets.npz.furniture import FILE as FURNITURE
from pyg_peft.datasets.npz.select import SPLITS, read_split
from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.datasets.scenes.scene_folder import is_scene

logger = logging.getLogger(__name__)

_BUILT_IN = """\
  FILE.npz               one file with all clouds (fields: see pyg_peft.datasets.NpzShapes)
  FOLDER                 a folder per class, or train/ and test/ (val/) with a folder per class each
  modelnet10:ROOT        PyG's ModelNet10 (modelnet40:ROOT likewise), downloaded where missing
  shapenet:ROOT          PyG's ShapeNet-part, classified by category
  scanobjectnn:ROOT      the authors' .h5 files
  furniture              307 household shapes in this package (a FOLDER of that name wins)
  procedural:COUNT       labeled shapes made by this package
  package.module.Class   a data set class of your own, with data_args {"train": {...}, ...}\
"""


# Arguments of data sets that write, fetch or run something. They are never read from a file.
_BY_HAND = {
    *("root", "path", "cache", "force_reload", "log"),
    *("transform", "pre_transform", "pre_filter"),
}
_MOST_RECORDED = 10_000_000  # largest COUNT that is accepted from a file


@dataclass(frozen=True)
class Splits:
    """Data sets of one source, each with ``sample_id`` and labels.

    Args:
        train: Training split; ``None`` if the source has only others.
        val: Validation split of the source, if it has one.
        test: Test split, if there is one.
        class_names: Names in label order, the same for all splits.
        whole: Whether the source has no splits, so that all of it is in ``train``.
    """

    train: Any
    val: Any
    test: Any
    class_names: tuple[str, ...]
    whole: bool = False

    def check_train(self) -> None:
        """Raise unless there is a training split.

        Raises:
            ValueError: If the source has other splits, but none for training.
        """
        if self.train is None:
            found = [name for name in ("val", "test") if getattr(self, name) is not None]
            raise ValueError(
                f"Expected 'data' to have a training split (got only {', '.join(found)}): name a "
                "folder with train/ beside it, or one without splits"
            )

    def for_evaluation(self) -> "Splits":
        """Return splits with data in ``train`` and ``test``; a source without splits is in both.

        Do not use it for the data that a model was trained on.
        """
        test = self.train if self.whole else self.test
        if self.train is not None:
            return replace(self, test=test)
        held = test if test is not None else self.val
        return replace(self, train=held, val=self.val if self.val is not None else held)

    def hold_out_test(
        self,
        fraction: float = 0.2,
        seed: int = 0,
        *,
        strata: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> tuple["Splits", Tensor | None]:
        """Hold out a test set from the training split, class by class.

        Args:
            fraction: Share of the training split, between 0 and 1 (exclusive).
            seed: Key of the choice. It is not the seed of a run, so that all runs on the data share
                one test set.
            strata: One number per training cloud. Each stratum gives its share. By default the
                labels.
            groups: One number per training cloud. Clouds of one group stay in one split.

        Returns:
            The new splits, and the groups of the clouds that are left to train on.

        Raises:
            ValueError: If there is a test split already, or no training split.

        Example:
            >>> from pyg_peft.datasets import ProceduralShapes
            >>> shapes = ProceduralShapes(num_shapes=40)
            >>> splits, _ = Splits(shapes, None, None, shapes.class_names).hold_out_test()
            >>> len(splits.train) + len(splits.test)
            40
        """
        self.check_train()
        if self.test is not None:
            raise ValueError("Expected data without a test split of their own (got one)")
        labels = labels_of(self.train) if strata is None else strata
        rows, held = train_val_split(labels, fraction, seed, groups=groups)
        rest = None if groups is None else torch.as_tensor(groups)[rows]
        test = self.train[held] if len(held) > 0 else None
        return replace(self, train=self.train[rows], test=test, whole=False), rest


def open_source(spec: str, **options: Any) -> Splits:
    """Open the data sets that ``spec`` names.

    Args:
        spec: One of the shorthands in ``shorthands``.
        options: Arguments of the data set's constructor, for example ``fold=2`` for an ``.npz``
            file; for a class path, one dictionary per split.

    Raises:
        ValueError: If the name is unknown (the message lists the shorthands), or ``options`` do not
            fit the data set.
    """
    kind, _, rest = spec.partition(":")
    path = Path(spec)
    try:
        if rest and kind in _OPENERS:
            return _OPENERS[kind](rest, options)
        if is_shipped(spec):
            return _open_npz(FURNITURE, options)
        if path.suffix == ".npz":
            return _named_classes(_open_npz(path, options), spec)
        if path.is_dir():
            return _named_classes(_open_folder(path, options), spec)
        if names_class(spec):
            return _open_class(spec, options)
    except TypeError as error:
        raise ValueError(
            f"Expected 'data_args' to be arguments of the data set '{spec}' "
            f"(got {options}: {error})"
        ) from error
    raise ValueError(f"Expected 'data' to be one of\n{shorthands()}\n(got {spec!r})")


def is_shipped(spec: str) -> bool:
    """Return whether ``spec`` names shapes of the package, and no file or folder of the user's."""
    return spec == FURNITURE.stem and not Path(spec).exists()


def names_class(spec: str) -> bool:
    """Whether ``spec`` is the path of a class, which is imported and called when it is opened.

    Only users may give such a path, on the command line or in their own configuration file.
    """
    kind, _, rest = spec.partition(":")
    if (rest and kind in _OPENERS) or Path(spec).suffix == ".npz":
        return False
    return "." in spec and "/" not in spec and not Path(spec).exists()


def is_own(spec: str) -> bool:
    """Return whether ``spec`` is opened by code of the user's: a class, or a registered source."""
    return names_class(spec) or spec.partition(":")[0] in _ABOUT


def check_recorded(spec: Any, options: Any, source: str | Path) -> None:
    """Raise unless the data that a file names can be opened safely.

    A file must not name code, a network address, or anything that is written to.

    Args:
        spec: The data that the file names.
        options: Arguments of the data set in the file.
        source: The file, for messages.

    Raises:
        ValueError: If the file names a class, another machine, a path that does not exist, or an
            argument that writes, fetches or runs something. Users have to give these themselves.
    """
    if not isinstance(spec, str) or not isinstance(options, dict):
        raise ValueError(
            f"Expected '{source}' to name the data by a text and 'data_args' by an object "
            f"(got {spec!r} and {options!r})"
        )
    by_hand = f"in '{source}'): give '--data' and '--data_args' on the command line"
    if is_own(spec):
        raise ValueError(
            "Expected 'data' to be given again for a data set class of your own, since no file may "
            f"name code (got {spec!r} with {options!r} {by_hand}"
        )
    kind, _, rest = spec.partition(":")
    rest = rest if kind in _OPENERS else spec
    if kind == "procedural":
        if len(rest) > len(str(_MOST_RECORDED)):
            raise ValueError(
                f"Expected 'procedural:COUNT' to be at most {_MOST_RECORDED:,} (got {spec!r} "
                f"{by_hand}"
            )
    elif is_shipped(spec):
        pass  # of this package, on any machine
    elif "://" in rest or rest.startswith(("//", "\\\\")) or not Path(rest).exists():
        raise ValueError(
            f"Expected the data of the run to be on this machine (got {spec!r} {by_hand}"
        )
    harmful = sorted(name for name in options if name in _BY_HAND)
    if isinstance(options.get("cache"), bool):
        harmful.remove("cache")
    if harmful:
        raise ValueError(
            "Expected no argument of the data set that writes, fetches or runs something to come "
            f"from a file (got {', '.join(harmful)} {by_hand}"
        )


def open_parts(spec: str, **options: Any) -> Splits:
    """Open data sets with labels per point, as :func:`open_source` does for labels per cloud.

    ShapeNet's labels are those of its parts. ``class_names`` are the names of the parts. A folder,
    or a file other than .npz, is a scene: its splits are :class:`~pyg_peft.datasets.SceneFolder`,
    with ``test_fraction`` and the arguments of :class:`~pyg_peft.datasets.SceneSettings` as
    options.

    Raises:
        ValueError: If the name is unknown, or items have no labels per point.
    """
    kind, _, root = spec.partition(":")
    if kind not in _OPENERS and Path(spec).suffix != ".npz" and is_scene(Path(spec)):
        return _open_scene(spec, options)
    if kind == "shapenet" and root:
        train, val, test = _shapenet(root, options)
        whole = False
    else:
        splits = open_source(spec, **options)
        train, val, test = splits.train, splits.val, splits.test
        whole = splits.whole
    first = PartLabels(next(some for some in (train, test, val) if some is not None))
    parts = (first.part_names, first.parts)
    train, val, test = (
        None if some is None else PartLabels(some, *parts) for some in (train, val, test)
    )
    return Splits(train, val, test, first.part_names, whole)


def _open_scene(spec: str, options: Mapping[str, Any]) -> Splits:
    settings = dict(options)
    share = settings.pop("test_fraction", 0.2)
    try:
        chosen = SceneSettings.from_dict(settings)
        first = SceneFolder(spec, chosen, test_fraction=share)
    except TypeError as error:
        raise ValueError(
            f"Expected 'data_args' to be settings of the tiles '{spec}' (got {options}: {error})"
        ) from error
    if not first.splits:
        return Splits(first, None, None, first.class_names, whole=True)
    sets = {split: SceneFolder(spec, first.settings, split) for split in first.splits}
    return _splits(sets)


def _open_npz(path: Path, options: Mapping[str, Any]) -> Splits:
    if not path.exists():
        raise ValueError(f"Expected 'data' to be a file that exists (got '{path}')")
    settings: dict[str, Any] = {"normalize": False, **options}
    codes = read_split(read_npz(path), options.get("fold"))
    if not (codes >= 0).any():
        everything = NpzShapes(path, None, **settings)
        return Splits(everything, None, None, everything.class_names, whole=True)
    left_out = int((codes < 0).sum())
    if left_out:
        logger.warning("%d of %d clouds of '%s' are in no split", left_out, len(codes), path)
    sets = {
        name: NpzShapes(path, name, **settings) for name in SPLITS if (codes == SPLITS[name]).any()
    }
    return _splits(sets)


def _open_folder(path: Path, options: Mapping[str, Any]) -> Splits:
    settings: dict[str, Any] = {"num_points": None, "normalize": False, **options}
    present = index_folder(path, options.get("extensions", ())).splits
    if not present:
        everything = ShapeFolder(path, **settings)
        return Splits(everything, None, None, everything.class_names, whole=True)
    return _splits({split: ShapeFolder(path, split, **settings) for split in present})


def _splits(sets: Mapping[str, Any]) -> Splits:
    train, val, test = (sets.get(split) for split in ("train", "val", "test"))
    return Splits(train, val, test, next(iter(sets.values())).class_names)


def _named_classes(splits: Splits, spec: str) -> Splits:
    """Log a warning for classes that cannot be learned or validated, and return the splits."""
    if splits.train is None:
        return splits
    counts = torch.bincount(splits.train.labels, minlength=len(splits.class_names)).tolist()
    named = list(zip(splits.class_names, counts, strict=True))
    for found, what in (
        ([name for name, count in named if count == 0], "no shape to train on, only others"),
        ([name for name, count in named if count == 1], "a single shape to train on"),
    ):
        if found:
            logger.warning("'%s': classes with %s: %s", spec, what, ", ".join(found))
    return splits


def _open_modelnet(name: str) -> Callable[[str, Mapping[str, Any]], Splits]:
    def opener(root: str, options: Mapping[str, Any]) -> Splits:
        from torch_geometric.datasets import ModelNet

        _check_processed(root)
        train = SampleIds(ModelNet(root, name, train=True, **options))
        test = SampleIds(ModelNet(root, name, train=False, **options), train.class_names)
        return Splits(train, None, test, train.class_names)

    return opener


def _open_shapenet(root: str, options: Mapping[str, Any]) -> Splits:
    by_category = {"transform": _CategoryAsLabel(), **options}
    sets = [SampleIds(dataset) for dataset in _shapenet(root, by_category)]
    return Splits(sets[0], sets[1], sets[2], sets[0].class_names)


def _shapenet(root: str, options: Mapping[str, Any]) -> list[Any]:
    from torch_geometric.datasets import ShapeNet

    _check_processed(root)
    # PyG's default puts normals into x, which only some backbones accept.
    settings: dict[str, Any] = {"include_normals": False, **options}
    return [ShapeNet(root, split=split, **settings) for split in ("train", "val", "test")]


def _check_processed(root: str) -> None:
    """Raise unless PyG can read its files in ``root`` without running code in them.

    If ``torch.load`` refuses a file, PyG loads it again as a plain pickle, which can run code.
    """
    if "://" in root:
        raise ValueError(f"Expected 'ROOT' to be a folder of this machine (got {root!r})")
    for path in sorted(Path(root).glob("processed/*.pt")):
        try:
            torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        # PyTorch may raise any exception for damaged bytes.
        except Exception as error:
            raise ValueError(
                f"Expected '{path}' to be a whole file of PyG's with nothing in it that runs "
                f"(got {type(error).__name__}): delete the folder 'processed', which PyG makes anew"
            ) from error


def _open_scanobjectnn(root: str, options: Mapping[str, Any]) -> Splits:
    # As for every other source, only the saved preprocessing normalizes.
    settings: dict[str, Any] = {"normalize": False, **options}
    train = ScanObjectNN(root, split="train", **settings)
    test = ScanObjectNN(root, split="test", **settings)
    return Splits(train, None, test, tuple(train.class_names))


def _open_procedural(count: str, options: Mapping[str, Any]) -> Splits:
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"Expected 'procedural:COUNT' to name a positive number (got {count!r})")
    size = int(count)
    sets = [
        ProceduralShapes(split, num_shapes=max(1, number), **options)
        for split, number in (("train", size), ("val", size // 4), ("test", size // 4))
    ]
    return Splits(sets[0], sets[1], sets[2], sets[0].class_names)


def _open_class(path: str, options: Mapping[str, Any]) -> Splits:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Expected 'data' to name an importable class or one of\n{shorthands()}\n"
            f"(got {path!r}: {error})"
        ) from error
    # Checked before it is called, since a function of that name might do anything.
    if not isinstance(kind, type) or not issubclass(kind, Dataset):
        raise ValueError(
            "Expected 'data' to name a subclass of torch.utils.data.Dataset "
            f"(got {path!r}, {'a class' if isinstance(kind, type) else 'no class'} of another kind)"
        )
    unknown = sorted(set(options) - {"train", "val", "test"})
    if unknown or "train" not in options:
        raise ValueError(
            "Expected 'data_args' of a class path to hold constructor arguments under 'train' and, "
            f"if there are such splits, 'val' and 'test' (got {sorted(options)})"
        )
    wrong = [split for split, given in options.items() if not isinstance(given, Mapping)]
    if wrong:
        raise ValueError(
            f"Expected 'data_args' to hold a mapping under '{wrong[0]}' (got {options[wrong[0]]!r})"
        )
    train = SampleIds(kind(**options["train"]))
    found = {
        split: SampleIds(kind(**options[split]), train.class_names) if split in options else None
        for split in ("val", "test")
    }
    whole = all(split is None for split in found.values())
    return Splits(train, found["val"], found["test"], train.class_names, whole)


class _CategoryAsLabel(BaseTransform):
    """Use ShapeNet's category as the label for classification; its ``y`` has labels per point."""

    def forward(self, data: Data) -> Data:
        data.y = data.category
        return data


_OPENERS: dict[str, Callable[[str, Mapping[str, Any]], Splits]] = {
    "modelnet10": _open_modelnet("10"),
    "modelnet40": _open_modelnet("40"),
    "shapenet": _open_shapenet,
    "scanobjectnn": _open_scanobjectnn,
    "procedural": _open_procedural,
}


def register_source(
    name: str, opener: Callable[[str, Mapping[str, Any]], Splits], about: str
) -> None:
    """Register your own data source: ``--data name:REST`` calls ``opener("REST", data_args)``.

    Args:
        name: The word before the colon.
        opener: A function that returns the data sets. Each item must have ``y`` and ``sample_id``,
            see :class:`~pyg_peft.datasets.SampleIds`.
        about: One line for the help of commands.

    Raises:
        ValueError: If the name is taken by another opener, or is not a plain word.

    Example:
        >>> from pyg_peft.training import open_source, register_source
        >>> def halves(rest, options):
        ...     return open_source(f"procedural:{int(rest) // 2}", **options)
        >>> register_source("halves", halves, "half as many procedural shapes")
        >>> len(open_source("halves:40").train)
        20
    """
    if not name.isidentifier():
        raise ValueError(f"Expected 'name' to be a plain word (got {name!r})")
    if _OPENERS.get(name, opener) is not opener:
        raise ValueError(f"Expected a name that is free (got {name!r}, which is taken)")
    _OPENERS[name] = opener
    _ABOUT[name] = about


def shorthands() -> str:
    """Return a description of the values of ``--data``, one line each."""
    more = [f"  {f'{name}:...':22s} {about}" for name, about in _ABOUT.items()]
    return "\n".join([_BUILT_IN, *more])


_ABOUT: dict[str, str] = {}

__all__ = [
    "Splits",
    "check_recorded",
    "is_own",
    "names_class",
    "open_parts",
    "open_source",
    "register_source",
    "shorthands",
]
