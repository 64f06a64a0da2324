"""Score a whole scene with a model for single clouds, block by block, and average the votes."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_peft.errors import check_count, check_number, check_pos
from pyg_peft.geometry import scene_columns
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.evaluation.forward import forward_batch
from pyg_peft.typing import Features, Pos


@torch.no_grad()
def score_scene(
    model: nn.Module,
    pos: Pos,
    x: Features | None = None,
    *,
    size: float,
    stride: float | None = None,
    max_points: int = 4096,
    batch_size: int = 8,
    transform: Callable[[Data], Data] | None = None,
    generator: torch.Generator | None = None,
    floor: float | None = None,
) -> Tensor:
    """Return the class probabilities ``[N, K]`` of a scene's points, averaged over their blocks.

    A block's coordinates are in float32. They are relative to the middle of its points in x and y,
    and to the lowest point of the scene in z; the difference is computed in float64. The model gets
    at most ``batch_size * max_points`` points at once. Besides these, the scene and the result,
    memory holds a count of votes per point and the data of ``scene_columns``.

    Args:
        model: A model that returns scores ``[n, K]`` of the points of a batch. It is put into eval
            mode. A ``PeftModel`` or any model, called with those of ``x``, ``pos``, ``batch`` and
            ``batch_size`` that it takes, or as ``forward(data)``.
        pos: Positions ``[N, 3]`` of one scene, z up, on any device. The result is on the CPU.
        x: Features of the points.
        size, stride, max_points, generator: See :func:`~pyg_peft.geometry.scene_columns`.
        batch_size: Number of blocks per batch.
        transform: Transform of each block, for example ``Normalize()``. It must keep the points and
            their order.
        floor: The ``z`` of the scene that is 0 in every block; by default that of its lowest point.

    Raises:
        TypeError, ValueError: As for ``scene_columns``; if ``x`` or a transformed block has another
            number of points; or if the scene is empty.
    """
    check_kind(model, "model", nn.Module)
    check_kind(pos, "pos", Tensor)
    check_kind(x, "x", Tensor, optional=True)
    check_kind(generator, "generator", torch.Generator, optional=True)
    check_count(batch_size, "batch_size")
    check_count(max_points, "max_points")
    for name, value in (("size", size), ("stride", size if stride is None else stride)):
        check_number(value, name)
    if transform is not None and not callable(transform):
        raise TypeError(f"Expected 'transform' to be a transform (got {type(transform).__name__})")
    check_pos(pos)
    if pos.size(0) == 0:
        raise ValueError("Expected 'pos' to have points (got an empty scene)")
    if x is not None and x.size(0) != pos.size(0):
        raise ValueError(f"Expected 'x' to have {pos.size(0)} rows (got {x.size(0)})")
    model.eval()
    device = next((p.device for p in model.parameters()), pos.device)
    low = pos[:, 2].min() if floor is None else pos.new_tensor(check_number(floor, "floor"))
    cut = scene_columns(pos, size, stride=stride, max_points=max_points, generator=generator)
    total: Tensor | None = None
    votes = torch.zeros(pos.size(0), 1)
    while blocks := list(islice(cut, batch_size)):
        clouds = [_block(pos, x, rows, low, transform) for rows in blocks]
        data: Any = Batch.from_data_list(clouds)  # pyright: ignore[reportArgumentType]
        data = data.to(device)
        scores = forward_batch(model, data)
        if scores.dim() != 2 or scores.size(0) != data.num_nodes:
            raise ValueError(
                f"Expected 'model' to give scores for each of {data.num_nodes} points "
                f"(got the shape {list(scores.shape)})"
            )
        probabilities = scores.float().softmax(dim=-1).cpu()
        rows = torch.cat(blocks).cpu()
        if total is None:
            total = torch.zeros(pos.size(0), probabilities.size(1))
        total.index_add_(0, rows, probabilities)
        votes.index_add_(0, rows, torch.ones(rows.numel(), 1))
    # A scene with points has blocks, and each of its points has at least one vote.
    return votes if total is None else total.div_(votes)


def _block(
    pos: Tensor,
    x: Tensor | None,
    rows: Tensor,
    floor: Tensor,
    transform: Callable[[Data], Data] | None,
) -> Data:
    local = pos[rows].double()
    low, high = local.amin(dim=0), local.amax(dim=0)
    origin = (low + high) / 2
    origin[2] = floor
    data = Data(pos=(local - origin).float(), x=None if x is None else x[rows])
    data = data if transform is None else transform(data)
    if data.num_nodes != rows.numel():
        raise ValueError(
            f"Expected 'transform' to keep the {rows.numel()} points of a block "
            f"(got {data.num_nodes})"
        )
    return data


__all__ = ["score_scene"]
