"""Divide the clouds of an epoch into batches of nearly equal size, without leaving any out."""

import math
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any, cast

from torch.utils.data import BatchSampler, Sampler


def batch_sizes(count: int, batch_size: int, *, drop_last: bool = False) -> list[int]:
    """Return the sizes of an epoch's batches: as few as possible, and as even as possible.

    With a ``batch_size`` of two or more no batch has a single cloud, from which a batch norm cannot
    compute statistics, unless there is only one cloud. Therefore an odd number of clouds in batches
    of two gives one batch of three.

    Args:
        count: Number of clouds of the epoch.
        batch_size: Largest number of clouds in a batch.
        drop_last: Whether to use full batches only and leave out the rest. Runs started by a
            version that did so continue with it.

    Example:
        >>> batch_sizes(92, 32), batch_sizes(64, 32), batch_sizes(5, 2)
        ([31, 31, 30], [32, 32], [3, 2])
    """
    if drop_last:
        return [batch_size] * (count // batch_size) or [count]
    number = max(1, min(math.ceil(count / batch_size), count // min(2, batch_size)))
    small, larger = divmod(count, number)
    return [small + 1] * larger + [small] * (number - larger)


class EvenBatches(BatchSampler):
    """Divide a sampler's order into batches that differ by at most one cloud, none left out.

    In your own loop use ``DataLoader(clouds, batch_sampler=EvenBatches(RandomSampler(clouds),
    16))``. PyTorch's ``drop_last=True`` would leave out clouds in every epoch. Without it, a last
    batch of one cloud makes a batch norm fail.

    Args:
        sampler: The order of the epoch, for example a
            :class:`~pyg_peft.training.data.sampler.KeyedSampler`.
        batch_size: Largest number of clouds in a batch, see ``batch_sizes``.
        drop_last: See ``batch_sizes``.

    Example:
        >>> [len(batch) for batch in EvenBatches(range(92), batch_size=32)]
        [31, 31, 30]
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(cast("Sampler[int]", sampler), batch_size, drop_last)

    def sizes(self) -> list[int]:
        """Return the number of clouds of each batch."""
        count = len(cast(Sized, self.sampler))
        return batch_sizes(count, self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.sampler)
        for size in self.sizes():
            yield list(islice(order, size))

    def __len__(self) -> int:
        return len(self.sizes())


__all__ = ["EvenBatches", "batch_sizes"]
