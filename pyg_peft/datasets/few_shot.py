"""Few-shot episodes: a few classes with a few labeled shapes each."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.datasets.checks import check_dataset, check_item
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.labeled import LabeledDataset
from pyg_peft.datasets.labels import check_labels, numeric_array
from pyg_peft.datasets.sample_ids import class_names_of, labels_of
from pyg_peft.errors import check_count, check_index


@dataclass(frozen=True)
class Episode:
    """Rows of one few-shot task.

    Args:
        classes: Labels of the ways, ascending.
        support: Rows to learn from, ``[num_ways * num_shots]``, class by class.
        query: Rows to evaluate on, ``[num_ways * num_queries]``, class by class.
    """

    classes: tuple[int, ...]
    support: Tensor
    query: Tensor


def few_shot_episode(
    labels: Tensor | Sequence[int],
    *,
    num_ways: int,
    num_shots: int,
    num_queries: int = 20,
    episode: int = 0,
    seed: int = 0,
    query_labels: Tensor | Sequence[int] | None = None,
) -> Episode:
    """Draw the n-way k-shot task with number ``episode``.

    The published protocol has 5 or 10 ways, 10 or 20 shots, and 20 queries per class. It reports
    mean and standard deviation over 10 episodes.

    Args:
        labels: One label per sample, ``[N]``.
        num_ways: Number of classes, drawn from those with enough samples.
        num_shots: Labeled samples per class.
        num_queries: Samples per class to evaluate on. None of them is in the support set.
        episode: Number of the task. The order of calls does not matter.
        seed: Random seed. Another seed gives other tasks.
        query_labels: Labels of another set (the test split) from which the queries are drawn. By
            default, both are drawn from ``labels``.

    Raises:
        ValueError: If a size is below 1, or too few classes have enough samples.

    Example:
        >>> import torch
        >>> from pyg_peft.datasets import few_shot_episode
        >>> labels = torch.arange(60) % 6
        >>> task = few_shot_episode(labels, num_ways=3, num_shots=2, num_queries=5)
        >>> len(task.support), len(task.query), torch.isin(task.support, task.query).any()
        (6, 15, tensor(False))
    """
    sizes = {"num_ways": num_ways, "num_shots": num_shots, "num_queries": num_queries}
    for name, size in sizes.items():
        check_count(size, name)
    check_count(episode, "episode", least=None)
    check_count(seed, "seed", least=None)
    labels = _labels(labels, "labels")
    shared = query_labels is None
    others = labels if query_labels is None else _labels(query_labels, "query_labels")
    need = num_shots + num_queries if shared else num_shots
    able = [
        label
        for label in labels.unique().tolist()
        if int((labels == label).sum()) >= need
        and (shared or int((others == label).sum()) >= num_queries)
    ]
    if len(able) < num_ways:
        raise ValueError(
            f"Expected 'labels' to have {num_ways} classes with {num_shots} shots and "
            f"{num_queries} queries (got {len(able)})"
        )
    generator = keyed_generator("few_shot", seed, episode)
    chosen = torch.randperm(len(able), generator=generator)[:num_ways].tolist()
    classes = tuple(sorted(able[place] for place in chosen))
    support, query = [], []
    for label in classes:
        rows = _shuffled(labels, label, generator)
        support.append(rows[:num_shots])
        rest = rows[num_shots:] if shared else _shuffled(others, label, generator)
        query.append(rest[:num_queries])
    return Episode(classes, torch.cat(support), torch.cat(query))


class FewShotSubset(LabeledDataset):
    """The items of one side of an episode, with labels renumbered from 0.

    Args:
        dataset: Data set that the rows refer to.
        rows: ``episode.support`` or ``episode.query``.
        classes: ``episode.classes``. Class ``classes[i]`` becomes ``i``.

    Items: those of ``dataset`` with ``y`` from 0 to ``num_ways - 1``; ``sample_id`` is unchanged.

    Example:
        >>> from pyg_peft.datasets import FewShotSubset, ProceduralShapes, few_shot_episode
        >>> shapes = ProceduralShapes(num_shapes=48, num_points=16)
        >>> task = few_shot_episode(shapes.labels, num_ways=2, num_shots=1, num_queries=3)
        >>> support = FewShotSubset(shapes, task.support, task.classes)
        >>> len(support), support.labels.tolist(), len(support.class_names)
        (2, [0, 1], 2)
    """

    def __init__(self, dataset: Any, rows: Tensor, classes: Sequence[int]) -> None:
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        if not isinstance(rows, Tensor):
            rows = torch.from_numpy(numeric_array(rows, "'rows'"))
        rows = check_index(rows, "rows", len(dataset), shape=("N",), of="items")
        self.rows = rows
        number = {label: place for place, label in enumerate(classes)}
        originals = labels_of(dataset)[rows].tolist()
        strange = sorted({label for label in originals if label not in number})
        if strange:
            raise ValueError(f"Expected 'rows' to be of 'classes' {list(classes)} (got {strange})")
        self._labels = torch.tensor([number[label] for label in originals], dtype=torch.long)
        names = class_names_of(dataset)
        unnamed = [label for label in classes if not 0 <= label < len(names)]
        if unnamed:
            raise ValueError(
                f"Expected 'classes' to be of the {len(names)} classes of 'dataset' (got {unnamed})"
            )
        self.class_names = tuple(names[label] for label in classes)

    def get(self, idx: int) -> Data:
        row = int(self.rows[idx])
        data = copy.copy(check_item(self.dataset[row], row))
        data.y = self._labels[idx].reshape(1)
        return data


def _labels(labels: Tensor | Sequence[int], name: str) -> Tensor:
    whole = torch.from_numpy(check_labels(labels, f"'{name}'"))
    if whole.dim() != 1:
        raise ValueError(f"Expected '{name}' to be of shape [N] (got {list(whole.shape)})")
    return whole


def _shuffled(labels: Tensor, label: int, generator: torch.Generator) -> Tensor:
    rows = (labels == label).nonzero().flatten()
    return rows[torch.randperm(len(rows), generator=generator)]


__all__ = ["Episode", "FewShotSubset", "few_shot_episode"]
