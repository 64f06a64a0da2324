"""The classification head: from a pooled feature to scores."""

from torch import Tensor, nn

from pyg_peft.backbones.layers.tokens import check_rates
from pyg_peft.errors import check_count, check_dtype, check_tensor
from pyg_peft.symmetries import Symmetries


@Symmetries(permutation="equivariant", of="the rows", depends_on=("x",), independent="rows")
class ClassificationHead(nn.Module):
    """Compute scores with the authors' head of three linear layers. The hidden layers have 256
    channels, with batch norm, ReLU and dropout in between.

    Args:
        in_channels: Width of the pooled feature.
        num_classes: Number of classes.
        dropout: Dropout probability while training.

    Shapes:
        x (B, in_channels); output (B, num_classes).

    Symmetries:
    """

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.5) -> None:
        in_channels = check_count(in_channels, "in_channels")
        num_classes = check_count(num_classes, "num_classes")
        check_rates(dropout=dropout)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_channels, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x, "x", shape=("B", self.layers[0].in_features), values=False)
        check_dtype(x, self.layers[0].weight)  # pyright: ignore[reportArgumentType]
        return self.layers(x)

    def reset_parameters(self) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Linear | nn.BatchNorm1d):
                layer.reset_parameters()


__all__ = ["ClassificationHead"]
