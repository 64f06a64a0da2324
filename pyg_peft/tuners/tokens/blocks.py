"""What the methods for token backbones need to know of one."""

from typing import Any

from torch import nn

from pyg_peft.backbones import PatchEmbed
from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.slot import SLOT


def is_token_backbone(base: nn.Module) -> bool:
    """Whether a model has transformer blocks over tokens of one width."""
    blocks = getattr(base, "blocks", None)
    has_blocks = isinstance(blocks, nn.ModuleList) and len(blocks) > 0
    return has_blocks and isinstance(getattr(base, "embed_dim", None), int)


def token_blocks(base: nn.Module) -> tuple[int, dict[str, nn.Module]]:
    """Width of the tokens and the transformer blocks by path.

    Raises:
        PlacementError: If the model is no token backbone; the message says what was looked for.
    """
    blocks: Any = getattr(base, "blocks", None)
    embed_dim: Any = getattr(base, "embed_dim", None)
    if not is_token_backbone(base):
        raise PlacementError(
            "Expected a token backbone with 'blocks' (a ModuleList) and 'embed_dim' "
            f"(got {type(base).__name__} with the children "
            f"{', '.join(name for name, _ in base.named_children()) or 'none'}); Point-PEFT "
            "adapts layers of other models by 'target_modules'"
        )
    return embed_dim, {f"blocks.{name}": block for name, block in blocks.named_children()}


def feature_stems(base: nn.Module) -> dict[str, nn.Module]:
    """The layers through which point features enter the patch embeddings of a model, by path."""
    return {
        f"{path}.feature_stem" if path else "feature_stem": module.feature_stem
        for path, module in base.named_modules()
        if isinstance(module, PatchEmbed)
        and module.feature_stem is not None
        and SLOT not in path.split(".")
    }


__all__ = ["feature_stems", "is_token_backbone", "token_blocks"]
