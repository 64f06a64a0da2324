"""Extraction of one row per cloud from any model, by pooling the output of a module."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pyg_peft.errors import nearest_paths
from pyg_peft.nn.module_paths import matches_glob

_POOLS = ("max", "mean", None)


@dataclass(frozen=True)
class CloudRows:
    """Module whose pooled output provides the rows and queries of a memory bank.

    Args:
        module: Path of the module whose output is used.
        pool: ``"max"`` or ``"mean"`` over the rows of a cloud, zero for a cloud without rows;
            ``None`` if the module returns one row per cloud.

    Raises:
        ValueError: If ``pool`` is something else, or if the module does not run exactly once or
            returns unsuitable rows.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> pos, batch = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
        >>> CloudRows("0").read(net, lambda: net(pos), batch, 2).shape
        torch.Size([2, 4])
    """

    module: str
    pool: str | None = "max"

    def __post_init__(self) -> None:
        if self.pool not in _POOLS:
            raise ValueError(f"Expected 'pool' to be 'max', 'mean' or None (got {self.pool!r})")

    @classmethod
    def find(cls, model: nn.Module, module: str, pool: str | None = "max") -> Self:
        """Look up the one module of ``model`` that matches a path or a glob.

        A ``**`` is the same as ``*``, one segment: one module is named, at one depth.
        """
        paths = [p for p, _ in model.named_modules() if p and "peft" not in p.split(".")]
        glob = re.sub(r"\*+", "*", module)
        found = [path for path in paths if matches_glob(path, glob)]
        if len(found) == 1:
            return cls(found[0], pool)
        if found:
            raise ValueError(f"Expected 'module' to name one module (got {', '.join(found)})")
        raise ValueError(
            f"Expected 'module' to name a module of {type(model).__name__} (got {module!r}; "
            f"nearest paths: {nearest_paths(module, paths)})"
        )

    def read(
        self, model: nn.Module, run: Callable[[], Any], batch: Tensor | None, num_clouds: int
    ) -> Tensor:
        """Run a model and return one row per cloud.

        Args:
            model: Model that contains the module.
            run: Function that runs ``model`` once.
            batch: Cloud id of each point of the model's input; ``None`` for one cloud.
            num_clouds: Number of clouds ``B``.

        Shapes: batch ``(N,)``; output ``(B, C)``.
        """
        outputs: list[Any] = []
        caller = threading.get_ident()

        def note(module: nn.Module, args: Any, output: Any) -> None:
            # Other threads may be calling the same module.
            if threading.get_ident() == caller:
                outputs.append(output)

        handle = model.get_submodule(self.module).register_forward_hook(note)
        try:
            run()
        finally:
            handle.remove()
        if len(outputs) != 1:
            raise ValueError(
                f"Expected {self.module!r} to be called once in a forward (got {len(outputs)} "
                "calls): name another module"
            )
        return self._pooled(outputs[0], batch, num_clouds)

    def _pooled(self, output: Any, batch: Tensor | None, num_clouds: int) -> Tensor:
        x = output
        if (level := level_of(output)) is not None:  # the module has its own set of points
            x, _, ids = level
            batch = batch if ids is None else ids
        elif isinstance(output, (tuple, list)) and output:
            x = output[0]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(
                f"Expected {self.module!r} to return features [N, C], or (x, pos, batch) "
                f"(got {got})"
            )
        if self.pool is None:
            if x.size(0) != num_clouds:
                raise ValueError(
                    f"Expected {self.module!r} to return a row for each of {num_clouds} clouds "
                    f"(got {x.size(0)} rows): pool='max' or 'mean' pools rows of points"
                )
            return x
        if batch is None and num_clouds == 1:
            batch = torch.zeros(x.size(0), dtype=torch.long, device=x.device)
        if batch is None or batch.size(0) != x.size(0):
            points = "unknown" if batch is None else str(batch.size(0))
            raise ValueError(
                f"Expected {self.module!r} to return a row for each point, or (x, pos, batch) "
                f"(got {x.size(0)} rows, of {points} points in {num_clouds} clouds): name another "
                "module, or pass pool=None if it returns one row per cloud"
            )
        return scatter(x, batch, dim=0, dim_size=num_clouds, reduce=str(self.pool))


class Level(NamedTuple):
    """Output of a module that works on its own set of points.

    Attributes:
        x: Features ``[M, C]``.
        pos: Positions ``[M, 3]``.
        batch: Cloud ids ``[M]``, or ``None``.
    """

    x: Tensor
    pos: Tensor
    batch: Tensor | None


def level_of(output: Any) -> Level | None:
    """Return ``(x, pos, batch)`` if an output starts with them, ``None`` otherwise.

    A tuple is recognized by its shapes and dtypes, because three tensors may also be something
    else, such as features, positions and edges.

    Example:
        >>> x, pos = torch.ones(2, 4), torch.ones(2, 3)
        >>> level_of((x, pos, torch.zeros(2, dtype=torch.long))) is not None
        True
        >>> level_of((x, pos, torch.zeros(2, 5, dtype=torch.long))) is None
        True
    """
    if not isinstance(output, (tuple, list)) or len(output) < 3:  # pyright: ignore[reportUnknownArgumentType]
        return None
    x, pos, batch, *_ = output  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(x, Tensor) or not isinstance(pos, Tensor) or x.dim() == 0:
        return None
    if pos.shape != (x.size(0), 3) or not pos.is_floating_point():
        return None
    if batch is not None:
        if not isinstance(batch, Tensor) or batch.shape != x.shape[:1]:
            return None
        if batch.is_floating_point() or batch.dtype == torch.bool:
            return None
    return Level(x, pos, batch)


__all__ = ["CloudRows", "Level", "level_of"]
