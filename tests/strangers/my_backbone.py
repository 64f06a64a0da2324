"""A token backbone in one file: patches, two blocks, and a linear head on the largest features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from pyg_peft.backbones import Block, PatchEmbed, register_backbone
from pyg_peft.backbones.contract import TokenStructures
from pyg_peft.backbones.weights import build_checked, count_classes, read_state_dict
from pyg_peft.geometry import Patches, build_patches
from pyg_peft.typing import Batch, Features, Pos, Tokens


@register_backbone
class MaxBackbone(nn.Module):
    """A classifier with the members of ``pyg_peft.backbones.contract.TokenBackbone``."""

    task: ClassVar[str] = "classification"
    num_prefix_tokens = 0

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 24,
        num_heads: int = 3,
        num_centers: int = 8,
        patch_size: int = 8,
    ) -> None:
        super().__init__()
        self.num_classes, self.embed_dim, self.num_heads = num_classes, embed_dim, num_heads
        self.num_centers, self.patch_size = num_centers, patch_size
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Linear(3, embed_dim)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(2))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        state = read_state_dict(source)
        head = state.get("head.bias")
        classes = count_classes(num_classes, None if head is None else head.numel())
        fresh = () if head is not None else ("head.",)
        return build_checked(lambda: cls(classes, **sizes), state, fresh=fresh)

    @property
    def config(self) -> dict[str, Any]:
        names = ("num_classes", "embed_dim", "num_heads", "num_centers", "patch_size")
        return {name: getattr(self, name) for name in names}

    def reset_head(self, num_classes: int) -> None:
        self.head = nn.Linear(self.embed_dim, num_classes).to(self.pos_embed.weight)
        self.num_classes = num_classes

    def make_patches(
        self,
        pos: Pos,
        batch: Batch | None = None,
        batch_size: int | None = None,
        x: Features | None = None,
    ) -> Patches:
        return build_patches(
            pos,
            batch,
            num_centers=self.num_centers,
            patch_size=self.patch_size,
            batch_size=batch_size,
        )

    def embed(self, patches: Patches) -> Tokens:
        return self.patch_embed(patches)

    def forward_features(
        self,
        patches: Patches,
        *,
        tokens: Tokens | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Tensor:
        x = self.embed(patches) if tokens is None else tokens
        code = self.pos_embed(patches.center.to(x.dtype))
        for block in self.blocks:
            x = block(x + code, patches=patches, structure=structure, prior=prior)
        x = self.norm(x)
        if patches.mask is not None:
            x = x.masked_fill(~patches.mask.unsqueeze(-1), float("-inf"))
        return x.amax(dim=1).clamp(min=-1e4)  # an empty cloud has no largest feature

    def forward_query(self, patches: Patches, *, tokens: Tokens | None = None) -> Tensor:
        return self.forward_features(patches, tokens=tokens)

    def forward(
        self,
        x: Features | None = None,
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
            patches = self.make_patches(pos, batch, batch_size)
        features = self.forward_features(patches, tokens=tokens, structure=structure, prior=prior)
        return self.head(features)
