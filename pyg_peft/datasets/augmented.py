"""A data set whose random transforms are keyed by seed, epoch and sample."""

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

    A resumed run therefore equals an undisturbed one, and the number of workers, their order and
    whatever else draws random numbers do not matter. Transforms that take a ``generator`` (ours)
    get the keyed one; others, PyG's among them, run while the global generators are seeded from
    it, and these states are put back afterwards. ``Compose`` is walked through.

    With ``num_views`` every sample has only that many versions, met in turn: epoch ``e`` shows view
    ``e % num_views``. Features of a frozen backbone can then be computed once per
    ``(sample_id, view_id)`` and kept. ``num_views=1`` makes a fixed evaluation set.

    Args:
        dataset: any data set whose items carry ``sample_id``: ours, or another one wrapped in
            :class:`~pyg_peft.datasets.SampleIds`.
        transform: a callable on ``Data``; a plain function, a PyG transform, or one of ours.
        seed: key of the run.
        num_views: number of versions of each sample, or ``None`` for a new one each epoch.

    Raises: ``ValueError`` for ``num_views < 1``, a negative epoch, or an item without
        ``sample_id``.

    Items have ``view_id`` (long ``[1]``) too: the view, or the epoch if views are not limited.
    Call :meth:`set_epoch` before the loader's iterator is made, as workers fetch ahead; the epoch
    lives in shared memory, so it also reaches persistent workers.

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
        """The epoch whose draws the items show."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; subsets of this data set and its loaders' workers follow."""
        check_count(epoch, "epoch", least=0)
        self._epoch.fill_(epoch)

    @property
    def labels(self) -> Tensor:
        """All labels, without loading points where the wrapped data set can."""
        return labels_of(self.dataset)[list(self.indices())]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, as the wrapped data set has them."""
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
        self._epoch.share_memory_()  # a deep copy leaves shared memory


def apply_keyed(transform: Callable[..., Any], data: Data, generator: Generator) -> Data:
    """Apply one transform with all its draws from ``generator``.

    Args:
        transform: see :class:`Augmented`.
        data: one item; PyG's and our transforms leave it as it is and return a copy.
        generator: where the draws, or the seeds of the global generators, come from.
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
    except (TypeError, ValueError):  # built-in callables have no signature, so no such name either
        return False


__all__ = ["Augmented", "apply_keyed"]
