"""Random ragged batches, and ways to call the module under test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Clouds:
    """A batch in the flat layout, the input of all tests.

    Args:
        x: Features, one row per point.
        pos: Positions.
        batch: Sorted cloud id per point.
        batch_size: Number of clouds, including empty ones at the end.

    Shapes: x (N, C), pos (N, 3), batch (N).

    Example:
        >>> import torch
        >>> from pyg_peft.testing import random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([3, 0, 2], channels=4, generator=generator)
        >>> clouds.batch.tolist(), clouds.batch_size, clouds.rows(2).tolist()
        ([0, 0, 0, 2, 2], 3, [3, 4])
    """

    x: Tensor
    pos: Tensor
    batch: Tensor
    batch_size: int

    def rows(self, cloud: int) -> Tensor:
        """Return the row numbers of one cloud."""
        return (self.batch == cloud).nonzero().flatten()

    def alone(self, cloud: int) -> "Clouds":
        """Return one cloud as a separate batch."""
        rows = self.rows(cloud)
        return Clouds(self.x[rows], self.pos[rows], torch.zeros_like(rows), 1)

    def permuted(self, order: Tensor) -> "Clouds":
        """Return the points in another order, in which clouds must stay contiguous."""
        return replace(self, x=self.x[order], pos=self.pos[order], batch=self.batch[order])

    def moved(self, pos: Tensor) -> "Clouds":
        """Return the same clouds at other positions."""
        return replace(self, pos=pos)

    def leaves(self) -> "Clouds":
        """Return copies of features and positions that require gradients."""
        x, pos = (value.detach().clone().requires_grad_() for value in (self.x, self.pos))
        return replace(self, x=x, pos=pos)


Call: TypeAlias = Callable[[Any, Clouds], Tensor]
"""Function that calls a module; its result has one row per point or one row per cloud."""

Rows: TypeAlias = Literal["point", "cloud"]
"""Whether a row of a module's output belongs to a point or to a cloud."""


def call_flat(module: Any, clouds: Clouds) -> Tensor:
    """Call ``module(x, pos, batch, batch_size=batch_size)``, as components and backbones expect.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import call_flat, random_clouds
        >>> clouds = random_clouds([3], channels=4, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(call_flat(lambda x, pos, batch, batch_size: x, clouds), clouds.x)
        True
    """
    return module(clouds.x, clouds.pos, clouds.batch, batch_size=clouds.batch_size)


def random_clouds(
    sizes: Sequence[int],
    channels: int = 8,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Clouds:
    """Draw clouds of the given sizes from normal distributions, so that no distances are equal.

    Args:
        sizes: Number of points of each cloud. Zero is allowed.
        channels: Number of features.
        generator: Source of the random numbers.
        dtype: Precision. Double by default, so that differences are not due to rounding.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import random_clouds
        >>> random_clouds([5, 2], generator=torch.Generator().manual_seed(0)).x.shape
        torch.Size([7, 8])
    """
    total = sum(sizes)
    x = torch.randn(total, channels, generator=generator, dtype=dtype)
    pos = torch.randn(total, 3, generator=generator, dtype=dtype)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))
    return Clouds(x, pos, batch, len(sizes))


def random_order(clouds: Clouds, generator: torch.Generator, *, keep_first: bool = False) -> Tensor:
    """Draw an order of the points in which the points of every cloud stay together.

    Args:
        clouds: Clouds whose points are reordered.
        generator: Source of the order.
        keep_first: Keep the first point of each cloud in its place, for modules that start there.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import random_clouds, random_order
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([3, 2], generator=generator)
        >>> sorted(random_order(clouds, generator)[3:].tolist())
        [3, 4]
    """
    shuffled = torch.randperm(clouds.batch.numel(), generator=generator)
    if keep_first:
        first = clouds.batch.diff(prepend=clouds.batch[:1] - 1) > 0
        shuffled = shuffled[first[shuffled].logical_not().sort(stable=True).indices]
    return shuffled[clouds.batch[shuffled].argsort(stable=True)]


def output_rows(clouds: Clouds, cloud: int, rows: Rows) -> Tensor:
    """Return the rows of an output that belong to one cloud."""
    return clouds.rows(cloud) if rows == "point" else torch.tensor([cloud])


def randomize_(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every trainable parameter, and statistics of norms, random values in place.

    Components start as the identity, for which most properties hold trivially. Matrices are drawn
    with a standard deviation of one over the square root of their inputs. Random values are added
    to vectors, so that the weights of norms stay near one. Frozen parameters and statistics of
    frozen norms are unchanged.

    Args:
        module: Module to randomize.
        generator: Source of the random numbers.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import randomize_
        >>> layer = torch.nn.Linear(2, 2)
        >>> _ = torch.nn.init.zeros_(layer.weight)
        >>> bool((randomize_(layer, torch.Generator().manual_seed(0)).weight != 0).all())
        True
    """

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dim() > 1:
                parameter.copy_(noise(parameter) / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(noise(parameter) * 0.3)
        for owner in module.modules():
            mean = getattr(owner, "running_mean", None)
            variance = getattr(owner, "running_var", None)
            trained = any(p.requires_grad for p in owner.parameters(recurse=False))
            if trained and isinstance(mean, Tensor) and isinstance(variance, Tensor):
                mean.copy_(noise(mean) * 0.3)
                variance.copy_(1 + noise(variance).abs() * 0.3)
    return module
