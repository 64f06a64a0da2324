"""A task from outside the package: classification by the focal loss, of Lin et al. (2017)."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import one_hot

from pyg_peft.training import ClassificationTask, ShapeDataModule, register_task


class FocalTask(ClassificationTask):
    """Classification in which clouds that are already right count little."""

    name: ClassVar[str] = "focal_classification"

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        target = one_hot(labels, scores.size(1)).to(scores.dtype)
        target = (1 - label_smoothing) * target + label_smoothing / scores.size(1)
        logs = scores.log_softmax(dim=-1)
        return -(target * (1 - logs.exp()).square() * logs).sum(dim=1).mean()


class FocalData(ShapeDataModule):
    """The data of classification, for this task."""

    @property
    def task(self) -> FocalTask:
        return FocalTask(self.num_classes)


register_task(FocalTask, FocalData)
