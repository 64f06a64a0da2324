"""Parameter-efficient fine-tuning of 3D point-cloud models on PyTorch Geometric.

Public names are loaded when they are first used, so that ``import pyg_peft`` is as cheap as an
empty module, and a component costs no more than PyTorch Geometric itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyg_peft.geometry import enable_pyg_ops
    from pyg_peft.loading import load
    from pyg_peft.model import PeftModel, get_peft_model
    from pyg_peft.nn import (
        Bottleneck,
        GeometryAwareAdapter,
        LowRankLinear,
        MemoryBank,
        NeighborAttention,
        PointPriorPrompt,
        PromptTokens,
        parameter_free_attention,
    )
    from pyg_peft.tuners import (
        AdapterConfig,
        BitFitConfig,
        FullFineTuningConfig,
        LinearProbeConfig,
        LoRAConfig,
        PointPEFTConfig,
        VPTConfig,
    )

__version__ = "0.1.0"

_HOME = {
    "AdapterConfig": "pyg_peft.tuners",
    "BitFitConfig": "pyg_peft.tuners",
    "Bottleneck": "pyg_peft.nn",
    "FullFineTuningConfig": "pyg_peft.tuners",
    "GeometryAwareAdapter": "pyg_peft.nn",
    "LinearProbeConfig": "pyg_peft.tuners",
    "LoRAConfig": "pyg_peft.tuners",
    "LowRankLinear": "pyg_peft.nn",
    "MemoryBank": "pyg_peft.nn",
    "NeighborAttention": "pyg_peft.nn",
    "PeftModel": "pyg_peft.model",
    "PointPEFTConfig": "pyg_peft.tuners",
    "PointPriorPrompt": "pyg_peft.nn",
    "PromptTokens": "pyg_peft.nn",
    "VPTConfig": "pyg_peft.tuners",
    "enable_pyg_ops": "pyg_peft.geometry",
    "get_peft_model": "pyg_peft.model",
    "load": "pyg_peft.loading",
    "parameter_free_attention": "pyg_peft.nn",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'pyg_peft' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))


__all__ = [
    "AdapterConfig",
    "BitFitConfig",
    "Bottleneck",
    "FullFineTuningConfig",
    "GeometryAwareAdapter",
    "LinearProbeConfig",
    "LoRAConfig",
    "LowRankLinear",
    "MemoryBank",
    "NeighborAttention",
    "PeftModel",
    "PointPEFTConfig",
    "PointPriorPrompt",
    "PromptTokens",
    "VPTConfig",
    "__version__",
    "enable_pyg_ops",
    "get_peft_model",
    "load",
    "parameter_free_attention",
]
