"""The module that is exported: clouds in, scores out, with all geometry inside the graph."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pyg_peft.geometry.layout import group_offsets


class ServedModel(nn.Module):
    """Score clouds given by ``pos`` and ``batch`` alone, as a served file does.

    Args:
        model: A backbone, or a ``PeftModel``.
        normalize: Whether to move the mean of each cloud to the origin and scale its farthest point
            to distance 1, as :class:`~pyg_peft.datasets.Normalize` does.
        roll: Number of places to roll the axes of the positions, which turns another axis up.

    Shapes:
        pos (N, 3), batch (N), x (N, C) for models with point features; output (B, num_classes) for
        a classifier, with B one more than the last cloud id, or (N, num_classes) for segmentation.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointNet
        >>> served = ServedModel(PointNet(4).eval(), normalize=True)
        >>> served(torch.randn(50, 3), torch.zeros(50, dtype=torch.long)).shape
        torch.Size([1, 4])
    """

    def __init__(self, model: nn.Module, *, normalize: bool = False, roll: int = 0) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.roll = roll

    def forward(self, pos: Tensor, batch: Tensor, x: Tensor | None = None) -> Tensor:
        size: Any = batch[-1].item()
        size = size + 1
        torch._check(size >= 1)
        if self.roll:
            pos = pos.roll(self.roll, dims=1)
        if self.normalize:
            pos = _normalized(pos, batch, size)
        call = {} if x is None else {"x": x}
        return self.model(pos=pos, batch=batch, batch_size=size, **call)


def trace(served: ServedModel, num_channels: int) -> ExportedProgram:
    """Trace a served model with a free number of points and of clouds.

    Args:
        served: The model, in eval mode on the CPU.
        num_channels: Width of the point features; 0 for none.
    """
    like = next(served.parameters())
    generator = torch.Generator().manual_seed(0)
    batch = torch.arange(3).repeat_interleave(torch.tensor([50, 40, 30]))
    inputs: tuple[Tensor, ...] = (torch.rand(120, 3, generator=generator).to(like), batch)
    if num_channels:
        inputs += (torch.rand(120, num_channels, generator=generator).to(like),)
    free = tuple({0: Dim.DYNAMIC} for _ in inputs)
    # Without gradients around it, no part of the graph switches them off by itself.
    with torch.no_grad():
        return torch.export.export(served, inputs, dynamic_shapes=free, strict=False)


def _normalized(pos: Tensor, batch: Tensor, size: int) -> Tensor:
    """Center and scale each cloud, in float64 as ``Normalize`` does."""
    wide, batch = pos.double(), batch.long()
    rows = batch.unsqueeze(1).expand(-1, 3)
    count = group_offsets(batch, size).diff().clamp(min=1)
    middle = wide.new_zeros(size, 3).scatter_add(0, rows, wide) / count.unsqueeze(1)
    wide = wide - middle[batch]
    length = wide.square().sum(dim=1).sqrt()
    radius = wide.new_zeros(size).scatter_reduce(0, batch, length, "amax")
    # The mean of coincident points may differ from them by rounding.
    radius = torch.where(radius > 0, radius, 1.0)
    return (wide / radius[batch].unsqueeze(1)).to(pos.dtype)


__all__ = ["ServedModel", "trace"]
