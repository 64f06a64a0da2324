"""Methods: where components go. One method, one file."""

from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.slot import Component, OutputAdapter, Slot
from pyg_peft.tuners.engine.trained_tensors import TrainedTensors
from pyg_peft.tuners.methods.adapter import AdapterConfig
from pyg_peft.tuners.methods.bitfit import BitFitConfig
from pyg_peft.tuners.methods.full_fine_tuning import FullFineTuningConfig
from pyg_peft.tuners.methods.linear_probe import LinearProbeConfig
from pyg_peft.tuners.methods.lora import LoRAConfig
from pyg_peft.tuners.methods.point_peft.config import PointPEFTConfig
from pyg_peft.tuners.methods.vpt import VPTConfig

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
