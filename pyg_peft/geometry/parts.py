"""Grouping of neighborhoods by size, which limits padding to less than twice the size."""

from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """Neighborhoods of similar size.

    Attributes:
        sets: Indices of the neighborhoods ``[P]``.
        edges: Rows of the edge list that belong to them ``[E_P]``, in its order.
        place: Index among the ``P`` neighborhoods for each of these edges ``[E_P]``.
        size: Number of members of the largest neighborhood, at least one.
    """

    sets: Tensor
    edges: Tensor
    place: Tensor
    size: int


class Parts(NamedTuple):
    """All neighborhoods, grouped by size.

    Attributes:
        parts: The groups.
        order: For each neighborhood, its position in the concatenation of all groups.
    """

    parts: list[Part]
    order: Tensor


def parts_of_like_size(index: Tensor, num_sets: int) -> Parts:
    """Group neighborhoods so that none is twice as large as another one in its group.

    The memory of attention grows with the square of the size. If all neighborhoods were padded to
    the same size, each would need the square of the largest. In groups, they need at most four
    times the sum of their own squares.

    Args:
        index: Neighborhood of each edge, sorted.
        num_sets: Number of neighborhoods, including those without members.

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
