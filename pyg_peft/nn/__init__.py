"""Trainable components, one per file, independent of where they are placed in a model."""

from pyg_peft.nn.attention import parameter_free_attention
from pyg_peft.nn.bottleneck import Bottleneck, quick_gelu
from pyg_peft.nn.geometry_adapter import GeometryAwareAdapter
from pyg_peft.nn.low_rank import LowRankLinear
from pyg_peft.nn.low_rank_hetero import LowRankHeteroLinear
from pyg_peft.nn.memory_bank import MemoryBank
from pyg_peft.nn.neighbor_attention import NeighborAttention
from pyg_peft.nn.prompt import PointPriorPrompt, PromptTokens

__all__ = [
    "Bottleneck",
    "GeometryAwareAdapter",
    "LowRankHeteroLinear",
    "LowRankLinear",
    "MemoryBank",
    "NeighborAttention",
    "PointPriorPrompt",
    "PromptTokens",
    "parameter_free_attention",
    "quick_gelu",
]
