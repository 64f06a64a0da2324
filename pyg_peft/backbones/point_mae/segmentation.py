"""Point-MAE for part segmentation: patches to tokens, a transformer, then back to every point."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyg_peft.backbones.contract import TokenStructures
from pyg_peft.backbones.layers.patch_propagation import mean_valid, patches_to_points
from pyg_peft.backbones.layers.segmentation_head import SegmentationHead
from pyg_peft.backbones.layers.tokens import (
    add_position,
    check_rates,
    max_valid,
    zero_masked,
)
from pyg_peft.backbones.point_mae.segmentation_files import segmentation_weights
from pyg_peft.backbones.point_mae.with_head import PointMAEWithHead
from pyg_peft.backbones.weights import agreed_sizes, build_checked
from pyg_peft.errors import check_count
from pyg_peft.geometry import Patches
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos, Tokens


@Symmetries(
    permutation="equivariant",
    first_point=True,
    translation=False,
    rotation=False,
    note="Given its patches: equivariant under permutations of points.",
)
class PointMAESegmentation(PointMAEWithHead):
    r"""The Point-MAE network for part segmentation, after `"Masked Autoencoders for Point Cloud
    Self-supervised Learning" <https://arxiv.org/abs/2203.06604>`_.

    ::

        pos ── patches ── tokens ── blocks ── levels ─┬─ to points, beside pos ──▶ head ──▶ scores
                                                      └─ max, mean ── summary ──────┘
                                                  category (if calls pass one) ─────┘

    The tokens after a third, two thirds and all of the blocks pass the same norm and are
    concatenated. Their maximum and mean over the patches form the cloud's summary. Each point gets
    its coordinates and the tokens of the three nearest centers, weighted by inverse squared
    distance.

    Args:
        num_classes: Number of classes of a point.
        embed_dim, depth, num_heads, num_centers, patch_size, in_channels, drop_path, head_dropout:
            See :class:`PointMAE`.
        num_categories: Number of cloud categories that calls pass as ``category`` (published: 16);
            0 for none.
        num_levels: Number of depths whose tokens are used, at equal steps up to the last block.
        head_channels: Width of the head; see :class:`SegmentationHead`.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N), category (B); output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size, the number of channels of ``x``, or ``category`` does not fit.

    Differences:
        Returns scores; the authors return the logarithm of their softmax. Clouds with fewer points
        than ``num_centers`` have masked patches, as in :class:`PointMAE`. Squared distances are
        computed from differences, not from products, so a center gets exactly its own features even
        in float32.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAESegmentation
        >>> model = PointMAESegmentation(4, 12, 3, 3, num_centers=8, patch_size=4).eval()
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos=pos, batch=batch).shape
        torch.Size([90, 4])
    """

    task: ClassVar[str] = "segmentation"
    num_prefix_tokens = 0  # in front of the patches; read by methods that insert tokens

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        num_centers: int = 128,
        patch_size: int = 32,
        *,
        num_categories: int = 0,
        num_levels: int = 3,
        in_channels: int = 0,
        head_channels: int = 1024,
        drop_path: float = 0.1,
        head_dropout: float = 0.5,
    ) -> None:
        num_classes = check_count(num_classes, "num_classes")
        num_categories = check_count(num_categories, "num_categories", least=0)
        num_levels = check_count(num_levels, "num_levels")
        head_channels = check_count(head_channels, "head_channels")
        if head_channels % 4:
            raise ValueError(
                f"Expected 'head_channels' to be a multiple of 4 (got {head_channels})"
            )
        check_rates(head_dropout=head_dropout)
        if num_levels > check_count(depth, "depth"):
            raise ValueError(f"Expected 'num_levels' to lie in [1, {depth}] (got {num_levels})")
        super().__init__(
            embed_dim,
            depth,
            num_heads,
            num_centers,
            patch_size,
            in_channels=in_channels,
            drop_path=drop_path,
        )
        self.num_classes = num_classes
        self.num_categories = num_categories
        self.num_levels = num_levels
        self.head_channels = head_channels
        self.head_dropout = head_dropout
        self.head = self.make_head(num_classes)
        self.reset_parameters()

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path | Mapping[str, Any],
        num_classes: int | None = None,
        *,
        num_categories: int | None = None,
        **sizes: Any,
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights.

        Sizes are inferred from the weights where possible. If the file is from pre-training or a
        classifier's, the head is newly initialized. The file's decoder, summary token and
        classification head are then left out.

        Args:
            source: See :meth:`PointMAE.from_checkpoint`.
            num_classes: Number of classes. Required if the file has no head for parts; otherwise it
                must match the file's head.
            num_categories: Number of cloud categories. The default is 0 if the file has no head for
                parts; otherwise it must match the file's head.
            **sizes: Constructor arguments that cannot be inferred from the weights, such as
                ``num_heads``; also ``num_levels`` and ``head_channels`` if the head is newly
                initialized.

        Raises: as :meth:`PointMAE.from_checkpoint`.
        """
        state, read, fresh = segmentation_weights(source, num_classes, num_categories, cls.__name__)
        model = build_checked(lambda: cls(**agreed_sizes(read, sizes)), state, fresh=fresh)
        return model

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.head.reset_parameters()

    def make_head(self, num_classes: int) -> SegmentationHead:
        width = self.num_levels * self.embed_dim
        sizes = {"lift_channels": 4 * self.embed_dim, "channels": self.head_channels}
        sizes["num_categories"] = self.num_categories
        dropout = self.head_dropout
        return SegmentationHead(3 + width, 2 * width, num_classes, dropout=dropout, **sizes)

    def forward_features(
        self,
        patches: Patches,
        *,
        tokens: Tokens | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Float[Tensor, "B G levels"]:
        """Return concatenated normalized tokens of all levels, ``[B, G, levels * C]``.

        Masked tokens are zero.
        """
        x = self.embed_or_check(patches, tokens)
        code = self.pos_embed(patches.center)
        last = {self.depth * level // self.num_levels for level in range(1, self.num_levels + 1)}
        levels: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(add_position(x, code, 0), patches=patches, structure=structure, prior=prior)
            if number in last:
                levels.append(self.norm(x[:, -code.size(1) :]))
        return zero_masked(torch.cat(levels, dim=-1), patches.mask)

    def forward_head(
        self,
        x: Float[Tensor, "B G levels"],
        patches: Patches,
        pos: Pos,
        batch: Batch | None = None,
        category: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "N num_classes"]:
        """Return scores of all points ``[N, num_classes]`` for :meth:`forward_features`."""
        summary = torch.cat([max_valid(x, patches.mask), mean_valid(x, patches.mask)], dim=-1)
        x = patches_to_points(x, patches, pos, batch)
        return self.head(torch.cat([pos.to(x.dtype), x], dim=-1), summary, batch, category)

    def forward_query(self, patches: Patches, *, tokens: Tokens | None = None) -> Tensor:
        """Return one feature per cloud, ``[B, C]``, which fills and queries a memory bank.

        See :meth:`PointMAE.forward_query`.
        """
        x = self.forward_features(patches, tokens=tokens)
        return max_valid(x[..., -self.embed_dim :], patches.mask)

    def forward(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        category: Int[Tensor, " B"] | None = None,
        patches: Patches | None = None,
        tokens: Tokens | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Tensor:
        if pos is None:
            raise ValueError("Expected 'pos' to be given (got None)")
        if patches is None:
            patches = self.make_patches(pos, batch, batch_size, x)
        x = self.forward_features(patches, tokens=tokens, structure=structure, prior=prior)
        return self.forward_head(x, patches, pos, batch, category)


__all__ = ["PointMAESegmentation"]
