"""Clusters of rows in the cells of a grid, with the interface and meaning of PyG's operator."""

import math

import torch
from torch import Tensor

from pyg_peft.errors import check_tensor

_MOST_CELLS = 2**62


def pyg_grid_cluster(
    pos: Tensor, size: Tensor, start: Tensor | None = None, end: Tensor | None = None
) -> Tensor:
    """Return the number of the cell of each row: that of dimension 0 counts fastest.

    A cell has the sides ``size``. Along a dimension there are ``int((end - start) / size) + 1``
    cells, and a row is in cell ``int((pos - start) / size)``, as in ``torch_cluster``. ``start``
    and ``end`` are the smallest and largest coordinates by default. A row outside of them can get
    the number of a cell that other rows are in.

    Raises:
        ValueError: If a coordinate is not finite, a size is not positive, or there are too many
            cells to number.
    """
    check_tensor(pos, "pos")
    pos = pos.detach().unsqueeze(-1) if pos.dim() < 2 else pos.detach().flatten(1)
    size = check_tensor(size, "size").detach().to(pos.device).reshape(-1)
    if size.numel() != pos.size(1) or not bool((size > 0).all()):
        raise ValueError(
            f"Expected 'size' to be {pos.size(1)} numbers above 0 (got {size.tolist()})"
        )
    if pos.is_floating_point() and not bool(torch.isfinite(pos).all()):
        raise ValueError("Expected 'pos' to be finite (got NaN or infinity)")
    if pos.size(0) == 0:
        return torch.zeros(0, dtype=torch.long, device=pos.device)
    start = pos.amin(dim=0) if start is None else start.detach().to(pos.device).reshape(-1)
    end = pos.amax(dim=0) if end is None else end.detach().to(pos.device).reshape(-1)
    for name, value in (("start", start), ("end", end)):
        if value.numel() != pos.size(1):
            raise ValueError(
                f"Expected '{name}' to be {pos.size(1)} numbers (got {value.tolist()})"
            )
    cells = (end - start).true_divide(size)
    most = [int(value) + 1 if abs(value) < _MOST_CELLS else _MOST_CELLS for value in cells.tolist()]
    place = (pos - start).true_divide(size)
    if math.prod(most) > _MOST_CELLS or bool((place.abs() >= _MOST_CELLS).any()):
        raise ValueError(
            f"Expected 'size' to be large enough to number the cells (got {size.tolist()}, which "
            f"gives {' x '.join(map(str, most))} cells)"
        )
    steps = [math.prod(most[:axis]) for axis in range(len(most))]
    return (place.long() * torch.tensor(steps, device=pos.device)).sum(dim=1)


__all__ = ["pyg_grid_cluster"]
