"""The segmentation head: from point features and a cloud summary to scores of points."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_peft.backbones.layers.tokens import check_rates
from pyg_peft.errors import check_batch, check_count, check_dtype, check_tensor
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch


@Symmetries(permutation="equivariant", depends_on=("x",), independent="rows")
class SegmentationHead(nn.Module):
    r"""Compute scores of points with the authors' head for part segmentation: two layers per point,
    then three layers that also take a summary of the cloud.

    .. math::
        \mathbf{h}_i &= \mathrm{mix}(\mathrm{lift}(\mathbf{x}_i)) \\
        \mathbf{y}_i &= \mathrm{classifier}\bigl(\mathrm{reduce}(
        \mathbf{W}_l \mathbf{h}_i + \mathbf{W}_g [\mathbf{s}_b, \mathbf{e}_b])\bigr)

    Batch norm and ReLU follow ``lift``, ``mix``, the sum and ``reduce``. The summary
    :math:`\mathbf{s}` and the embedding of the category :math:`\mathbf{e}` are the same for all
    points of a cloud :math:`b`. So :math:`\mathbf{W}_g` (``global_proj``) is applied once per cloud
    and :math:`\mathbf{W}_l` (``local_proj``) once per point.

    Args:
        in_channels: Width of a point's features.
        summary_channels: Width of a cloud's summary.
        num_classes: Number of classes.
        num_categories: Number of cloud categories that calls pass as ``category``; 0 if the head
            takes none.
        lift_channels: Width after the first layer.
        channels: Width after the second layer; the next two layers have a half and a quarter of it.
        dropout: Dropout probability before the last two layers, while training.

    Shapes:
        x (N, in_channels), summary (B, summary_channels), batch (N), category (B);
        output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If ``channels`` is not a multiple of 4, or if categories are negative, missing,
            not expected, or out of range. From torch, if there is a single point, or a single cloud
            with a category, while training: batch norm cannot compute statistics from one row.

    Differences:
        The authors apply one layer to the concatenation of point, summary and category. Here it is
        split into two layers.
    """

    def __init__(
        self,
        in_channels: int,
        summary_channels: int,
        num_classes: int,
        *,
        num_categories: int = 0,
        lift_channels: int = 1536,
        channels: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        in_channels = check_count(in_channels, "in_channels")
        summary_channels = check_count(summary_channels, "summary_channels")
        num_classes = check_count(num_classes, "num_classes")
        lift_channels = check_count(lift_channels, "lift_channels")
        channels = check_count(channels, "channels")
        check_rates(dropout=dropout)
        if channels < 4 or channels % 4:
            raise ValueError(f"Expected 'channels' to be a multiple of 4 (got {channels})")
        num_categories = check_count(num_categories, "num_categories", least=0)
        super().__init__()
        self.num_categories = num_categories
        self.summary_channels = summary_channels
        # A linear probe infers the width of a point's features from the first layer.
        self.lift = nn.Linear(in_channels, lift_channels)
        self.norm1 = nn.BatchNorm1d(lift_channels)
        self.mix = nn.Linear(lift_channels, channels)
        self.norm2 = nn.BatchNorm1d(channels)
        width = 64 if num_categories else 0
        self.category = CategoryEmbedding(num_categories, width) if width else None
        self.local_proj = nn.Linear(channels, channels // 2)
        self.global_proj = nn.Linear(summary_channels + width, channels // 2, bias=False)
        self.norm3 = nn.BatchNorm1d(channels // 2)
        self.dropout = nn.Dropout(dropout)
        self.reduce = nn.Linear(channels // 2, channels // 4)
        self.norm4 = nn.BatchNorm1d(channels // 4)
        self.classifier = nn.Linear(channels // 4, num_classes)

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.BatchNorm1d):
                module.reset_parameters()

    def forward(
        self,
        x: Float[Tensor, "N in_channels"],
        summary: Float[Tensor, "B summary_channels"],
        batch: Batch | None = None,
        category: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "N num_classes"]:
        device = self.lift.weight.device
        width = self.lift.in_features
        check_tensor(x, "x", shape=("N", width), kind="float", device=device, values=False)
        shape = ("B", self.summary_channels)
        check_tensor(summary, "summary", shape=shape, device=device, values=False)
        check_dtype(summary, self.global_proj.weight, "summary")
        if category is not None:
            check_tensor(category, "category", shape=summary.shape[:1], kind="int", device=device)
        if batch is not None:
            check_batch(batch, x.size(0), summary.size(0), device=device)
            batch = batch.long()
        elif summary.size(0) != 1:
            raise ValueError(
                f"Expected 'summary' to have one row without a batch (got {summary.size(0)})"
            )
        summary = self._tell(summary, category)
        # The features include coordinates, which half precision would round.
        with torch.autocast(x.device.type, enabled=False):
            x = self.lift(x.to(self.lift.weight.dtype))
        x = self.norm1(x).relu()
        x = self.norm2(self.mix(x)).relu()
        shared = self.global_proj(summary)  # [B, channels / 2]
        x = self.local_proj(x) + (shared if batch is None else shared[batch])
        x = self.dropout(self.norm3(x).relu())
        x = self.norm4(self.reduce(x)).relu()
        return self.classifier(x)

    def _tell(self, summary: Tensor, category: Tensor | None) -> Tensor:
        if self.category is None:
            if category is not None:
                raise ValueError(
                    "Expected 'category' to be None for a model with num_categories=0 "
                    "(got a tensor)"
                )
            return summary
        if category is None:
            raise ValueError(
                "Expected 'category' to hold a number below "
                f"{self.num_categories} for each cloud (got None)"
            )
        return torch.cat([summary, self.category(category).to(summary.dtype)], dim=1)


class CategoryEmbedding(nn.Module):
    """Embed the category of a cloud: a linear layer on its one-hot code, batch norm, leaky ReLU.

    Args:
        num_categories: Number of categories.
        channels: Width of the vector.

    Shapes:
        category (B); output (B, channels).
    """

    def __init__(self, num_categories: int, channels: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.proj = nn.Linear(num_categories, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, category: Int[Tensor, " B"]) -> Float[Tensor, "B channels"]:
        check_tensor(category, "category", shape=("B",), kind="int")
        known = torch.compiler.is_compiling() or category.numel() == 0
        if not known and not 0 <= int(category.min()) <= int(category.max()) < self.num_categories:
            raise ValueError(
                f"Expected 'category' to lie in [0, {self.num_categories - 1}] "
                f"(got {int(category.min())} to {int(category.max())})"
            )
        code = F.one_hot(category.long(), self.num_categories).to(self.proj.weight.dtype)
        return F.leaky_relu(self.norm(self.proj(code)), negative_slope=0.2)


__all__ = ["CategoryEmbedding", "SegmentationHead"]
