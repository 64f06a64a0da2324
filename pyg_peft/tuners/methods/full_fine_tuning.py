"""Full fine-tuning: train a copy of the whole model."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import Target
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.layers import below


@dataclass(frozen=True, kw_only=True)
class FullFineTuningConfig(MethodConfig):
    """Train a copy of everything: the baseline that every other method is measured against.

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | every module with tensors | own copy of parameters and buffers | all |

    Identity at init. The base does not change, so it can be compared, switched back to and shared
    with other adapters. This costs one more copy of the weights in memory. Dropout, drop-path and
    batch norms train as in the backbone itself.

    Args:
        exclude_modules: Paths, globs, ``re:`` expressions or classes of modules that stay frozen,
            including all modules below. Needed if the model has a module that it never calls; the
            first forward reports this.
    """

    method: ClassVar[str] = "full_fine_tuning"

    modules_to_save: tuple[Target, ...] = ("**",)
    exclude_modules: tuple[Target, ...] = ()

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        sites = self.saved_sites(base)
        if not sites:
            raise PlacementError(
                "Expected 'modules_to_save' to match a module with tensors outside "
                "'exclude_modules' (got none)"
            )
        return sites

    def trained_modules(self, base: nn.Module) -> dict[str, nn.Module]:
        without = below(base, self.exclude_modules)
        trained = super().trained_modules(base)
        return {path: module for path, module in trained.items() if path not in without}

    def replaced_paths(self, base: nn.Module) -> list[str]:
        if not self.exclude_modules:
            return super().replaced_paths(base)
        # Listed tensor by tensor, since a module's path would include excluded modules below it.
        return [
            f"{path}.{name}" if path else name
            for path, module in self.trained_modules(base).items()
            for name in (*module._parameters, *module._buffers)
        ]

    def head_paths(self, base: nn.Module) -> list[str]:
        return ["head"]


__all__ = ["FullFineTuningConfig"]
