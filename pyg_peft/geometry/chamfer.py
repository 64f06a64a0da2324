"""Chamfer distances between sets of points."""

import torch
from torch import Tensor

from pyg_peft.errors import check_finite, check_reach, check_tensor
from pyg_peft.geometry.interpolation import in_wide
from pyg_peft.geometry.ordering import squared_distance


def nearest_squared_distances(pos: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return each point's squared distance to the nearest point of the other set, both ways.

    The search keeps one ``[B, N, M]`` table outside the autograd graph. Only the distances to the
    nearest points are differentiated, so that a backward pass holds ``N + M`` pairs. For
    half-precision positions, distances are computed and returned in float32.

    Args:
        pos: Sets of points.
        target: Sets to compare with, of the same dtype and device.

    Shapes: pos ``(B, N, 3)``, target ``(B, M, 3)``; output ``(B, N)`` and ``(B, M)``.

    Symmetries: as in :func:`chamfer_distance`.

    Raises:
        TypeError: If a tensor is not a floating-point tensor, or if the dtypes differ.
        ValueError: If shapes do not match, a set is empty, positions are not finite or so large
            that their squares are not, or devices differ.

    Example:
        >>> a, b = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0, 0], [0, 2, 0]]])
        >>> nearest_squared_distances(a, b)
        (tensor([[1.]]), tensor([[1., 4.]]))
    """
    return _nearest(*_checked(pos, target))


def _nearest(pos: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        table = squared_distance(pos.unsqueeze(2), target.unsqueeze(1))  # [B, N, M]
        to_target, to_pos = table.argmin(dim=2), table.argmin(dim=1)
        del table
    return _distance_to(pos, target, to_target), _distance_to(target, pos, to_pos)


def chamfer_distance(pos: Tensor, target: Tensor) -> Tensor:
    r"""Return the squared chamfer distance, averaged over all points of a batch.

    .. math::
        \frac{1}{BN} \sum_{b, i} \min_j \lVert \mathbf{p}_{bi} - \mathbf{t}_{bj} \rVert^2 +
        \frac{1}{BM} \sum_{b, j} \min_i \lVert \mathbf{p}_{bi} - \mathbf{t}_{bj} \rVert^2

    Args:
        pos: Sets of points.
        target: Sets to compare with.

    Shapes: pos ``(B, N, 3)``, target ``(B, M, 3)``; output a scalar.

    Symmetries:
        Invariant to the order of points, and under a rotation, reflection or translation of both
        sets; symmetric in its arguments. Differentiable in both.

    Raises: as in :func:`nearest_squared_distances`, and ValueError if there are no sets, because
        their mean is undefined.

    Differences: none; equals ``ChamferDistanceL2`` as commonly implemented.

    Example:
        >>> chamfer_distance(torch.zeros(1, 1, 3), torch.ones(1, 2, 3))
        tensor(6.)
    """
    forth, back = _of_sets(pos, target)
    return forth.mean() + back.mean()


def loss_of_rebuilt(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Return the unchecked :func:`chamfer_distance`, which is NaN if the model has diverged.

    Shapes: as in :func:`chamfer_distance`.
    """
    forth, back = _nearest(in_wide(rebuilt).contiguous(), in_wide(target).contiguous())
    return forth.mean() + back.mean()


def chamfer_distance_l1(pos: Tensor, target: Tensor) -> Tensor:
    r"""Return half the sum of both mean distances (not squared) to the nearest points.

    .. math::
        \frac{1}{2BN} \sum_{b, i} \min_j \lVert \mathbf{p}_{bi} - \mathbf{t}_{bj} \rVert +
        \frac{1}{2BM} \sum_{b, j} \min_i \lVert \mathbf{p}_{bi} - \mathbf{t}_{bj} \rVert

    Args, Shapes, Symmetries, Raises: as in :func:`chamfer_distance`.

    Differences:
        The common ``ChamferDistanceL1`` has no finite gradient where two points coincide; here it
        is zero.

    Example:
        >>> chamfer_distance_l1(torch.zeros(1, 1, 3), torch.tensor([[[3.0, 0, 4]]]))
        tensor(5.)
    """
    forth, back = _of_sets(pos, target)
    return (_root(forth).mean() + _root(back).mean()) / 2


def _distance_to(pos: Tensor, target: Tensor, index: Tensor) -> Tensor:
    nearest = target.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
    return squared_distance(pos, nearest)


def _root(squared: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero at zero, where the derivative is infinite."""
    positive = squared > 0
    return torch.where(positive, squared, 1).sqrt().masked_fill(~positive, 0)


def _of_sets(pos: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    forth, back = nearest_squared_distances(pos, target)
    if forth.size(0) == 0:
        raise ValueError("Expected 'pos' to hold at least one set (got none)")
    return forth, back


def _checked(pos: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check both sets and return them contiguous, in the precision of the comparison."""
    for name, points in (("pos", pos), ("target", target)):
        check_tensor(points, name)
        if points.dim() != 3 or points.size(-1) != 3 or points.size(1) == 0:
            raise ValueError(
                f"Expected '{name}' to be of shape [B, N, 3] with N > 0 (got {list(points.shape)})"
            )
        check_tensor(points, name, kind="float")
    if pos.size(0) != target.size(0):
        raise ValueError(f"Expected 'target' to hold {pos.size(0)} sets (got {target.size(0)})")
    if pos.dtype != target.dtype:
        raise TypeError(f"Expected 'target' to be of dtype {pos.dtype} (got {target.dtype})")
    if pos.device != target.device:
        raise ValueError(f"Expected 'target' to be on {pos.device} (got {target.device})")
    for name, points in (("pos", pos), ("target", target)):
        check_finite(points, name)
        check_reach(points, name)
    return in_wide(pos).contiguous(), in_wide(target).contiguous()


__all__ = ["chamfer_distance", "chamfer_distance_l1", "nearest_squared_distances"]
