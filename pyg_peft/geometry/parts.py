"""Neighbourhoods parted by size, so that none is padded to twice what it holds."""

from typing import NamedTuple

from torch import Tensor, empty_like


class Part(NamedTuple):
    """Neighbourhoods of like size.

    Attributes:
        sets: their numbers ``[P]``.
        edges: rows of the edge list that lead to them ``[E_P]``, in its order.
        place: for each of these, which of the ``P`` it leads to.
        size: members of the largest, at least one.
    """

    sets: Tensor
    edges: Tensor
    place: Tensor
    size: int


def parts_of_like_size(index: Tensor, num_sets: int) -> list[Part]:
    """Part neighbourhoods so that none is twice as large as another of its part.

    Attention takes memory by the square of a size, and sets that are padded to one size all that of
    the largest. Part by part they take four times the sum of their own squares at most.

    Args:
        index: neighbourhood of each edge, sorted.
        num_sets: number of neighbourhoods, those without members included.

    Shapes: index ``(E,)``.

    Example:
        >>> import torch
        >>> [part.sets.tolist() for part in parts_of_like_size(torch.tensor([0, 1, 1, 1, 2]), 3)]
        [[0, 2], [1]]
    """
    size = index.bincount(minlength=num_sets).clamp(min=1)
    level, place = size.float().log2().long(), empty_like(size)
    parts: list[Part] = []
    for value in level.unique().tolist():
        sets, edges = ((of == value).nonzero().flatten() for of in (level, level[index]))
        place[sets] = place.new_ones(sets.numel()).cumsum(0) - 1
        parts.append(Part(sets, edges, place[index[edges]], int(size[sets].max())))
    return parts


__all__ = ["Part", "parts_of_like_size"]
