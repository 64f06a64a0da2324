"""A task from outside the package: classification by the focal loss, of Lin et al. (2017)."""

from typing import ClassVar

from torch import Tensor

from pyg_peft.training import ClassificationTask, ShapeDataModule, register_task


class FocalTask(ClassificationTask):
    """Classification in which clouds that are already right count little."""

    name: ClassVar[str] = "focal_classification"

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        right = scores.log_softmax(dim=-1).gather(1, labels[:, None])
        return -((1 - right.exp()).square() * right).mean()


class FocalData(ShapeDataModule):
    """The data of classification, for this task."""

    @property
    def task(self) -> FocalTask:
        return FocalTask(self.num_classes)


register_task(FocalTask, FocalData)
