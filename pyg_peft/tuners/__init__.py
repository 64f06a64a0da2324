"""Methods: where components go. One method, one file."""

from .adapter import AdapterConfig
from .bitfit import BitFitConfig
from .config import MethodConfig, Site
from .full_fine_tuning import FullFineTuningConfig
from .linear_probe import LinearProbeConfig
from .lora import LoRAConfig
from .point_peft import PointPEFTConfig
from .slot import Component, OutputAdapter, Slot
from .trained_tensors import TrainedTensors
from .vpt import VPTConfig

METHODS: dict[str, type[MethodConfig]] = {
    "adapter": AdapterConfig,
    "bitfit": BitFitConfig,
    "full_fine_tuning": FullFineTuningConfig,
    "linear_probe": LinearProbeConfig,
    "lora": LoRAConfig,
    "point_peft": PointPEFTConfig,
    "vpt": VPTConfig,
}

__all__ = [
    "METHODS",
    "AdapterConfig",
    "BitFitConfig",
    "Component",
    "FullFineTuningConfig",
    "LinearProbeConfig",
    "LoRAConfig",
    "MethodConfig",
    "OutputAdapter",
    "PointPEFTConfig",
    "Site",
    "Slot",
    "TrainedTensors",
    "VPTConfig",
]
