"""How tiles of a scene are read: labels, classes, features and heights, as JSON values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from pyg_peft.datasets.checks import check_names
from pyg_peft.errors import check_count, check_number

_MAPPINGS = {"classes", "features"}
HEIGHTS = ("none", "tile_minimum", "ground")
MISSING = ("error", "zero")

#: Names of the labels 0 to 18 of the LAS format, as its standard (version 1.4) defines them.
ASPRS_NAMES = (
    *("never classified", "unassigned", "ground", "low vegetation", "medium vegetation"),
    *("high vegetation", "building", "low point", "reserved 8", "water", "rail", "road surface"),
    *("reserved 12", "wire guard", "wire conductor", "transmission tower", "wire connector"),
    *("bridge deck", "high noise"),
)

#: Divisors of features that have a usual range. All others, and those of other files than .las and
#: .laz, are as stored. Colors are scaled to [0, 1] by the reader.
FEATURE_DIVISORS = {
    "intensity": 65535.0,
    "nir": 65535.0,
    "return_number": 7.0,
    "number_of_returns": 7.0,
    "scan_angle_rank": 90.0,
    "scan_angle": 15000.0,
    "user_data": 255.0,
}


@dataclass(frozen=True)
class SceneSettings:
    """How tiles are read and cut; saved with an adapter, so that other tiles are read alike.

    Args:
        label_field: Field of the files that holds a label for each point. ``classification`` is
            that of .las and .laz files.
        ignore_label: One label, or several, of points that are neither trained on nor counted.
        classes: Class names by label, for example ``{2: "ground", 9: "water"}``, in the order of
            the scores. Labels may share a name. Points with other labels are ignored. ``None``: all
            labels in the training tiles, with the names of the LAS standard for .las and .laz
            files.
        features: Names of the point features ``x``, in their order: ``"intensity"``,
            ``"return_number"``, ``"red"``, ``"color"`` (three columns) or any other field. Those of
            .las and .laz files are divided by the constants of ``FEATURE_DIVISORS``. A mapping
            gives divisors of your own: ``{"intensity": 2000, "red": 1}``.
        missing: ``"error"`` if every file must have all features, ``"zero"`` to fill a missing one.
        height: The origin of ``z``. ``"none"``: the middle of each block, so that a model does not
            get absolute heights. ``"tile_minimum"``: the lowest point of the tile. ``"ground"``:
            the ground below each point. It is the lowest point of each cell of ``ground_size``,
            smoothed by a median over 3 x 3 cells and interpolated between them.
        ground_size: Side of these cells, in the unit of the coordinates.
        grid_size: Side of the cubes of which one point each is used; ``None`` uses every point.
        block_size: Side of the square blocks that a model gets.
        stride: Step between blocks in evaluation, where they overlap; half a block by default.
        columns: Names of the columns of text files, see ``read_points``.
        decimal: ``","`` if text files have decimal commas.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If a setting is out of its range, or a label is both ignored and a class.

    Example:
        >>> from pyg_peft.datasets import SceneSettings
        >>> names = {2: "ground", 3: "plants", 4: "plants"}
        >>> settings = SceneSettings(ignore_label=0, classes=names)
        >>> settings.class_names, settings.raw_labels
        (('ground', 'plants'), (2, 3))
    """

    label_field: str = "classification"
    ignore_label: int | Collection[int] = ()
    classes: Mapping[int, str] | None = None
    features: Sequence[str] | Mapping[str, float] = ()
    missing: str = "error"
    height: str = "none"
    ground_size: float = 5.0
    grid_size: float | None = None
    block_size: float = 50.0
    stride: float | None = None
    columns: Sequence[str] | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        if not isinstance(self.label_field, str) or not self.label_field:
            raise TypeError(f"Expected 'label_field' to be a name (got {self.label_field!r})")
        object.__setattr__(self, "label_field", self.label_field.lower())
        ignored = self.ignore_label
        ignored = (ignored,) if not isinstance(ignored, list | tuple | set | frozenset) else ignored
        whole = tuple(check_count(label, "ignore_label", least=None) for label in ignored)
        object.__setattr__(self, "ignore_label", whole)
        object.__setattr__(self, "classes", _checked_classes(self.classes, whole))
        object.__setattr__(self, "features", _checked_features(self.features))
        for name, options in (("missing", MISSING), ("height", HEIGHTS), ("decimal", (".", ","))):
            if getattr(self, name) not in options:
                raise ValueError(
                    f"Expected '{name}' to be one of {options} (got {getattr(self, name)!r})"
                )
        check_number(self.block_size, "block_size", above=0)
        check_number(self.ground_size, "ground_size", above=0)
        if self.grid_size is not None:
            check_number(self.grid_size, "grid_size", above=0)
        if self.stride is not None:
            check_number(self.stride, "stride", above=0, most=self.block_size)
        if self.columns is not None:
            object.__setattr__(self, "columns", check_names(self.columns, "columns"))

    @property
    def ignored(self) -> frozenset[int]:
        """The labels of ``ignore_label``."""
        return frozenset(self.ignore_label)  # pyright: ignore[reportArgumentType]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores.

        Raises:
            ValueError: If ``classes`` are not known yet.
        """
        if self.classes is None:
            raise ValueError(
                "Expected 'classes' to be given, or found in training tiles (got None)"
            )
        return tuple(dict.fromkeys(self.classes.values()))

    @property
    def raw_labels(self) -> tuple[int, ...]:
        """For each class, the first label of files that belongs to it."""
        first: dict[str, int] = {}
        for label, name in (self.classes or {}).items():
            first.setdefault(name, label)
        return tuple(first[name] for name in self.class_names)

    @property
    def num_features(self) -> int:
        """Number of columns of ``x``."""
        return sum(3 if name in ("color", "normal") else 1 for name in self.features)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, from which :meth:`from_dict` makes the same settings."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["ignore_label"] = sorted(self.ignored)
        # Pairs keep their order, which that of the entries of a JSON object may not.
        if self.classes is not None:
            values["classes"] = [list(pair) for pair in self.classes.items()]
        if isinstance(self.features, Mapping):
            values["features"] = [list(pair) for pair in self.features.items()]
        else:
            values["features"] = list(self.features)
        values["columns"] = None if self.columns is None else list(self.columns)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create settings from JSON values.

        The labels of ``classes`` may be texts. ``classes`` and ``features`` may be lists of pairs.

        Raises:
            TypeError, ValueError: If a setting is unknown, or as for the class.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"Expected settings of tiles to be among {', '.join(known)} "
                f"(got {', '.join(map(repr, unknown))})"
            )
        return cls(**{**values, **{name: _mapping(values[name]) for name in _MAPPINGS & {*values}}})

    @classmethod
    def recorded_in(cls, read_args: Mapping[str, Any]) -> Self | None:
        """Return the settings in the ``read_args`` of an adapter, or ``None`` without scenes."""
        return cls.from_dict(read_args) if "label_field" in read_args else None


def _mapping(value: Any) -> Any:
    """Return a mapping for a list of pairs, and any other value unchanged."""
    if not isinstance(value, list) or not value:
        return value
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
    hashable = all(isinstance(pair[0], str | int) for pair in pairs)
    return dict(pairs) if len(pairs) == len(value) and hashable else value


def _checked_classes(classes: Any, ignored: tuple[int, ...]) -> dict[int, str] | None:
    if classes is None:
        return None
    if not isinstance(classes, Mapping) or not classes:
        raise TypeError(
            f"Expected 'classes' to map labels to names, as in {{2: 'ground'}} (got {classes!r})"
        )
    found: dict[int, str] = {}
    for label, name in classes.items():
        if isinstance(label, str):  # JSON has no other keys
            try:
                label = int(label)
            except ValueError:
                raise ValueError(
                    f"Expected 'classes' to have whole numbers as labels (got {label!r})"
                ) from None
        number = check_count(label, "classes", least=None)
        if not isinstance(name, str) or not name:
            raise TypeError(f"Expected 'classes' to give label {number} a name (got {name!r})")
        if number in ignored:
            raise ValueError(
                f"Expected 'ignore_label' and 'classes' to have no label in common (got {number})"
            )
        found[number] = name
    return found


def _checked_features(features: Any) -> tuple[str, ...] | dict[str, float]:
    if isinstance(features, Mapping):
        check_names(list(features), "features")
        return {
            name.lower(): check_number(value, f"features[{name!r}]", above=0)
            for name, value in features.items()
        }
    names = tuple(name.lower() for name in check_names(features, "features"))
    if len(set(names)) < len(names):
        raise ValueError(f"Expected 'features' to have different names (got {list(names)})")
    return names


__all__ = ["ASPRS_NAMES", "FEATURE_DIVISORS", "HEIGHTS", "SceneSettings"]
