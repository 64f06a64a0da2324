"""What data sets have in common that store the label of each item."""

from torch import Tensor
from torch_geometric.data import Dataset


class LabeledDataset(Dataset):
    """Base of data sets that return all labels without loading points.

    A subclass sets ``_labels``, one label per item of the whole data set, and ``class_names``.

    Attributes:
        class_names: Names of the classes, in label order.
    """

    class_names: tuple[str, ...]
    _labels: Tensor

    @property
    def labels(self) -> Tensor:
        """All labels, without loading points."""
        return self._labels[list(self.indices())]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def len(self) -> int:
        return len(self._labels)


__all__ = ["LabeledDataset"]
