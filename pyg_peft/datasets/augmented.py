"""A data set whose random transforms depend on seed, epoch and sample only."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch_geometric.data import Data, Dataset
from torch_geometric.transforms import Compose

from pyg_peft.datasets.checks import check_dataset, check_item
from pyg_peft.datasets.keyed import keyed_generator, keyed_globals
from pyg_peft.datasets.sample_ids import class_names_of, labels_of
from pyg_peft.errors import check_count


class Augmented(Dataset):
    """Apply random transforms so that an item depends on ``(seed, epoch, sample_id)`` only.

    A resumed run therefore equals an uninterrupted one. The number of workers, their order and
    other users of random numbers do not matter. Transforms that take a ``generator`` (those of this
    package) get a keyed one. For all others, such as PyG's, the global generators are seeded from
    it and restored afterwards. The steps of a ``Compose`` are treated one by one.

    With ``num_views``, each sample has only that many versions: epoch ``e`` uses view
    ``e % num_views``. Features of a frozen backbone can then be computed once per
    ``(sample_id, view_id)`` and cached. ``num_views=1`` gives a fixed evaluation set.

    Args:
        dataset: Any data set whose items have ``sample_id``: one of this package, or another one
            wrapped in :class:`~pyg_peft.datasets.SampleIds`.
        transform: A callable on ``Data``: a function, a PyG transform, or a transform of this
            package.
        seed: Seed of the run.
        num_views: Number of versions of each sample, or ``None`` for a new one in each epoch.

    Raises:
        ValueError: If ``num_views < 1``, an epoch is negative, or an item has no ``sample_id``.

    Items also have ``view_id`` (long ``[1]``): the view, or the epoch if views are not limited.
    Call :meth:`set_epoch` before you create the loader's iterator, because workers fetch ahead. The
    epoch is kept in shared memory, so that persistent workers see it too.

    Example:
        >>> import torch
        >>> from pyg_peft.datasets import Augmented, ProceduralShapes, UpRotate
        >>> shapes = Augmented(ProceduralShapes(num_shapes=4, num_points=16), UpRotate(), seed=0)
        >>> first = shapes[2].pos
        >>> shapes.set_epoch(1)
        >>> torch.equal(first, shapes[2].pos)
        False
        >>> shapes.set_epoch(0)
        >>> torch.equal(first, shapes[2].pos)
        True
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[..., Any],
        seed: int = 0,
        *,
        num_views: int | None = None,
    ) -> None:
        if num_views is not None:
            check_count(num_views, "num_views")
        check_count(seed, "seed", least=None)
        if not callable(transform):
            raise TypeError(f"Expected 'transform' to be a callable (got {transform!r})")
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        self.augmentation = transform
        self.seed = seed
        self.num_views = num_views
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that items are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also for subsets of this data set and for the workers of its loaders."""
        check_count(epoch, "epoch", least=0)
        self._epoch.fill_(epoch)

    @property
    def labels(self) -> Tensor:
        """All labels, without loading points if the wrapped data set supports that."""
        return labels_of(self.dataset)[list(self.indices())]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names of the wrapped data set."""
        return class_names_of(self.dataset)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        data = copy.copy(check_item(self.dataset[idx], idx))
        sample_id = data.get("sample_id")
        if sample_id is None:
            raise ValueError(
                "Expected 'dataset' to give items with 'sample_id' (got none): "
                "wrap it in SampleIds(dataset)"
            )
        view = self.epoch if self.num_views is None else self.epoch % self.num_views
        generator = keyed_generator(self.seed, view, int(sample_id))
        data = apply_keyed(self.augmentation, data, generator)
        data.view_id = torch.tensor([view])
        return data

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # a deep copy is not in shared memory


def apply_keyed(transform: Callable[..., Any], data: Data, generator: Generator) -> Data:
    """Apply one transform with all its random numbers drawn from ``generator``.

    Args:
        transform: See :class:`Augmented`.
        data: One item. Transforms of PyG and of this package leave it unchanged and return a copy.
        generator: Source of the random numbers, or of the seed of the global generators.
    """
    if isinstance(transform, Compose):
        for step in transform.transforms:
            data = apply_keyed(step, data, generator)
        return data
    if _takes_generator(type(transform)):
        return transform(data, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    with keyed_globals(seed):
        return transform(data)


@functools.cache
def _takes_generator(kind: type) -> bool:
    try:
        return "generator" in inspect.signature(kind.__call__).parameters
    except (TypeError, ValueError):  # built-in callables have no signature
        return False


__all__ = ["Augmented", "apply_keyed"]
