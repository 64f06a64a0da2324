"""Stand-ins for objects of known classes in weight files, without importing the classes.

Training scripts save their arguments, metrics and paths with the weights. Each such object is read
as a stand-in that keeps its data from the file. Code of its class never runs. Neither does code of
NumPy, because a file could corrupt its arrays.
"""

import math
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


class StandIn:
    """Placeholder for an object of another class.

    Attributes:
        given: Arguments that would have been passed to the constructor.
        state: State that would have been set as attributes.
    """

    given: tuple[Any, ...]
    state: Any

    def __new__(cls, *given: Any) -> Self:
        made = super().__new__(cls)
        made.given, made.state = given, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class ArrayStandIn(StandIn):
    """Placeholder for a NumPy array."""

    def tensor(self) -> Tensor:
        """Return the array as a tensor.

        Raises:
            ValueError: If it is not an array of numbers, or its number of bytes does not match its
                shape.
        """
        match self.state:
            case (int(), tuple() as shape, DTypeStandIn() as dtype, bool(), bytes() as content):
                kind = dtype.numpy()
                sizes = [size for size in shape if isinstance(size, int) and size >= 0]
                if len(sizes) == len(shape) and math.prod(sizes) * kind.itemsize == len(content):
                    flat = np.frombuffer(content, kind).astype(kind.newbyteorder("="))
                    order = "F" if self.state[3] else "C"
                    return torch.from_numpy(flat.reshape(sizes, order=order).copy(order="C"))
            case _:
                pass
        raise ValueError("an array of something else than numbers, or a damaged one")


class DTypeStandIn(StandIn):
    """Placeholder for a NumPy data type."""

    def numpy(self) -> np.dtype[Any]:
        """Return the NumPy data type.

        Raises:
            ValueError: If it is not a type of numbers.
        """
        code = self.given[0] if self.given else None
        if code not in _CODES:
            raise ValueError(f"an array of the type {code!r}")
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(f"{order if order in ('<', '>') else '='}{code}")


_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
# NumPy renamed its modules between versions.
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_STAND_INS: dict[str, Any] = {
    **{f"{module}._reconstruct": ArrayStandIn for module in _NUMPY},
    **{f"{module}.scalar": StandIn for module in _NUMPY},
    "numpy.ndarray": StandIn,
    "numpy.dtype": DTypeStandIn,
    "argparse.Namespace": StandIn,
    "types.SimpleNamespace": StandIn,
    **{f"{m}.{name}": StandIn for m in ("pathlib", "pathlib._local") for name in _PATHS},
    **{f"datetime.{name}": StandIn for name in ("date", "datetime", "time", "timedelta")},
    "uuid.UUID": StandIn,
    "decimal.Decimal": StandIn,
    "fractions.Fraction": StandIn,
    # Subclasses of dictionaries: configurations, and arguments kept by Lightning.
    "easydict.EasyDict": OrderedDict,
    "addict.addict.Dict": OrderedDict,
    "yacs.config.CfgNode": OrderedDict,
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning.pytorch.utilities.parsing.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
}


def harmless_types_allowed() -> AbstractContextManager[Any]:
    """Let ``weights_only`` read objects that training scripts save with weights, as stand-ins."""
    allowed: list[Any] = [(kind, name) for name, kind in _STAND_INS.items()]
    # A data type is built with a state, which torch allows only for listed classes.
    return torch.serialization.safe_globals([*allowed, StandIn, ArrayStandIn, DTypeStandIn])


__all__ = ["ArrayStandIn", "StandIn", "harmless_types_allowed"]
