"""Whether the settings of a method are of the types that they are declared with."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, get_args

_PLAIN = {int, float, bool, str, NoneType}


def check_types(config: Any) -> None:
    """Raise unless every plain setting of a dataclass is of its type: ``int``, ``float``, ``bool``,
    ``str``, or one of several of these, ``None`` among them.

    A whole number is a ``float`` too, and a ``bool`` is no number. Fields of other types, and
    annotations that are text, are not looked at.

    Args:
        config: An instance.

    Raises:
        TypeError: Naming the setting, what was expected and what came.
    """
    for field in dataclasses.fields(config):
        declared: Any = field.type
        kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
        value = getattr(config, field.name)
        if _PLAIN.issuperset(kinds) and not _is_one_of(value, kinds):
            wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
            raise TypeError(f"Expected '{field.name}' to be {wanted} (got {value!r})")


def _is_one_of(value: Any, kinds: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


__all__ = ["check_types"]
