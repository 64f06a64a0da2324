"""Place the components of Point-PEFT in a token backbone."""

from collections.abc import Container

from torch import nn

from pyg_peft.nn import Bottleneck, PointPriorPrompt, PromptTokens
from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.slot import OutputAdapter
from pyg_peft.tuners.engine.trained_tensors import TrainedTensors
from pyg_peft.tuners.methods.point_peft.components import new_adapter, new_attention
from pyg_peft.tuners.methods.point_peft.settings import PointPEFTSettings
from pyg_peft.tuners.methods.point_peft.token_components import (
    GeometryBlock,
    PromptGeometry,
    PromptInput,
)
from pyg_peft.tuners.tokens.blocks import token_blocks


def token_sites(
    base: nn.Module,
    config: PointPEFTSettings,
    chosen: Container[str] | None = None,
    *,
    has_bank: bool,
) -> list[Site]:
    """Create the components for a token backbone, except the head's.

    Args:
        base: The backbone.
        config: The method's settings.
        chosen: Paths of the blocks to adapt; by default all.
        has_bank: Whether prompts depend on a memory bank.
    """
    channels, blocks = token_blocks(base)
    attention = new_attention(config, channels)
    chosen = blocks if chosen is None else chosen
    prompted = [path for path in list(blocks)[: config.prompt_depth] if path in chosen]
    prompts_of_each = config.num_prompts or 0
    if not prompts_of_each:
        prompted = []
    geometry = PromptGeometry(
        prompts_of_each if prompted else 0,
        k=config.k,
        ratio=config.ratio,
        num_interp=config.num_interp,
    )
    sites = [Site("", "geometry", geometry)]
    for path, block in blocks.items():
        if path not in chosen:
            continue
        num_prompts = prompts_of_each if path in prompted else 0
        adapter = new_adapter(config, channels, attention)
        # The after methods run in reverse order, so the adapter runs before prompts are removed.
        if num_prompts:
            prompt = (
                PointPriorPrompt(channels, num_prompts, config.prompt_bottleneck_channels)
                if has_bank
                else PromptTokens(num_prompts, channels)
            )
            sites.append(Site(path, "prompt", PromptInput(prompt)))
        sites.append(Site(path, "adapter", GeometryBlock(adapter, num_prompts)))
        bottleneck = Bottleneck(channels, config.bottleneck_channels, scale=config.mlp_scale)
        sites.append(Site(f"{path}.mlp", "adapter", OutputAdapter(bottleneck)))
        if config.train_biases:
            sites += [
                Site(
                    f"{path}.{layer}",
                    "trained",
                    TrainedTensors(block.get_submodule(layer), ["bias"]),
                )
                for layer in ("attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
            ]
    if config.train_biases:
        norm = base.get_submodule("norm")
        sites.append(Site("norm", "trained", TrainedTensors(norm, ["weight", "bias"])))
        own = [name for name in ("cls_token", "cls_pos") if name in base._parameters]
        if own:
            sites.append(Site("", "trained", TrainedTensors(base, own)))
    return sites


__all__ = ["token_sites"]
