"""Full fine-tuning, as one method among the others."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .config import MethodConfig, Site


@dataclass(frozen=True, kw_only=True)
class FullFineTuningConfig(MethodConfig):
    """Train a copy of everything: the baseline that every other method is measured against.

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | every module with tensors | own copy of parameters and buffers | all |

    Identity at init. The base stays as it was, so that it can be compared, switched back to and
    shared with other adapters; that costs one more copy of the weights in memory. Dropout,
    drop-path and batch norms train as in the backbone itself.
    """

    method: ClassVar[str] = "full_fine_tuning"

    modules_to_save: tuple[str, ...] = ("**",)

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        return self.saved_sites(base)

    def head_paths(self, base: nn.Module) -> list[str]:
        return ["head"]


__all__ = ["FullFineTuningConfig"]
