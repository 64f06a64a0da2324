"""BitFit: train only the biases."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import Target
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.layers import below
from pyg_peft.tuners.methods.biases import bias_sites


@dataclass(frozen=True, kw_only=True)
class BitFitConfig(MethodConfig):
    r"""Train every bias and nothing else, after `"BitFit" <https://arxiv.org/abs/2106.10199>`_.

    ::

        x ── W x + b' ── output          W frozen, b' the adapter's own

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | every module with a bias | own bias | its length |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |
    | ``modules_to_save`` | own copy | all of them |

    Identity at init. Batch norms keep their frozen statistics. ``out_proj`` of
    ``nn.MultiheadAttention`` is never called; its bias is replaced in the call of the attention.

    Args:
        exclude_modules: Paths, globs, ``re:`` expressions or classes of modules whose biases stay
            frozen, including those of all modules below. Needed if one of your modules reads a
            child's bias without calling the child; the first forward reports this.
    """

    method: ClassVar[str] = "bitfit"

    exclude_modules: tuple[Target, ...] = ()

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        without = {*self.trained_modules(base), *below(base, self.exclude_modules)}
        sites = bias_sites(base, without=without)
        if not sites:
            raise PlacementError(
                "Expected a model with biases (got none outside 'modules_to_save' and "
                "'exclude_modules')"
            )
        return sites + self.saved_sites(base)


__all__ = ["BitFitConfig"]
