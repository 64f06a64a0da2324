"""Point-MAE for classification: patches to tokens, a transformer over them, then a head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.contract import TokenStructures
from pyg_peft.backbones.layers.head import ClassificationHead
from pyg_peft.backbones.layers.tokens import (
    add_position,
    check_rates,
    draw_tokens_,
    max_valid,
    prepend,
    zero_masked,
)
from pyg_peft.backbones.point_mae.files import classifier_weights
from pyg_peft.backbones.point_mae.with_head import PointMAEWithHead
from pyg_peft.backbones.weights import agreed_sizes, build_checked
from pyg_peft.errors import check_count
from pyg_peft.geometry import Patches
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Mask, Pos, Tokens


@Symmetries(
    permutation="invariant",
    first_point=True,
    translation=False,
    rotation=False,
    note="Given its patches: invariant under permutations of them and of their members.",
)
class PointMAE(PointMAEWithHead):
    r"""The Point-MAE classifier, after `"Masked Autoencoders for Point Cloud Self-supervised
    Learning" <https://arxiv.org/abs/2203.06604>`_.

    A cloud is cut into ``num_centers`` patches of ``patch_size`` points. Each patch becomes a
    token, and a learned ``cls_token`` is prepended. Position codes are added to the tokens again
    before each block. The head takes the normalized summary token concatenated with the maximum
    over the patches.

    Args:
        num_classes: Number of classes.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads; it must divide ``embed_dim``.
        num_centers: Number of patches of a cloud.
        patch_size: Number of points of a patch.
        in_channels: Width of the point features ``x``; their layer starts at zero.
        drop_path: :class:`DropPath` probability of the last block; it grows linearly from 0 at the
            first.
        head_dropout: Dropout probability between the layers of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, ``num_heads`` does not divide ``embed_dim``, or ``x``
            has the wrong number of channels.

    Differences:
        Clouds with fewer points than ``num_centers`` have masked patches, which are excluded from
        attention, maximum and batch statistics; the authors repeat points instead. The maximum of
        an empty cloud is zero. Coordinates of higher precision are rounded only after centering.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAE
        >>> model = PointMAE(num_classes=4, embed_dim=12, depth=2, num_heads=3,
        ...                  num_centers=8, patch_size=4).eval()
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos=pos, batch=batch).shape
        torch.Size([3, 4])
    """

    task: ClassVar[str] = "classification"

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        num_centers: int = 64,
        patch_size: int = 32,
        *,
        in_channels: int = 0,
        drop_path: float = 0.1,
        head_dropout: float = 0.5,
    ) -> None:
        num_classes = check_count(num_classes, "num_classes")
        check_rates(head_dropout=head_dropout)
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
        self.head_dropout = head_dropout
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        self.head = self.make_head(num_classes)
        self.reset_parameters()

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights.

        ``embed_dim``, ``depth`` and, if the file has a head, ``num_classes`` are inferred from the
        weights. If the file is from pre-training, the head is newly initialized and the decoder is
        left out. ``cls_token`` and ``cls_pos`` are then drawn with a fixed seed and are the same on
        every machine.

        Args:
            source: The authors' ``.pth`` file, a ``.safetensors`` or ``.npz`` file, or a mapping,
                with the published keys or this library's.
            num_classes: Number of classes. Required if the file has no head; otherwise it must
                match the file's head.
            **sizes: Constructor arguments that cannot be inferred from the weights: ``num_heads``,
                ``num_centers``, ``patch_size``, ``in_channels``, ``drop_path``, ``head_dropout``.
                Published files for clouds of 2,048 points use ``num_centers=128``.

        Raises:
            FileNotFoundError: If the file does not exist.
            CheckpointError: If the file is damaged, or if keys or shapes do not fit; the message
                names all of them.
            ValueError: If ``num_classes`` is missing, or a size differs from that of the weights.
        """
        state, read, fresh = classifier_weights(source, num_classes, cls.__name__)
        model = build_checked(lambda: cls(**agreed_sizes(read, sizes)), state, fresh=fresh)
        if "cls_token" in fresh:
            draw_tokens_(model.cls_token, model.cls_pos)
        return model

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for token in (self.cls_token, self.cls_pos):
            nn.init.trunc_normal_(token, std=0.02)
        self.head.reset_parameters()

    def make_head(self, num_classes: int) -> ClassificationHead:
        return ClassificationHead(2 * self.embed_dim, num_classes, dropout=self.head_dropout)

    def forward_features(
        self,
        patches: Patches,
        *,
        tokens: Tokens | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Float[Tensor, "B L C"]:
        """Return normalized summary and patch tokens, ``[B, 1 + G, C]``, zero where masked.

        ``structure`` and ``prior`` are only passed to every block by name.
        """
        x = self.embed_or_check(patches, tokens)
        x = prepend(self.cls_token, x)
        code = prepend(self.cls_pos, self.pos_embed(patches.center))
        for block in self.blocks:
            x = block(add_position(x, code), patches=patches, structure=structure, prior=prior)
        return zero_masked(self.norm(x), patches.mask)

    def forward_head(self, x: Float[Tensor, "B L C"], mask: Mask | None = None) -> Tensor:
        """Return scores ``[B, num_classes]`` for :meth:`forward_features` and ``patches.mask``."""
        return self.head(torch.cat([x[:, 0], max_valid(x[:, 1:], mask)], dim=-1))

    def forward_query(self, patches: Patches, *, tokens: Tokens | None = None) -> Tensor:
        """Return one feature per cloud, ``[B, C]``, which fills and queries a memory bank.

        The feature is the maximum over the normalized tokens without a summary token. It is zero
        for an empty cloud.
        """
        x = self.embed_or_check(patches, tokens)
        x = self.run_blocks(x, self.pos_embed(patches.center), patches)
        return max_valid(x, patches.mask)

    def forward(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        patches: Patches | None = None,
        tokens: Tokens | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Tensor:
        if patches is None:
            if pos is None:
                raise ValueError("Expected 'pos' or 'patches' to be given (got neither)")
            patches = self.make_patches(pos, batch, batch_size, x)
        x = self.forward_features(patches, tokens=tokens, structure=structure, prior=prior)
        return self.forward_head(x, patches.mask)


__all__ = ["PointMAE"]
