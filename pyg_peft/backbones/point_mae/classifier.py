"""Point-MAE as a classifier: patches to tokens, a transformer over them, a head on top."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.layers.head import ClassificationHead
from pyg_peft.backbones.layers.patch_embed import PatchEmbed, check_tokens
from pyg_peft.backbones.layers.tokens import (
    PositionEmbedding,
    add_position,
    check_rates,
    draw_tokens_,
    max_valid,
    prepend,
    zero_masked,
)
from pyg_peft.backbones.layers.transformer import check_heads, init_transformer_, make_blocks
from pyg_peft.backbones.point_mae.files import classifier_weights
from pyg_peft.backbones.weights import agreed_sizes, build_checked
from pyg_peft.backbones.weights.shipped import POINT_MAE_FILES, find_pretrained
from pyg_peft.errors import check_count
from pyg_peft.geometry import Patches, build_patches
from pyg_peft.typing import Batch, Features, Mask, Pos, Tokens


class PointMAE(nn.Module):
    r"""The Point-MAE classifier, after `"Masked Autoencoders for Point Cloud Self-supervised
    Learning" <https://arxiv.org/abs/2203.06604>`_.

    A cloud becomes ``num_centers`` patches of ``patch_size`` points; each patch becomes a token; a
    learned ``cls_token`` is put in front. Every block receives tokens plus position codes, which
    are added again before each block. The head sees the normalised summary token beside the
    maximum over the patches.

    Args:
        num_classes: number of scores.
        embed_dim: width of a token.
        depth: number of blocks.
        num_heads: attention heads; divides ``embed_dim``.
        num_centers: patches of a cloud.
        patch_size: points of a patch.
        in_channels: width of point features ``x``; their layer starts at zero.
        drop_path: :class:`DropPath` of the last block; it grows linearly from 0 at the first.
        head_dropout: dropout between the layers of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:
        Batch invariant in evaluation. Given its patches: invariant under permutations of them and
        of their members. Not rotation invariant. The patches depend on a cloud's first point.

    Raises:
        ValueError: if sizes are not positive, heads do not divide, or ``x`` has other channels.

    Differences:
        Clouds with fewer points than ``num_centers`` have masked patches, which take no part in
        attention, maximum or batch statistics; the authors repeat points instead. The maximum of an
        empty cloud is zero. Coordinates of higher precision are rounded after centring only.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAE
        >>> model = PointMAE(num_classes=4, embed_dim=12, depth=2, num_heads=3,
        ...                  num_centers=8, patch_size=4).eval()
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos=pos, batch=batch).shape
        torch.Size([3, 4])
    """

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
        embed_dim = check_count(embed_dim, "embed_dim")
        depth = check_count(depth, "depth")
        num_heads = check_heads(num_heads, embed_dim)
        num_centers = check_count(num_centers, "num_centers")
        patch_size = check_count(patch_size, "patch_size")
        in_channels = check_count(in_channels, "in_channels", least=0)
        check_rates(head_dropout=head_dropout)
        super().__init__()
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.num_centers = num_centers
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.drop_path = drop_path
        self.head_dropout = head_dropout
        self.patch_embed = PatchEmbed(embed_dim, in_channels=in_channels)
        self.pos_embed = PositionEmbedding(embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.blocks = make_blocks(embed_dim, depth, num_heads, drop_path)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = ClassificationHead(2 * embed_dim, num_classes, dropout=head_dropout)
        self.reset_parameters()

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that a file of weights belongs to, and load it.

        ``embed_dim``, ``depth`` and, where the file has a head, ``num_classes`` are read off the
        weights. From a pre-training file the head stays fresh, ``cls_token`` and ``cls_pos`` are
        drawn with a fixed seed, the same on every machine, and the decoder is left out.

        Args:
            source: the authors' ``.pth`` file, a ``.safetensors`` or ``.npz`` file, or a mapping;
                with the published keys or with this library's.
            num_classes: needed if the file has no head; otherwise it must agree with it.
            **sizes: arguments of the constructor that weights cannot tell: ``num_heads``,
                ``num_centers``, ``patch_size``, ``in_channels``, ``drop_path``, ``head_dropout``.
                Published files for clouds of 2,048 points use ``num_centers=128``.

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if the file is damaged, or keys or shapes do not fit; all are named.
            ValueError: if ``num_classes`` is missing, or a size differs from what the weights tell.
        """
        state, read, fresh = classifier_weights(source, num_classes, cls.__name__)
        model = build_checked(lambda: cls(**agreed_sizes(read, sizes)), state, fresh=fresh)
        if "cls_token" in fresh:
            draw_tokens_(model.cls_token, model.cls_pos)
        return model

    @classmethod
    def from_pretrained(cls, name: str, num_classes: int | None = None, **sizes: Any) -> Self:
        """Load weights that ship with the package.

        Args:
            name: a key of ``pyg_peft.backbones.weights.shipped.POINT_MAE_FILES``.
            num_classes: as in :meth:`from_checkpoint`.
            **sizes: as in :meth:`from_checkpoint`, in place of those stored with the file.

        Raises:
            ValueError: if there is no such name; the message lists those that exist.
            CheckpointError: if the installed file is damaged.
        """
        path, stored = find_pretrained(name, POINT_MAE_FILES)
        return cls.from_checkpoint(path, num_classes, **{**stored, **sizes})

    def reset_parameters(self) -> None:
        self.patch_embed.reset_parameters()
        for part in (self.pos_embed, self.blocks, self.norm):
            part.apply(init_transformer_)
        for token in (self.cls_token, self.cls_pos):
            nn.init.trunc_normal_(token, std=0.02)
        self.head.reset_parameters()

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; ``PointMAE(**model.config)`` has the same shapes."""
        return {name: getattr(self, name) for name in signature(PointMAE).parameters}

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by a fresh one for ``num_classes``, on the same device and type."""
        num_classes = check_count(num_classes, "num_classes")
        head = ClassificationHead(2 * self.embed_dim, num_classes, dropout=self.head_dropout)
        head = head.to(self.norm.weight.device, self.norm.weight.dtype)
        self.head = head.train(self.head.training)
        self.num_classes = num_classes

    def make_patches(
        self,
        pos: Pos,
        batch: Batch | None = None,
        batch_size: int | None = None,
        x: Features | None = None,
    ) -> Patches:
        """Cut the clouds into the patches that this model was trained on; see ``build_patches``."""
        sizes = {"num_centers": self.num_centers, "patch_size": self.patch_size}
        return build_patches(pos, batch, x=x, batch_size=batch_size, **sizes)

    def embed(self, patches: Patches) -> Tokens:
        """Tokens of the patches, before any position code: ``[B, G, C]``, zero where masked."""
        return self.patch_embed(patches)

    def forward_features(
        self,
        patches: Patches,
        *,
        tokens: Tokens | None = None,
        structure: Any = None,
        prior: Tensor | None = None,
    ) -> Float[Tensor, "B L C"]:
        """Normalised summary token and patch tokens, ``[B, 1 + G, C]``, zero where masked.

        ``structure`` and ``prior`` are handed to every block by name, and not read here.
        """
        x = self.embed(patches) if tokens is None else check_tokens(tokens, patches, self.embed_dim)
        x = prepend(self.cls_token, x)
        code = prepend(self.cls_pos, self.pos_embed(patches.center))
        for block in self.blocks:
            x = block(add_position(x, code), patches=patches, structure=structure, prior=prior)
        return zero_masked(self.norm(x), patches.mask)

    def forward_head(self, x: Float[Tensor, "B L C"], mask: Mask | None = None) -> Tensor:
        """Scores ``[B, num_classes]`` from :meth:`forward_features` and ``patches.mask``."""
        return self.head(torch.cat([x[:, 0], max_valid(x[:, 1:], mask)], dim=-1))

    def forward_query(self, patches: Patches, *, tokens: Tokens | None = None) -> Tensor:
        """The feature by which a memory bank is built and asked: ``[B, C]``.

        The maximum over the normalised tokens without a summary token; zero for an empty cloud.
        """
        x = self.embed(patches) if tokens is None else check_tokens(tokens, patches, self.embed_dim)
        code = self.pos_embed(patches.center)
        for block in self.blocks:
            x = block(x + code, patches=patches)
        return max_valid(self.norm(x), patches.mask)

    def forward(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        patches: Patches | None = None,
        tokens: Tokens | None = None,
        structure: Any = None,
        prior: Tensor | None = None,
    ) -> Tensor:
        if patches is None:
            if pos is None:
                raise ValueError("Expected 'pos' or 'patches' to be given (got neither)")
            patches = self.make_patches(pos, batch, batch_size, x)
        x = self.forward_features(patches, tokens=tokens, structure=structure, prior=prior)
        return self.forward_head(x, patches.mask)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items())


__all__ = ["PointMAE"]
