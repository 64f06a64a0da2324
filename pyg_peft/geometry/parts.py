"""Neighbourhoods parted by size, so that none is padded to twice what it holds."""

from typing import NamedTuple

import torch
from torch import Tensor


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


class Parts(NamedTuple):
    """All neighbourhoods, in parts.

    Attributes:
        parts: the parts.
        order: for each neighbourhood its place when the parts are put one behind the other.
    """

    parts: list[Part]
    order: Tensor


def parts_of_like_size(index: Tensor, num_sets: int) -> Parts:
    """Part neighbourhoods so that none is twice as large as another of its part.

    Attention takes memory by the square of a size; padded to one size, every set would take the
    square of the largest. Part by part they take four times the sum of their own squares at most.

    Args:
        index: neighbourhood of each edge, sorted.
        num_sets: number of neighbourhoods, those without members included.

    Shapes: index ``(E,)``.

    Example:
        >>> parts, order = parts_of_like_size(torch.tensor([0, 1, 1, 1, 2]), 3)
        >>> [part.sets.tolist() for part in parts], order.tolist()
        ([[0, 2], [1]], [0, 2, 1])
    """
    size = index.bincount(minlength=num_sets).clamp(min=1)
    level, place = size.float().log2().long(), torch.empty_like(size)
    parts: list[Part] = []
    for value in level.unique().tolist():
        sets, edges = ((of == value).nonzero().flatten() for of in (level, level[index]))
        place[sets] = place.new_ones(sets.numel()).cumsum(0) - 1
        parts.append(Part(sets, edges, place[index[edges]], int(size[sets].max())))
    return Parts(parts, level.argsort(stable=True).argsort())


__all__ = ["Part", "Parts", "parts_of_like_size"]
