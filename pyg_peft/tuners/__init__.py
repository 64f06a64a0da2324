"""Configurations of the fine-tuning methods: which component goes where, one method per file."""

from typing import TypeVar

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

Config = TypeVar("Config", bound=type[MethodConfig])

#: The configuration class of every method, by its name.
METHODS: dict[str, type[MethodConfig]] = {
    "adapter": AdapterConfig,
    "bitfit": BitFitConfig,
    "full_fine_tuning": FullFineTuningConfig,
    "linear_probe": LinearProbeConfig,
    "lora": LoRAConfig,
    "point_peft": PointPEFTConfig,
    "vpt": VPTConfig,
}


def register_method(config: Config) -> Config:
    """Register your own method under its ``method`` name, as a decorator.

    Args:
        config: A subclass of :class:`MethodConfig` with a ``method`` name.

    Raises:
        TypeError: If ``config`` is not such a class, or has no name.
        ValueError: If the name is taken by another class.

    Example:
        >>> from pyg_peft.tuners import METHODS, LoRAConfig, register_method
        >>> @register_method
        ... class MyConfig(LoRAConfig):
        ...     method = "mine"
        >>> METHODS.pop("mine").__name__
        'MyConfig'
    """
    if not isinstance(config, type) or not issubclass(config, MethodConfig):
        raise TypeError(f"Expected 'config' to be a subclass of MethodConfig (got {config!r})")
    name = getattr(config, "method", None)
    if not isinstance(name, str) or not name:
        raise TypeError(f"Expected 'method' of {config.__name__} to be a name (got {name!r})")
    if METHODS.get(name, config) is not config:
        raise ValueError(f"Expected a method's name that is free (got {name!r}, which is taken)")
    METHODS[name] = config
    return config


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
    "register_method",
]
