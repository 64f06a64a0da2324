"""The shallow decoder for the pre-training of Point-MAE."""

import torch
from torch import Tensor, nn

from pyg_peft.backbones.layers.tokens import PositionEmbedding
from pyg_peft.backbones.layers.transformer import init_transformer_, make_blocks
from pyg_peft.errors import check_count, check_dtype, check_tensor, described
from pyg_peft.geometry import Patches
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    of="the hidden patches",
    translation=False,
    rotation=False,
    note="Invariant under permutations of the visible patches.",
)
class PointMAEDecoder(nn.Module):
    """Predict the points of hidden patches from the features of visible ones.

    Every hidden patch is the same learned ``mask_token``. Hidden patches differ only by the
    position code of their center, which is added before each block.

    Args:
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads; it must divide ``embed_dim``.
        patch_size: Number of points of a patch.
        drop_path: Probability that a cloud skips a residual branch of the last block while
            training; it grows linearly from 0 at the first.

    Shapes:
        x (B, V, C); patches: ``V`` visible and then ``M`` hidden ones of each cloud; output
        (B, M, K, 3), relative to the centers.

    Symmetries:
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int = 4,
        num_heads: int = 6,
        patch_size: int = 32,
        *,
        drop_path: float = 0.1,
    ) -> None:
        embed_dim = check_count(embed_dim, "embed_dim")
        patch_size = check_count(patch_size, "patch_size")
        super().__init__()
        self.patch_size = patch_size
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = PositionEmbedding(embed_dim)
        self.blocks = make_blocks(embed_dim, depth, num_heads, drop_path)
        self.norm = nn.LayerNorm(embed_dim)
        self.reconstruction = nn.Linear(embed_dim, 3 * patch_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.apply(init_transformer_)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor, patches: Patches) -> Tensor:
        if not isinstance(patches, Patches):
            raise TypeError(f"Expected 'patches' to be Patches (got {described(patches)})")
        check_tensor(x, "x", shape=("B", "V", self.norm.weight.numel()), values=False)
        check_tensor(x, "x", kind="float", device=self.mask_token.device, values=False)
        check_dtype(x, self.mask_token)
        num_clouds, num_visible, _ = x.shape
        num_hidden = patches.num_centers - num_visible
        fits = torch.compiler.is_compiling() or num_clouds == patches.batch_size
        if not fits or num_hidden < 0:
            raise ValueError(
                f"Expected 'x' to hold at most {patches.num_centers} visible patches for each of "
                f"{patches.batch_size} clouds, as 'patches' have (got {list(x.shape)})"
            )
        hidden = self.mask_token.to(x.dtype).expand(num_clouds, num_hidden, -1)
        x = torch.cat([x, hidden], dim=1)
        code = self.pos_embed(patches.center)
        for block in self.blocks:
            x = block(x + code, patches=patches)
        x = self.reconstruction(self.norm(x[:, num_visible:]))
        return x.unflatten(2, (self.patch_size, 3))

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}"


__all__ = ["PointMAEDecoder"]
