"""Shared layers on points that also take the object category of each cloud."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_peft.backbones.layers.flat_input import check_level
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.errors import check_batch, check_count, check_tensor
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.typing import Batch, Features, Pos


class CategoryLevel(nn.Module):
    """Concatenate each point's features with the embedded category of its cloud, then mix them.

    Args:
        in_channels: Width of the input features.
        channels: Widths of the layers.
        num_categories: Number of object categories; 0 for none.
        category_channels: Width of the category embedding.
        slope: Negative slope of the activation.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N), category (B); output (N, channels[-1]).

    Symmetries:
        Permutation equivariant; clouds do not influence each other.

    Raises:
        ValueError: If ``category`` is missing, superfluous, of the wrong shape or out of range.

    Example:
        >>> level = CategoryLevel(4, (8,), num_categories=3).eval()
        >>> x, pos, batch = torch.randn(5, 4), torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
        >>> level(x, pos, batch, 2, category=torch.tensor([2, 0])).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        num_categories: int,
        *,
        category_channels: int = 64,
        slope: float = 0.2,
    ) -> None:
        check_count(num_categories, "num_categories", least=0)
        super().__init__()
        self.in_channels = in_channels
        self.num_categories = num_categories
        self.out_channels = channels[-1]
        self.category_mlp = None
        if num_categories:
            self.category_mlp = shared_mlp(
                num_categories, category_channels, slope=slope, bias=False
            )
            in_channels += category_channels
        self.mlp = shared_mlp(in_channels, *channels, slope=slope, bias=False)

    def reset_parameters(self) -> None:
        if self.category_mlp is not None:
            self.category_mlp.reset_parameters()
        self.mlp.reset_parameters()

    def forward(
        self,
        x: Features,
        pos: Pos,
        batch: Batch,
        batch_size: int | None = None,
        *,
        category: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "N D"]:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.mlp.parameters()))
        size = count_clouds(batch, batch_size)
        self._check(category, size)
        if self.category_mlp is not None and category is not None:
            check_batch(batch, x.size(0), size)
            code = F.one_hot(category.long(), self.num_categories).to(x.dtype)
            x = torch.cat([x, self.category_mlp(code)[batch.long()]], dim=1)
        return self.mlp(x)

    def _check(self, category: Tensor | None, batch_size: int) -> None:
        if (category is not None) != (self.num_categories > 0):
            raise ValueError(
                f"Expected 'category' to be {'given' if self.num_categories else 'None'} for "
                f"num_categories={self.num_categories} "
                f"(got {'None' if category is None else 'a tensor'})"
            )
        if category is None:
            return
        check_tensor(category, "category", kind="int")
        if category.shape != (batch_size,):
            raise ValueError(
                f"Expected 'category' to be of shape [{batch_size}] (got {list(category.shape)})"
            )
        if torch.compiler.is_compiling() or category.numel() == 0:
            return
        low, high = int(category.min()), int(category.max())
        if low < 0 or high >= self.num_categories:
            raise ValueError(
                f"Expected 'category' to lie in [0, {self.num_categories}) "
                f"(got {low if low < 0 else high})"
            )


__all__ = ["CategoryLevel"]
