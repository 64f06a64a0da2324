"""Choose the parameters with weight decay."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: matrices are decayed; biases, norms and tokens (one row) are not.

    Args:
        parameters: Parameters to train.
        weight_decay: Weight decay of the matrices.

    Returns:
        At most two groups, none of them empty.
    """
    decayed, plain = [], []
    for parameter in parameters:
        is_matrix = parameter.dim() > 1 and parameter.size(-2) > 1
        (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


__all__ = ["decay_groups"]
