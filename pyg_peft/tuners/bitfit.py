"""BitFit: only the biases."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..errors import PlacementError
from .config import MethodConfig, Site
from .trained_tensors import TrainedTensors

_BIASES = ("bias", "in_proj_bias")


@dataclass(frozen=True, kw_only=True)
class BitFitConfig(MethodConfig):
    r"""Train every bias and nothing else, after `"BitFit" <https://arxiv.org/abs/2106.10199>`_.

    ::

        x ── W x + b' ── output          W frozen, b' the adapter's own

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | every module with a bias | own bias | its length |
    | ``modules_to_save`` | own copy | all of them |

    Identity at init. Batch norms keep their frozen statistics.
    """

    method: ClassVar[str] = "bitfit"

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        saved = self.trained_modules(base)
        sites = [
            Site(path, "trained", TrainedTensors(module, names))
            for path, module in base.named_modules()
            if path not in saved
            and "peft" not in path.split(".")
            and (names := [n for n in _BIASES if module._parameters.get(n) is not None])
        ]
        if not sites:
            raise PlacementError(
                "Expected a model with biases (got none outside 'modules_to_save')"
            )
        return sites + self.saved_sites(base)


__all__ = ["BitFitConfig"]
