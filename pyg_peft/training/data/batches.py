"""How the clouds of an epoch are cut into batches: all of them are used, in batches of one size."""

import math
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any, cast

from torch.utils.data import BatchSampler, Sampler


def batch_sizes(count: int, batch_size: int, *, drop_last: bool = False) -> list[int]:
    """Clouds of each batch of an epoch: as few batches as hold ``count``, as even as they can be.

    With a ``batch_size`` of two or more no batch has a single cloud, of which a batch norm could
    take no statistics, unless there is only one. Therefore an odd number of clouds in batches of
    two makes one batch of three.

    Args:
        count: clouds of the epoch.
        batch_size: largest number of clouds in a batch.
        drop_last: full batches only; what is left over is left out. Runs that were begun before
            every cloud was used go on so.

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
    """Cut the order of a sampler into batches that differ by at most one cloud, none left out.

    For a loop of your own: ``DataLoader(clouds, batch_sampler=EvenBatches(RandomSampler(clouds),
    16))``. ``drop_last=True`` would leave clouds out in every epoch, and without it a last batch of
    one cloud stops a batch norm.

    Args:
        sampler: the order of the epoch, for example a
            :class:`~pyg_peft.training.data.sampler.KeyedSampler`.
        batch_size: largest number of clouds in a batch; see :func:`batch_sizes`.
        drop_last: see :func:`batch_sizes`.

    Example:
        >>> [len(batch) for batch in EvenBatches(range(92), batch_size=32)]
        [31, 31, 30]
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(cast("Sampler[int]", sampler), batch_size, drop_last)

    def sizes(self) -> list[int]:
        """Clouds of each batch."""
        count = len(cast(Sized, self.sampler))
        return batch_sizes(count, self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.sampler)
        for size in self.sizes():
            yield list(islice(order, size))

    def __len__(self) -> int:
        return len(self.sizes())


__all__ = ["EvenBatches", "batch_sizes"]
