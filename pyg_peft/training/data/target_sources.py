"""Open data sets whose clouds have numbers to learn: targets of a regression, or several labels."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyg_peft.datasets import CloudTargets, NpzShapes, TargetFolder
from pyg_peft.datasets.folders.target_table import TABLE, read_table
from pyg_peft.datasets.npz.file import names_in
from pyg_peft.training.data.sources import (
    Splits,
    is_own,
    load_class,
    names_class,
    open_source,
    shorthands,
)

logger = logging.getLogger(__name__)

FIELD = "target"


def open_targets(spec: str, **options: Any) -> Splits:
    """Open data sets with targets, as :func:`open_source` does for classes.

    ``class_names`` are the names of the targets. A data set of your own has them in ``y``, and
    their names in ``target_names``.

    Args:
        spec: A ``FILE.npz`` with a field ``target`` of numbers per cloud, ``[M]`` or ``[M, T]``,
            and their names in ``target_names``; a ``FOLDER`` with a ``labels.csv``, see
            :class:`~pyg_peft.datasets.TargetFolder`; the path of a class; or a source that
            :func:`register_source` registered.
        options: Arguments of the data set, as for ``open_source``. ``target_field`` is the name of
            another field of an ``.npz`` file, ``size`` for example, whose names are in
            ``size_names``.

    Raises:
        ValueError: If the name is unknown, or items have no targets.
    """
    path = Path(spec)
    try:
        if path.suffix == ".npz":
            return _open_npz(spec, dict(options))
        if path.is_dir():
            return _open_folder(path, options)
        if names_class(spec):
            sets = load_class(spec, options)
            return _wrap(sets.get("train"), sets.get("val"), sets.get("test"))
    except TypeError as error:
        raise ValueError(
            f"Expected 'data_args' to be arguments of the data set '{spec}' "
            f"(got {options}: {error})"
        ) from error
    if is_own(spec):
        found = open_source(spec, **options)
        return _wrap(found.train, found.val, found.test, whole=found.whole)
    raise ValueError(
        f"Expected 'data' with targets to be a FILE.npz with the field '{FIELD}', a FOLDER with a "
        f"{TABLE}, a class path or a source of your own (got {spec!r}); data with classes are\n"
        f"{shorthands()}"
    )


def _open_npz(spec: str, options: dict[str, Any]) -> Splits:
    field = options.pop("target_field", FIELD)
    found = open_source(spec, **options)
    sets = (found.train, found.val, found.test)
    _name_left_out(next(some for some in sets if some is not None), spec)
    train, val, test = (None if some is None else _of_field(some, field, spec) for some in sets)
    first = next(some for some in (train, val, test) if some is not None)
    return Splits(train, val, test, first.target_names, found.whole)


def _name_left_out(dataset: NpzShapes, spec: str) -> None:
    labels = dataset.fields.get("label", np.zeros(0))
    left_out = int((labels < 0).sum())
    if left_out:
        logger.warning("'%s': %d clouds with the 'label' -1 are left out", spec, left_out)


def _of_field(dataset: NpzShapes, field: str, spec: str) -> CloudTargets:
    fields = dataset.fields
    if field not in fields:
        raise ValueError(
            f"Expected '{spec}' to have the field '{field}' of targets (got {sorted(fields)}): "
            "'target_field' in 'data_args' names another"
        )
    values = fields[field]
    count = len(fields["offsets"]) - 1 if "offsets" in fields else len(fields["xyz"])
    if values.ndim not in (1, 2) or len(values) != count:
        raise ValueError(
            f"Expected '{field}' of '{spec}' to be of shape [{count}] or [{count}, T] (got "
            f"{list(values.shape)})"
        )
    key = f"{field}_names"
    names = names_in(fields, key, spec) if key in fields else None
    if names is None and values.ndim == 1:
        names = [field]
    return CloudTargets(dataset, names, values=values[np.asarray(dataset.sample_ids)])


def _open_folder(path: Path, options: Mapping[str, Any]) -> Splits:
    table = options.get("table", TABLE)
    present = sorted({split for split in read_table(path / table).split_of if split is not None})
    settings: dict[str, Any] = {"num_points": None, "normalize": False, **options}
    if not present:
        return _wrap(TargetFolder(path, **settings), None, None, whole=True)
    sets = {split: TargetFolder(path, split, **settings) for split in present}
    return _wrap(sets.get("train"), sets.get("val"), sets.get("test"))


def _wrap(train: Any, val: Any, test: Any, *, whole: bool = False) -> Splits:
    given = (train, val, test)
    first = CloudTargets(next(some for some in given if some is not None))
    names = first.target_names
    wrapped = [None if some is None else CloudTargets(some, names) for some in given]
    return Splits(wrapped[0], wrapped[1], wrapped[2], names, whole)


__all__ = ["open_targets"]
