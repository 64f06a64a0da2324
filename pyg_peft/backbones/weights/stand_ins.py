"""What a file of weights holds beside them: values of known classes, of which none is imported.

Training scripts save their arguments, metrics and paths with the weights. Each such object is read
as a stand-in that keeps what the file says of it; code of the class never runs, and neither does
that of NumPy, whose arrays can be damaged from a file.
"""

import math
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


class StandIn:
    """In the place of an object of another class.

    Attributes:
        given: Arguments that the object was to be made with.
        state: What was to be its attributes.
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
    """In the place of a NumPy array."""

    def tensor(self) -> Tensor:
        """The array as a tensor.

        Raises:
            ValueError: It is none of numbers, or its bytes are not as many as its shape says.
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
    """In the place of a NumPy data type."""

    def numpy(self) -> np.dtype[Any]:
        """The type, if it is one of numbers.

        Raises:
            ValueError: It is another.
        """
        code = self.given[0] if self.given else None
        if code not in _CODES:
            raise ValueError(f"an array of the type {code!r}")
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(f"{order if order in ('<', '>') else '='}{code}")


_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
# Modules were renamed from version to version.
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
    # Dictionaries by another name: configurations, and what Lightning keeps of arguments.
    "easydict.EasyDict": OrderedDict,
    "addict.addict.Dict": OrderedDict,
    "yacs.config.CfgNode": OrderedDict,
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning.pytorch.utilities.parsing.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
}


def harmless_types_allowed() -> AbstractContextManager[Any]:
    """Let ``weights_only`` read what training scripts save beside weights, as stand-ins."""
    allowed: list[Any] = [(kind, name) for name, kind in _STAND_INS.items()]
    # A data type is built with a state, which torch allows for listed classes only.
    return torch.serialization.safe_globals([*allowed, StandIn, ArrayStandIn, DTypeStandIn])


__all__ = ["ArrayStandIn", "StandIn", "harmless_types_allowed"]
