"""Shuffle a training epoch, as a function of seed and epoch, and divide it among ranks."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from pyg_peft.datasets.keyed import keyed_generator


class KeyedSampler(Sampler[int]):
    """Shuffle by seed and epoch, so that a resumed run has the order of an uninterrupted one.

    Lightning calls :meth:`set_epoch` before each epoch; call it yourself in your own loop. The
    epoch is passed on to the data set if that has a ``set_epoch``, as ``Augmented`` does.

    Args:
        dataset: The data set to shuffle.
        seed: Seed of the run.
        rank, world_size: Rank of this process and number of processes. Every sample is used in
            every epoch. Every rank gets the same number of samples, so that all take the same
            number of steps. If the samples do not divide evenly, up to ``world_size - 1`` of them
            occur twice, different ones in each epoch.
        labels: Class of each sample ``[N]``. With it, samples of rarer classes are repeated until
            every class occurs as often as the largest, and every sample is still used in every
            epoch. Which samples are repeated once more than others differs by epoch. Samples of a
            negative class are not repeated.

    Raises:
        ValueError: If ``rank`` is not in ``[0, world_size - 1]``, or the data set has fewer than
            ``world_size`` samples, or 'labels' have another shape.

    Example:
        >>> order = list(KeyedSampler(range(5), seed=1))
        >>> order == list(KeyedSampler(range(5), seed=1)), sorted(order)
        (True, [0, 1, 2, 3, 4])
        >>> sorted(KeyedSampler(range(3), labels=torch.tensor([0, 0, 1])))
        [0, 1, 2, 2]
    """

    def __init__(
        self,
        dataset: Any,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
        labels: Tensor | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"Expected 'rank' to lie in [0, {world_size - 1}] (got {rank})")
        if len(dataset) < world_size:
            raise ValueError(
                f"Expected 'dataset' to hold a sample for each of {world_size} processes "
                f"(got {len(dataset)})"
            )
        if labels is not None and labels.shape != (len(dataset),):
            raise ValueError(
                f"Expected 'labels' to be of shape [{len(dataset)}] (got {list(labels.shape)})"
            )
        self.dataset = dataset
        self.labels = labels
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the order, and of the data set's views."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = keyed_generator(self.seed, "shuffle", self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        if self.labels is not None:
            order = torch.cat([order, *self._extra(order, self.labels)])
            order = order[torch.randperm(len(order), generator=generator)]
        missing = len(self) * self.world_size - len(order)
        padded = torch.cat([order, order[:missing]])
        return iter(padded[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        return -(-epoch_size(len(self.dataset), self.labels) // self.world_size)

    def _extra(self, order: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Yield the repeated samples of each class, the first of ``order`` most often."""
        known = labels[labels >= 0]
        most = int(known.bincount().max()) if known.numel() else 0
        for label in known.unique():
            rows = order[labels[order] == label]
            yield rows.repeat(-(-most // len(rows)))[len(rows) : most]


def epoch_size(count: int, labels: Tensor | None = None) -> int:
    """Return the number of samples of an epoch over all ranks, without padding.

    Args:
        count: Number of samples of the data set.
        labels: See :class:`KeyedSampler`.
    """
    if labels is None:
        return count
    known = labels[labels >= 0]
    counts = known.bincount()
    most = int(counts.max()) if known.numel() else 0
    return count - len(known) + most * int((counts > 0).sum())


__all__ = ["KeyedSampler", "epoch_size"]
