"""Score a cloud of any size with a model of fewer points, and average the votes."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_peft.errors import check_count, check_pos
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.evaluation.forward import device_of, forward_batch
from pyg_peft.typing import Features, Pos


@torch.no_grad()
def score_cloud(
    model: nn.Module,
    pos: Pos,
    x: Features | None = None,
    *,
    max_points: int | None = None,
    num_votes: int = 3,
    batch_size: int = 8,
    transform: Callable[[Data], Data] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the class probabilities ``[N, K]`` of the points of one shape.

    A cloud of at most ``max_points`` points is scored at once, with its points in their order. The
    points of a larger one are divided at random into blocks of ``max_points``. Each block covers
    the whole shape, like the random points that a training cloud is reduced to. The last block is
    filled up with points of the first. The probabilities of a point are averaged over its blocks.
    Use :func:`score_scene` for scenes, whose columns are the size of a training cloud.

    The model gets at most ``batch_size * max_points`` points at once. Besides these, memory holds
    the cloud, the result, and 12 bytes for each point.

    Args:
        model: A model that returns scores ``[n, K]`` of the points of a batch. It is put into eval
            mode. A ``PeftModel`` or any model, called with those of ``x``, ``pos``, ``batch`` and
            ``batch_size`` that it takes, or as ``forward(data)``.
        pos: Positions ``[N, 3]`` of one cloud. The result is on the CPU.
        x: Features of the points.
        max_points: Number of points per block; ``None`` to score every cloud at once.
        num_votes: How often a larger cloud is divided.
        batch_size: Number of blocks per batch; it does not change the result.
        transform: Transform of each block, for example ``Normalize()``. It must keep the points and
            their order.
        generator: Random generator for the division into blocks. By default one with a fixed seed,
            so that a cloud always has the same result.

    Raises:
        TypeError, ValueError: If an argument has another type or range; if ``x``, a transformed
            block or the scores have another number of points; or if the cloud is empty.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAESegmentation
        >>> from pyg_peft.training import score_cloud
        >>> sizes = {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_levels": 1}
        >>> model = PointMAESegmentation(4, num_centers=8, patch_size=4, head_channels=16, **sizes)
        >>> score_cloud(model, torch.rand(500, 3), max_points=64).shape
        torch.Size([500, 4])
    """
    check_kind(model, "model", nn.Module)
    check_kind(pos, "pos", Tensor)
    check_kind(x, "x", Tensor, optional=True)
    check_kind(generator, "generator", torch.Generator, optional=True)
    if max_points is not None:
        check_count(max_points, "max_points")
    check_count(num_votes, "num_votes")
    check_count(batch_size, "batch_size")
    if transform is not None and not callable(transform):
        raise TypeError(f"Expected 'transform' to be a transform (got {type(transform).__name__})")
    check_pos(pos)
    if pos.size(0) == 0:
        raise ValueError("Expected 'pos' to have points (got an empty cloud)")
    if x is not None and x.size(0) != pos.size(0):
        raise ValueError(f"Expected 'x' to have {pos.size(0)} rows (got {x.size(0)})")
    model.eval()
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    blocks = _blocks(pos.size(0), max_points, num_votes, generator)
    total: Tensor | None = None
    votes = torch.zeros(pos.size(0), 1)
    while some := list(islice(blocks, batch_size)):
        clouds = [_block(pos, x, rows, transform) for rows in some]
        probabilities = _score(model, clouds)
        if total is None:
            total = torch.zeros(pos.size(0), probabilities.size(1))
        rows = torch.cat(some)
        total.index_add_(0, rows, probabilities)
        votes.index_add_(0, rows, torch.ones(rows.numel(), 1))
    # A cloud with points has blocks, and each of its points has at least one vote.
    return votes if total is None else total.div_(votes)


def _blocks(
    num_points: int, max_points: int | None, num_votes: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the rows of each block; every row is in ``num_votes`` blocks or more."""
    if max_points is None or num_points <= max_points:
        yield torch.arange(num_points)
        return
    for _ in range(num_votes):
        order = torch.randperm(num_points, generator=generator, device=generator.device).cpu()
        for rows in order.split(max_points):
            missing = max_points - rows.numel()
            yield rows if missing == 0 else torch.cat([rows, order[:missing]])


def _block(
    pos: Tensor, x: Tensor | None, rows: Tensor, transform: Callable[[Data], Data] | None
) -> Data:
    data = Data(pos=pos[rows], x=None if x is None else x[rows])
    data = data if transform is None else transform(data)
    if data.num_nodes != rows.numel():
        raise ValueError(
            f"Expected 'transform' to keep the {rows.numel()} points of a block "
            f"(got {data.num_nodes})"
        )
    return data


def _score(model: nn.Module, clouds: list[Data]) -> Tensor:
    """Return the probabilities of the points of some blocks, on the CPU."""
    data: Any = Batch.from_data_list(clouds)  # pyright: ignore[reportArgumentType]
    data = data.to(device_of(model))
    scores = forward_batch(model, data)
    if scores.dim() != 2 or scores.size(0) != data.num_nodes:
        raise ValueError(
            f"Expected 'model' to give scores for each of {data.num_nodes} points "
            f"(got the shape {list(scores.shape)})"
        )
    return scores.float().softmax(dim=-1).cpu()


__all__ = ["score_cloud"]
