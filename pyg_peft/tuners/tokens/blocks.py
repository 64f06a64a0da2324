"""Find the blocks and the token width of a token backbone."""

from typing import Any

from torch import nn

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.errors import PlacementError


def token_blocks(base: nn.Module) -> tuple[int, dict[str, nn.Module]]:
    """Return the width of the tokens, and the transformer blocks by path.

    Raises:
        PlacementError: If the model is not a token backbone. The message lists what is required.
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


__all__ = ["token_blocks"]
