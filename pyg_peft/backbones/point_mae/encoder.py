"""The base class of the Point-MAE family: patches, tokens and transformer blocks."""

from typing import Any

from torch import Tensor, nn

from pyg_peft.backbones.layers.constructor import constructor_arguments
from pyg_peft.backbones.layers.patch_embed import PatchEmbed
from pyg_peft.backbones.layers.tokens import PositionEmbedding
from pyg_peft.backbones.layers.transformer import check_heads, init_transformer_, make_blocks
from pyg_peft.errors import check_count
from pyg_peft.geometry import Patches, build_patches
from pyg_peft.typing import Batch, Features, Pos, Tokens


class PointMAEEncoder(nn.Module):
    """Base class of the Point-MAE models, with their sizes and the layers up to the last block.

    A subclass adds its head and ``forward``, and sets every constructor argument as an attribute.
    Its constructor ends with ``reset_parameters``.

    Args:
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads; it must divide ``embed_dim``.
        num_centers: Number of patches of a cloud.
        patch_size: Number of points of a patch.
        in_channels: Width of the point features ``x``; their layer starts at zero.
        drop_path: Probability that a cloud skips a residual branch of the last block while
            training; it grows linearly from 0 at the first.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_centers: int,
        patch_size: int,
        *,
        in_channels: int,
        drop_path: float,
    ) -> None:
        embed_dim = check_count(embed_dim, "embed_dim")
        depth = check_count(depth, "depth")
        num_heads = check_heads(num_heads, embed_dim)
        num_centers = check_count(num_centers, "num_centers")
        patch_size = check_count(patch_size, "patch_size")
        in_channels = check_count(in_channels, "in_channels", least=0)
        super().__init__()
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.num_centers = num_centers
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.drop_path = drop_path
        self.patch_embed = PatchEmbed(embed_dim, in_channels=in_channels)
        self.pos_embed = PositionEmbedding(embed_dim)
        self.blocks = make_blocks(embed_dim, depth, num_heads, drop_path)
        self.norm = nn.LayerNorm(embed_dim)

    def reset_parameters(self) -> None:
        self.patch_embed.reset_parameters()
        for part in (self.pos_embed, self.blocks, self.norm):
            part.apply(init_transformer_)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; the class called with them has the same shapes."""
        return constructor_arguments(self, PointMAEEncoder)

    def make_patches(
        self,
        pos: Pos,
        batch: Batch | None = None,
        batch_size: int | None = None,
        x: Features | None = None,
    ) -> Patches:
        """Cut clouds into patches of this model's sizes; see ``build_patches``."""
        sizes = {"num_centers": self.num_centers, "patch_size": self.patch_size}
        return build_patches(pos, batch, x=x, batch_size=batch_size, **sizes)

    def embed(self, patches: Patches) -> Tokens:
        """Return tokens of patches without position codes, ``[B, G, C]``, zero where masked."""
        return self.patch_embed(patches)

    def run_blocks(self, x: Tokens, code: Tensor, patches: Patches) -> Tokens:
        """Return normalized tokens after all blocks; position codes are added before each block."""
        for block in self.blocks:
            x = block(x + code, patches=patches)
        return self.norm(x)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items())


__all__ = ["PointMAEEncoder"]
