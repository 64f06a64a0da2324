"""Heights above the ground, which is estimated from the lowest points of cells."""

import numpy as np

# Far beyond any tile; a single point far away would otherwise need memory for all cells between.
_MOST_CELLS = 2**24


def height_above_ground(pos: np.ndarray, size: float) -> np.ndarray:
    """Return the height of each point above the ground below it.

    The ground at the middle of a square cell is the lowest ``z`` of its points. A cell without
    points takes that of the nearest cell with points. A median over 3 x 3 cells removes single low
    points. Between the middles the ground is interpolated linearly in x and y. Heights of points
    below it are negative.

    Args:
        pos: Coordinates, float64 ``[n, 3]``, z up.
        size: Side of a cell. It should be larger than the largest roof or crown without ground
            below it, and as small as the slope of the ground demands.

    Raises:
        ValueError: If the points span too many cells.

    Example:
        >>> pos = np.array([[0.0, 0, 5], [0.5, 0.5, 8], [1.5, 0, 5]])
        >>> height_above_ground(pos, size=1.0).tolist()
        [0.0, 3.0, 0.0]
    """
    from scipy.ndimage import distance_transform_edt, map_coordinates, median_filter

    plane = pos[:, :2] - pos[:, :2].min(axis=0, keepdims=True)
    span = np.floor(plane.max(axis=0) / size)
    if not np.prod(span + 1) <= _MOST_CELLS:
        raise ValueError(
            f"Expected 'ground_size' to give at most {_MOST_CELLS:,} cells (got {size}, which "
            f"gives {span[0] + 1:.0f} x {span[1] + 1:.0f}); points far from the others also do this"
        )
    rows, columns = (int(number) + 1 for number in span)
    cell = np.floor(plane / size).astype(np.int64)
    lowest = np.full(rows * columns, np.inf)
    np.minimum.at(lowest, cell[:, 0] * columns + cell[:, 1], pos[:, 2])
    lowest = lowest.reshape(rows, columns)
    nearest = distance_transform_edt(np.isinf(lowest), return_distances=False, return_indices=True)
    filled = lowest[tuple(np.asarray(nearest))]
    ground = median_filter(filled, size=3, mode="nearest")
    below = map_coordinates(ground, (plane / size - 0.5).T, order=1, mode="nearest")
    return pos[:, 2] - below


__all__ = ["height_above_ground"]
