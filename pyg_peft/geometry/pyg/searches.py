"""Searches with the interface and meaning of PyG's own operators.

They take features of any width and offsets of clouds, and return edges ``[2, E]`` with the
receiver, a row of ``y``, in row 0. Ties are broken by row, and if there are too many neighbors,
they are cut by distance, then row. The compiled libraries define neither.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_peft.errors import check_tensor
from pyg_peft.geometry.layout import offsets
from pyg_peft.geometry.ordering import table_distance
from pyg_peft.geometry.search.samplers import Sampling
from pyg_peft.geometry.search.sampling import sample
from pyg_peft.geometry.search.tables import drop_self, search_table, self_first, to_edges

#: Width of the first search within a radius; wider searches follow only if it is filled.
_FIRST_WIDTH = 64


def pyg_knn(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None = None,
    ptr_y: Tensor | None = None,
    k: int = 1,
    cosine: bool = False,
    num_workers: int = 1,
) -> Tensor:
    """Return the ``k`` rows of ``x`` nearest to each row of ``y``.

    If rows search each other, a row precedes all other rows that are equal to it. PyG removes loops
    from ``k + 1`` neighbors and thus keeps ``k``. ``cosine`` compares directions instead of
    positions. ``num_workers`` is not used; torch's own number of threads applies.
    """
    if k < 1:
        raise ValueError(f"Expected 'k' to be >= 1 (got {k})")
    x, y, ptr_x, ptr_y = _prepared(x, y, ptr_x, ptr_y)
    same = y is x
    if cosine:
        # Between unit vectors the squared distance is twice the cosine distance.
        x = _unit(x)
        y = x if same else _unit(y)
    table = search_table(x, y, k, ptr_x, ptr_y)
    if same and torch.equal(ptr_x, ptr_y):
        table = self_first(table)
    return to_edges(table).flip(0)


def pyg_radius(
    x: Tensor,
    y: Tensor,
    ptr_x: Tensor | None = None,
    ptr_y: Tensor | None = None,
    r: float = 1.0,
    max_num_neighbors: int = 32,
    num_workers: int = 1,
    ignore_same_index: bool = False,
) -> Tensor:
    """Return the rows of ``x`` closer than ``r`` to each row of ``y``, the nearest if too many."""
    if not r > 0:
        raise ValueError(f"Expected 'r' to be > 0 (got {r})")
    x, y, ptr_x, ptr_y = _prepared(x, y, ptr_x, ptr_y)
    limit = max(0, max_num_neighbors) + int(ignore_same_index)
    width = min(limit, _FIRST_WIDTH)
    table = search_table(x, y, width, ptr_x, ptr_y, radius=r)
    while width < limit and table.size(1) == width and bool((table[:, -1] >= 0).any()):
        width = min(limit, 4 * width)
        table = search_table(x, y, width, ptr_x, ptr_y, radius=r)
    # Our ball includes its boundary, PyG's does not.
    table = table.masked_fill(table_distance(x, y, table) >= r * r, -1)
    if ignore_same_index:
        # A row without its own index loses its last neighbor instead, if it was cut at the limit.
        table = drop_self(table if table.size(1) == limit else F.pad(table, (0, 1), value=-1))
    return to_edges(table).flip(0)


def pyg_nearest(
    x: Tensor, y: Tensor, ptr_x: Tensor | None = None, ptr_y: Tensor | None = None
) -> Tensor:
    """Return the row of ``y`` nearest to each row of ``x``."""
    x, y, ptr_x, ptr_y = _prepared(_rows(x, "x"), _rows(y, "y"), ptr_x, ptr_y)
    first = ptr_y[:-1].repeat_interleave(ptr_x.diff(), output_size=x.size(0))
    table = search_table(y, x, 1, ptr_y, ptr_x)
    if table.size(1) == 0:
        return first
    return torch.where(table[:, 0] >= 0, table[:, 0], first)


def pyg_fps(src: Tensor, ptr: Tensor, ratio: float = 0.5, random_start: bool = True) -> Tensor:
    """Return the share ``ratio`` of the rows of each cloud, rounded up, cloud by cloud.

    A random start is drawn from torch's default generator. The lowest row wins a tie.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"Expected 'ratio' to lie in (0, 1] (got {ratio})")
    src = _searchable(_rows(src, "src"), "src")
    ptr = _borders(ptr, src, "batch")
    count = ptr.diff()
    # PyG rounds in float32.
    wanted = (count.float() * ratio).ceil().long()
    most = int(wanted.max()) if wanted.numel() > 0 else 0
    if most == 0:
        return ptr.new_empty(0)
    start = ptr[:-1]
    if random_start:
        share = torch.rand(count.numel(), dtype=torch.float64, device=ptr.device)
        start = start + torch.minimum((share * count).long(), (count - 1).clamp(min=0))
    picks = sample(Sampling(src, most, ptr, start, ties="lowest"))
    place = torch.arange(most, device=ptr.device)
    return picks[place < wanted.unsqueeze(1)]


def _prepared(
    x: Tensor, y: Tensor, ptr_x: Tensor | None, ptr_y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_tensor(x, "x", shape=("N", "F"))
    check_tensor(y, "y", shape=("M", x.size(1)))
    if (ptr_x is None) != (ptr_y is None):
        raise ValueError("Expected the batches of 'x' and 'y' to be given together (got one)")
    # The dispatcher may pass the same tensor as two objects.
    same = y.data_ptr() == x.data_ptr() and y.shape == x.shape and y.stride() == x.stride()
    x = _searchable(x, "x")
    y = x if same else _searchable(y, "y").to(x.dtype)
    ptr_x, ptr_y = _borders(ptr_x, x, "batch_x"), _borders(ptr_y, y, "batch_y")
    # Without a batch size, each batch has its own number of clouds; missing clouds are empty.
    size = max(ptr_x.numel(), ptr_y.numel())
    return x, y, _padded(ptr_x, size), _padded(ptr_y, size)


def _borders(ptr: Tensor | None, x: Tensor, name: str) -> Tensor:
    if ptr is None:
        return offsets(None, x.size(0), device=x.device)
    # A batch arrives as offsets, which only show how many rows they cover.
    ptr = check_tensor(ptr, name, shape=("B + 1",), kind="int").to(x.device, torch.long)
    covered = int(ptr[-1]) if ptr.numel() > 0 else 0
    if ptr.numel() == 0 or covered != x.size(0) or bool((ptr.diff() < 0).any()):
        raise ValueError(
            f"Expected '{name}' to be sorted and to cover {x.size(0)} rows (got {covered})"
        )
    return ptr


def _rows(x: Tensor, name: str) -> Tensor:
    check_tensor(x, name)
    if x.dim() == 0:
        raise ValueError(f"Expected '{name}' to be of shape [N, ...] (got [])")
    return x.unsqueeze(1) if x.dim() == 1 else x.flatten(1)


def _padded(ptr: Tensor, size: int) -> Tensor:
    return torch.cat([ptr, ptr[-1:].expand(size - ptr.numel())])


def _unit(x: Tensor) -> Tensor:
    """Return the directions of rows, including rows too long or too short to be squared."""
    largest = x.abs().amax(dim=-1, keepdim=True) if x.size(-1) > 0 else x.new_zeros(1)
    _, exponent = torch.frexp(largest)
    extreme = (exponent.abs() > 40) & (largest > 0)
    # A power of two changes no digit. Two steps are needed as it may itself be out of range.
    half = (-exponent.masked_fill(~extreme, 0)) // 2
    x = torch.ldexp(torch.ldexp(x, half), -exponent.masked_fill(~extreme, 0) - half)
    return F.normalize(x, dim=-1)


def _searchable(x: Tensor, name: str) -> Tensor:
    if x.is_complex():
        raise TypeError(f"Expected '{name}' to be of real numbers (got {x.dtype})")
    if x.size(1) == 0:
        return x.new_zeros(x.size(0), 1, dtype=torch.float32)  # all rows are equal
    if not x.is_floating_point():
        return x.double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"Expected '{name}' to be finite (got NaN or infinity)")
    return (x if x.dtype in (torch.float32, torch.float64) else x.float()).detach()


__all__ = ["pyg_fps", "pyg_knn", "pyg_nearest", "pyg_radius"]
