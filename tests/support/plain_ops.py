"""What the library reduces with fast kernels, written with plain torch ops: an oracle for any order
of derivative.
"""

import contextlib
from collections.abc import Generator
from unittest.mock import patch

import torch
from torch import Tensor, nn

USERS = {
    "weighted_sums": ("pyg_peft.nn.geometry_adapter", "pyg_peft.tuners.graphs.adapter"),
    "interpolate": (
        "pyg_peft.backbones.layers.feature_propagation",
        "pyg_peft.backbones.layers.patch_propagation",
    ),
    "neighbor_max": ("pyg_peft.nn.geometry_adapter",),
    "segment_max": (
        "pyg_peft.backbones.layers.segment_max",
        "pyg_peft.backbones.dgcnn.classifier",
        "pyg_peft.backbones.dgcnn.segmentation",
        "pyg_peft.backbones.pointnet.classifier",
        "pyg_peft.backbones.pointnet.segmentation",
        "pyg_peft.backbones.pointnet2.set_abstraction",
        "pyg_peft.backbones.layers.t_net",
    ),
}


def interpolate(
    x: Tensor, edge_index: Tensor, weight: Tensor, num_points: int, ptr: Tensor | None = None
) -> Tensor:
    rows = weight.to(x.dtype).unsqueeze(1) * x[edge_index[0]]
    return x.new_zeros(num_points, x.size(1)).index_add(0, edge_index[1], rows)


weighted_sums = interpolate


def neighbor_max(
    x: Tensor, hidden: Tensor, proj: nn.Linear, member: Tensor, mask: Tensor | None = None
) -> Tensor:
    value = x[member] + proj(hidden)
    if mask is None:
        return value.amax(dim=1)
    value = value.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(dim=1)
    return value.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def segment_max(x: Tensor, index: Tensor, num_groups: int) -> Tensor:
    groups = [x[index == group] for group in range(num_groups)]
    rows = [g.amax(dim=0) if len(g) > 0 else x.new_zeros(x.size(1)) for g in groups]
    return torch.stack(rows)


@contextlib.contextmanager
def plain_ops() -> Generator[None]:
    """Within the context every user of a fast kernel runs the plain function above."""
    with contextlib.ExitStack() as stack:
        for name, modules in USERS.items():
            for module in modules:
                stack.enter_context(patch(f"{module}.{name}", globals()[name]))
        yield


__all__ = ["interpolate", "neighbor_max", "plain_ops", "segment_max", "weighted_sums"]
