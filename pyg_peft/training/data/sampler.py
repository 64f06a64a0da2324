"""The order of a training epoch: a function of the seed and the epoch, shared out between ranks."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from pyg_peft.datasets.keyed import keyed_generator


class KeyedSampler(Sampler[int]):
    """Shuffle keyed by seed and epoch, so that a resumed run meets the order of an undisturbed one.

    Lightning calls :meth:`set_epoch` before each epoch; in a loop of your own do it yourself. The
    epoch is handed on to the data set if that has a ``set_epoch`` (``Augmented`` has).

    Args:
        dataset: what to shuffle.
        seed: the run's seed.
        rank, world_size: this process and the number of them. Every sample is in an epoch, and
            every rank gets the same number, so that all make the same number of steps: where they
            do not divide, up to ``world_size - 1`` samples come twice, others each epoch.

    Raises:
        ValueError: ``rank`` does not lie in the world, or the data set is smaller than it.

    Example:
        >>> order = list(KeyedSampler(range(5), seed=1))
        >>> order == list(KeyedSampler(range(5), seed=1)), sorted(order)
        (True, [0, 1, 2, 3, 4])
    """

    def __init__(self, dataset: Any, seed: int = 0, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"Expected 'rank' to lie in [0, {world_size - 1}] (got {rank})")
        if len(dataset) < world_size:
            raise ValueError(
                f"Expected 'dataset' to hold a sample for each of {world_size} processes "
                f"(got {len(dataset)})"
            )
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the order, and of the data set's views."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = keyed_generator(self.seed, "shuffle", self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        missing = len(self) * self.world_size - len(order)
        padded = torch.cat([order, order[:missing]])
        return iter(padded[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.world_size)


__all__ = ["KeyedSampler"]
