"""LoRA: low-rank changes of linear layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.nn import LowRankHeteroLinear, LowRankLinear
from pyg_peft.trainable import Target, match_modules
from pyg_peft.tuners.engine.calls import first_input
from pyg_peft.tuners.engine.checks import check_dropout, check_positive
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.layers import adaptable_layers, below, is_never_called
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(MethodConfig):
    r"""Add low-rank changes to linear layers, after `"LoRA" <https://arxiv.org/abs/2106.09685>`_.

    ::

        x ──┬── Linear (frozen) ──────────(+)── output
            └── down [rank] ── up ── α/r ──┘

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | linear layers matched | :class:`~pyg_peft.nn.LowRankLinear` | rank · (in + out) |
    | ``HeteroLinear`` | :class:`~pyg_peft.nn.LowRankHeteroLinear` | rank · types · (in + out) |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |
    | ``modules_to_save`` | own copy | all of them |

    Identity at init. Can be merged: see :meth:`pyg_peft.model.PeftModel.merge_and_unload`.

    Args:
        rank: Width between the two matrices.
        alpha: Numerator of the multiplier ``alpha / rank``; ``None`` means ``rank``.
        dropout: Dropout rate of the input, while training.
        target_modules: Paths, globs, ``re:`` expressions or classes of linear layers of PyTorch or
            PyG (``Linear``, ``HeteroLinear``). A module that holds linear layers, such as ``MLP``,
            stands for all of them. By default all linear layers in ``blocks`` if the model has such
            a child, and otherwise all that the adapter does not own already. The default leaves
            out ``out_proj`` of ``nn.MultiheadAttention``, which is never called.
        exclude_modules: Paths, globs, ``re:`` expressions or classes of modules that get no change,
            including all modules below. Needed if ``target_modules`` matches a layer that the model
            never calls; the first forward reports this.
    """

    method: ClassVar[str] = "lora"

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    target_modules: tuple[Target, ...] | None = None
    exclude_modules: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "rank", "alpha")
        check_dropout(self)

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        without = {*self.trained_modules(base), *below(base, self.exclude_modules)}
        sites = [
            Site(path, "lora", LowRankUpdate(self._update(layer)))
            for path, layer in self._targets(base).items()
            if path not in without
        ]
        if not sites:
            raise PlacementError(
                "Expected 'target_modules' to match a linear layer outside 'modules_to_save' and "
                "'exclude_modules' (got none)"
            )
        return sites + self.saved_sites(base)

    def combined(self, others: Sequence[MethodConfig]) -> Self:
        ranks = [self.rank, *(other.rank for other in others if isinstance(other, LoRAConfig))]
        alike = [
            replace(other, rank=self.rank, alpha=self.alpha)
            for other in others
            if isinstance(other, LoRAConfig)
        ]
        if len(alike) == len(others):
            others = alike
        return replace(super().combined(others), rank=sum(ranks), alpha=None)

    def _targets(self, base: nn.Module) -> dict[str, nn.Module]:
        layers = adaptable_layers(base)
        if self.target_modules is None:
            inside = {path: layer for path, layer in layers.items() if path.startswith("blocks.")}
            return {p: m for p, m in (inside or layers).items() if not is_never_called(base, p)}
        chosen: set[str] = set()
        for path, module in match_modules(base, self.target_modules).items():
            within = {p for p in layers if path == "" or f"{p}.".startswith(f"{path}.")}
            if not within:
                raise PlacementError(
                    f"Expected {path!r} to be or to hold a linear layer "
                    f"(got {type(module).__name__})"
                )
            chosen |= within
        return {path: layer for path, layer in layers.items() if path in chosen}

    def _update(self, layer: nn.Module) -> LowRankLinear | LowRankHeteroLinear:
        weight: Any = layer.weight
        # A plain weight is [out, in], that of HeteroLinear [types, in, out].
        out_channels, in_channels = weight.shape if weight.dim() == 2 else weight.shape[:0:-1]
        rank = min(self.rank, in_channels, out_channels)
        alpha = None if self.alpha is None else self.alpha * rank / self.rank
        more: dict[str, Any] = {"alpha": alpha, "dropout": self.dropout}
        if weight.dim() == 2:
            return LowRankLinear(in_channels, out_channels, rank, **more)
        return LowRankHeteroLinear(in_channels, out_channels, weight.size(0), rank, **more)


class LowRankUpdate(Component):
    """Adds the output of a low-rank layer to the output of the adapted layer."""

    def __init__(self, update: LowRankLinear | LowRankHeteroLinear) -> None:
        super().__init__()
        self.update = update

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        if isinstance(self.update, LowRankHeteroLinear):
            return output + self.update(*args, **kwargs)
        return output + self.update(first_input(args, kwargs))

    def merged(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        return [(module, "weight")]

    def merge(self, module: nn.Module) -> None:
        weight: Any = module.weight
        weight.data.add_(self.update.delta_weight().detach().to(weight.dtype))

    @torch.no_grad()
    def combine(
        self, module: nn.Module, components: Sequence[Component], weights: Sequence[float]
    ) -> None:
        """Concatenate the matrices of the updates, or store the sum itself if its rank is full.

        The result is exact, to rounding, in either case.
        """
        update: Any = self.update
        others: list[Any] = [getattr(component, "update") for component in components]  # noqa: B009
        hetero = isinstance(update, LowRankHeteroLinear)
        down, up = (update.down, update.up) if hetero else (update.down.weight, update.up.weight)
        if sum(other.rank for other in others) == update.rank:
            scales = [w * other.scale for w, other in zip(weights, others, strict=True)]
            ups = [
                scale * (other.up if hetero else other.up.weight)
                for scale, other in zip(scales, others, strict=True)
            ]
            downs = [other.down if hetero else other.down.weight for other in others]
            down.copy_(torch.cat(downs, -1 if hetero else 0))
            up.copy_(torch.cat(ups, 1 if hetero else -1) / update.scale)
            return
        total = sum(w * other.delta_weight() for w, other in zip(weights, others, strict=True))
        # Of full rank: one of the matrices is the unit matrix, the other one the sum.
        first, second = (down, up) if hetero else (up, down)
        unit = torch.eye(update.rank).to(down)
        if first.shape[-2:] == unit.shape:
            first.copy_(unit.expand_as(first))
            second.copy_(total / update.scale)
        else:
            second.copy_(unit.expand_as(second))
            first.copy_(total / update.scale)


__all__ = ["LoRAConfig", "LowRankUpdate"]
