"""The constructor's arguments of a model, read from its attributes."""

from inspect import signature
from typing import Any

from torch import nn


def constructor_arguments(model: nn.Module, base: type[nn.Module]) -> dict[str, Any]:
    """Return the constructor's arguments; the class called with them has the same shapes.

    A user's subclass may take other arguments than the class of this package that it extends. The
    arguments are then those of the package's class.

    Args:
        model: Model with an attribute for every argument of its constructor.
        base: Base class of its family, which is not a model itself.

    Example:
        >>> class Base(nn.Module):
        ...     pass
        >>> class Model(Base):
        ...     def __init__(self, depth: int) -> None:
        ...         super().__init__()
        ...         self.depth = depth
        >>> constructor_arguments(Model(3), Base)
        {'depth': 3}
    """
    kinds = [kind for kind in type(model).__mro__ if issubclass(kind, base) and kind is not base]
    ours = (kind for kind in kinds if kind.__module__.startswith("pyg_peft."))
    # A family of a user's own is known by the class that extends the base.
    own = next(ours, kinds[-1] if kinds else base)
    return {name: getattr(model, name) for name in signature(own).parameters}


__all__ = ["constructor_arguments"]
