"""Check that the settings of a method have their declared types."""

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args

from pyg_peft.errors import check_number, described

_PLAIN = {int, float, bool, str, NoneType}
_LARGEST = 2**48


def check_types(config: Any) -> None:
    """Raise unless every plain setting of a dataclass has its declared type.

    Plain types are ``int``, ``float``, ``bool``, ``str``, and unions of these and ``None``. A whole
    number is also a ``float``, and a ``bool`` is not a number. Fields of other types, and
    annotations that are text, are not checked. A number that is not finite raises.

    Args:
        config: An instance of a dataclass.

    Raises:
        TypeError: If a setting has another type. The message names the setting and both types.
        ValueError: If a number is not finite, or an integer is larger than any size can be.
    """
    for field in dataclasses.fields(config):
        declared: Any = field.type
        kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
        value = getattr(config, field.name)
        if _PLAIN.issuperset(kinds) and not _is_one_of(value, kinds):
            wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
            raise TypeError(f"Expected '{field.name}' to be {wanted} (got {value!r})")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(
                f"Expected '{field.name}' to lie in [-2**48, 2**48] (got {described(value)})"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"Expected '{field.name}' to be finite (got {value})")


def check_positive(config: Any, *names: str) -> None:
    """Raise ``ValueError`` unless each of these settings is positive, or ``None``."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"Expected '{name}' to be positive (got {value})")


def check_dropout(config: Any) -> None:
    """Raise ``ValueError`` unless ``dropout`` is a probability below one."""
    check_number(config.dropout, "dropout", least=0, below=1)


def check_widths(config: Any, *names: str) -> None:
    """Raise ``TypeError`` unless each of these settings maps paths to widths, or is ``None``."""
    for name in names:
        value: Any = getattr(config, name)
        if value is None:
            continue
        if not isinstance(value, Mapping) or not all(
            isinstance(path, str)
            and isinstance(width, int)
            and not isinstance(width, bool)
            and width >= 0
            for path, width in value.items()
        ):
            raise TypeError(f"Expected '{name}' to map paths to widths (got {value!r})")


def check_names(config: Any, *names: str, dotted: bool = False) -> None:
    """Raise ``ValueError`` unless each of these settings is the name of a parameter.

    Args:
        config: An instance of a dataclass.
        names: Names of the settings.
        dotted: Whether an attribute of a parameter is also allowed, as in ``"graph.pos"``.
    """
    for name in names:
        parts = getattr(config, name).split(".")
        if len(parts) > 1 + dotted or not all(part.isidentifier() for part in parts):
            example = ", or of its attribute as in 'graph.pos'" if dotted else ""
            raise ValueError(
                f"Expected '{name}' to be the name of a parameter{example} "
                f"(got {getattr(config, name)!r})"
            )


def _is_one_of(value: Any, kinds: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


__all__ = ["check_dropout", "check_names", "check_positive", "check_types", "check_widths"]
