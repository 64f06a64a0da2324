"""Components of Point-PEFT from its settings, for token backbones and any other model."""

from pyg_peft.nn import GeometryAwareAdapter, NeighborAttention
from pyg_peft.tuners.methods.point_peft.settings import PointPEFTSettings


def new_attention(config: PointPEFTSettings, channels: int) -> NeighborAttention:
    """Create the attention that the adapters of one width share."""
    return NeighborAttention(channels, config.attention_channels, config.attention_heads)


def new_adapter(
    config: PointPEFTSettings, channels: int, attention: NeighborAttention
) -> GeometryAwareAdapter:
    """Create the adapter of one layer or block.

    Args:
        config: The method's settings.
        channels: Width of the features.
        attention: Attention of this width.
    """
    return GeometryAwareAdapter(
        channels,
        config.bottleneck_channels,
        k=config.k,
        ratio=config.ratio,
        num_interp=config.num_interp,
        attention=attention,
        propagation_scale=config.propagation_scale,
        center_scale=config.center_scale,
        scale=config.scale,
    )


__all__ = ["new_adapter", "new_attention"]
