"""Fit a linear layer to the features of a frozen backbone, to evaluate pre-training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.layers.tokens import max_valid

PENALTIES = (1e-3, 1e-2)


@torch.no_grad()
def frozen_features(model: PointMAE, loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Compute the input of the classification head for every cloud of ``loader``.

    Args:
        model: The backbone. It is put into eval mode and stays in it.
        loader: Iterable of batches with ``pos``, ``batch``, ``num_graphs`` and labels ``y``.

    Returns:
        Features ``[N, 2 * embed_dim]``, the summary token concatenated with the maximum over the
        patch tokens, and labels ``[N]``, both on the CPU.

    Raises:
        ValueError: If ``loader`` has no batches.
    """
    model.eval()
    device = model.norm.weight.device
    features, labels = [], []
    for batch in loader:
        data = batch.to(device)
        patches = model.make_patches(data.pos, data.batch, data.num_graphs)
        x = model.forward_features(patches)
        features.append(torch.cat([x[:, 0], max_valid(x[:, 1:], patches.mask)], dim=-1))
        labels.append(data.y)
    if not features:
        raise ValueError("Expected 'loader' to give at least one batch (got none)")
    return torch.cat(features).cpu(), torch.cat(labels).cpu()


def fit_linear(x: Tensor, y: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression with a squared penalty on its weights, with L-BFGS.

    Args:
        x: Features ``[N, C]``, preferably standardized.
        y: Labels ``[N]``.
        num_classes: Number of scores.
        penalty: Factor of the sum of squared weights.

    Returns:
        Weight ``[C, num_classes]`` and bias ``[num_classes]``.
    """
    weight = torch.zeros(x.size(1), num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer that was fitted to frozen features.

    Args:
        weight, bias: Weight and bias of the layer, for standardized features.
        mean, std: Mean and standard deviation of the training features.
        penalty: The penalty that was best on the validation features.
        val_accuracy, val_loss: Accuracy and cross-entropy there. If accuracies are equal, the lower
            cross-entropy is better.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    penalty: float
    val_accuracy: float
    val_loss: float = math.nan

    def scores(self, x: Tensor) -> Tensor:
        """Return the layer's scores for the rows of ``x [N, C]``."""
        return ((x - self.mean) / self.std) @ self.weight + self.bias

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Return the share of rows of ``x [N, C]`` whose highest score is at ``y [N]``."""
        return float((self.scores(x).argmax(dim=1) == y).double().mean())

    def loss(self, x: Tensor, y: Tensor) -> float:
        """Return the mean cross-entropy of the rows of ``x [N, C]`` with labels ``y [N]``."""
        return float(F.cross_entropy(self.scores(x), y))


def fit_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
) -> LinearProbe:
    """Fit one layer per penalty to ``train``, and return the one that is best on ``val``.

    If accuracies on ``val`` are equal, the lower loss is better.

    Args:
        train, val: Features and labels, as from :func:`frozen_features`.
        num_classes: Number of scores.
        penalties: Penalties to try.

    Raises:
        ValueError: If no penalties are given.

    Example:
        >>> import torch
        >>> from pyg_peft.training.evaluation.probe import fit_probe
        >>> x, y = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
        >>> fit_probe((x, y), (x, y), num_classes=3).val_accuracy
        1.0
    """
    if not penalties:
        raise ValueError("Expected 'penalties' to hold at least one value (got none)")
    x, y = train
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    probes = []
    for penalty in penalties:
        layer = fit_linear((x - mean) / std, y, num_classes, penalty)
        draft = LinearProbe(*layer, mean, std, penalty, 0.0)
        found = draft.accuracy(*val), draft.loss(*val)
        probes.append(LinearProbe(*layer, mean, std, penalty, *found))
    return max(probes, key=lambda probe: (probe.val_accuracy, -probe.val_loss))


__all__ = ["LinearProbe", "fit_linear", "fit_probe", "frozen_features"]
