"""Segment scenes: one label per point, measured over all original points of the tiles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.tasks.classification import Evaluation
from pyg_peft.training.tasks.segmentation import SegmentationTask

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True)
class SceneEvaluation(Evaluation):
    """Confusion matrix of all original points with a class, and the metrics computed from it.

    Args:
        confusion: Counts of points ``[K, K]``, row: true class, column: predicted class.
        class_names: Names of the classes.
    """

    class_names: tuple[str, ...]

    @property
    def iou(self) -> Tensor:
        """IoU of each class ``[K]``; NaN for one that does not occur."""
        both = self.confusion.diagonal().double()
        either = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - both
        return torch.where(either > 0, both / either, float("nan"))

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur."""
        return float(self.iou.nanmean())

    def numbers(self) -> dict[str, float]:
        return {"mean_iou": self.mean_iou, **super().numbers()}

    def record(self) -> dict[str, Any]:
        # JSON has no NaN.
        pairs = zip(self.class_names, self.iou.tolist(), strict=True)
        iou = {name: None if value != value else value for name, value in pairs}
        return {**self.numbers(), "iou": iou, "confusion": self.confusion.tolist()}

    def table(self) -> list[str]:
        width = max(len(name) for name in self.class_names)
        size = max(9, len(f"{int(self.confusion.max()):,}"), *map(len, self.class_names))
        rows = [f"{'':{width}s}     IoU  true class in rows, predicted in columns"]
        rows.append(f"{'':{width}s}         " + " ".join(f"{n:>{size}s}" for n in self.class_names))
        for name, iou, row in zip(
            self.class_names, self.iou.tolist(), self.confusion.tolist(), strict=True
        ):
            cells = " ".join(f"{count:>{size},}" for count in row)
            share = f"{100 * iou:6.2f}%" if iou == iou else f"{'-':>7s}"
            rows.append(f"{name:{width}s} {share} {cells}")
        return rows

    def __add__(self, other: Self) -> Self:
        return type(self)(self.confusion + other.confusion, self.class_names)

    def __str__(self) -> str:
        return (
            f"mIoU {100 * self.mean_iou:.2f} %, accuracy {100 * self.accuracy:.2f} %, macro "
            f"accuracy {100 * self.macro_accuracy:.2f} % ({self.count:,} points)"
        )


class SceneVotes:
    """Average the probabilities of overlapping blocks, and count the points of finished tiles.

    Memory holds the probabilities and the counts of one or two tiles.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._open: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, probabilities: Tensor, data: Any) -> Tensor:
        """Add a batch of ``EvalBlocks``; return the confusion matrix of the tiles that it ends.

        Args:
            probabilities: Probabilities of the points ``[n, K]``.
            data: The batch.
        """
        size = self.num_classes
        found = torch.zeros(size, size, dtype=torch.long)
        probabilities = probabilities.cpu()
        tile_of = data.tile.cpu()[data.batch.cpu()]
        voxel, counts = data.voxel.cpu(), data.counts.cpu()
        for block, tile in enumerate(data.tile.tolist()):
            if tile not in self._open:
                zeros = torch.zeros(int(data.num_voxels[block]), size)
                self._open = {
                    key: value for key, value in self._open.items() if key in data.tile.tolist()
                }
                self._open[tile] = (zeros, zeros.long())
        for tile in dict.fromkeys(data.tile.tolist()):
            votes, points = self._open[tile]
            own = tile_of == tile
            votes.index_add_(0, voxel[own], probabilities[own])
            points[voxel[own]] = counts[own].long()
        for tile, is_last in zip(data.tile.tolist(), data.is_last.tolist(), strict=True):
            if is_last:
                votes, points = self._open.pop(tile)
                table = torch.zeros(size, size, dtype=torch.long)
                found += table.index_add_(0, votes.argmax(dim=1), points).t()
        return found


class SceneTask(SegmentationTask):
    """Learns a class for each point of a scene; the best epoch has the highest mean IoU.

    Batches are those of ``EvalBlocks`` in evaluation. The scores of overlapping blocks are
    averaged. Every original point counts with the prediction of the point that the grid kept for
    it.

    Args:
        class_names: Names of the classes.

    Raises:
        ValueError: If there is no class.
    """

    monitor: ClassVar[str] = "mean_iou"

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        size = len(self.class_names)
        super().__init__([list(range(size))], size, category_names=["scene"])
        self._votes = SceneVotes(size)

    def check_labels(self, dataset: Any, split: str) -> None:
        """Do nothing: the classes of tiles are assigned when they are read."""

    def metrics(self, prefix: str = "") -> "MetricCollection":
        from pyg_peft.training.evaluation.scene_metrics import scene_metrics

        return scene_metrics(self.num_outputs, prefix)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        confusion = self._votes.add(self.predictions(scores, data), data)
        metrics.update(confusion.to(scores.device))

    def measure(self, scores: Tensor, data: Any) -> SceneEvaluation:
        """Return the counts of a batch by itself, without votes of other batches."""
        found, size = scores.argmax(dim=1).cpu(), self.num_outputs
        table = torch.zeros(size, size, dtype=torch.long)
        confusion = table.index_add_(0, found, data.counts.cpu().long()).t()
        return SceneEvaluation(confusion, self.class_names)

    def evaluate(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        precision: str = "32-true",
        progress: str = "",
        cache: FeatureCache | None = None,
    ) -> SceneEvaluation:
        votes = SceneVotes(self.num_outputs)
        confusion = torch.zeros(self.num_outputs, self.num_outputs, dtype=torch.long)
        empty = True
        for data, scores in self._score_all(model, loader, precision, progress, cache):
            confusion += votes.add(self.predictions(scores, data), data)
            empty = False
        if empty:
            raise ValueError("Expected 'loader' to yield at least one batch (got none)")
        return SceneEvaluation(confusion, self.class_names)


__all__ = ["SceneEvaluation", "SceneTask", "SceneVotes"]
