"""The base class of backbones on flat clouds: features first, then a head of shared layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP
from torch_geometric.nn.inits import reset

from pyg_peft.backbones.layers.constructor import constructor_arguments
from pyg_peft.backbones.layers.flat_input import FlatClouds, flat_input
from pyg_peft.backbones.layers.shared_mlp import scoring_mlp
from pyg_peft.backbones.layers.tokens import check_rates, check_sizes
from pyg_peft.backbones.weights import build_checked
from pyg_peft.backbones.weights.flat_files import OwnWeights, own_weights
from pyg_peft.backbones.weights.reading import State
from pyg_peft.errors import check_count
from pyg_peft.typing import Batch, Pos


class FlatBackbone(nn.Module):
    """Base class of classifiers and segmentation models on flat clouds, without layers of its own.

    The rows of features and scores are the ``B`` clouds for a classifier, and the ``N`` points for
    a segmentation model. A subclass sets its further constructor arguments as attributes and builds
    ``levels`` and the layers after them. Its constructor ends with :meth:`reset_head`. It also
    implements ``infer_sizes`` and ``compute_features``.

    Args:
        num_classes: Number of classes of a cloud or of a point.
        in_channels: Width of the point features ``x``.
        head_channels: Widths of the hidden layers of the head.
        head_dropout: Dropout probability of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (rows, num_classes).
    """

    task: ClassVar[str]
    embed_dim: int
    levels: nn.ModuleList
    head: MLP

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        head_channels: Sequence[int],
        head_dropout: float,
    ) -> None:
        super().__init__()
        self.num_classes = check_count(num_classes, "num_classes")
        self.in_channels = check_count(in_channels, "in_channels", least=0)
        self.head_channels = check_sizes(head_channels, "head_channels", fewest=0)
        self.head_dropout = head_dropout

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights.

        If the file is from the family's model for the other task, decoder and head are newly
        initialized.

        Args:
            source: File, or mapping with this library's keys; see ``read_state_dict``.
            num_classes: Number of classes. Required if the file has no head for this task;
                otherwise it must match the file's head.
            **sizes: Constructor arguments that cannot be inferred from the weights. Those of the
                decoder and ``head_channels`` are among them if these parts are newly initialized.

        Raises:
            FileNotFoundError: If the file does not exist.
            CheckpointError: If the file is damaged, or if keys or shapes do not fit; the message
                names all of them.
            ValueError: If ``num_classes`` is missing or differs from the file's head.
        """
        segments = cls.task == "segmentation"
        weights = own_weights(
            source, num_classes, name=cls.__name__, segments=segments, rename=cls.map_keys
        )
        read: dict[str, Any] = {
            "num_classes": weights.num_classes,
            **cls.infer_sizes(weights),
            **weights.head_channels(),
        }
        model = build_checked(lambda: cls(**{**read, **sizes}), weights.state, fresh=weights.fresh)
        return model

    @staticmethod
    def map_keys(state: State) -> State:
        """Translate published keys to this library's; by default there are none to translate."""
        return state

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        """Return the constructor arguments that can be inferred from levels and decoder."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        for part in self.children():
            reset(part)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; the class called with them has the same shapes."""
        return constructor_arguments(self, FlatBackbone)

    def head_options(self) -> dict[str, Any]:
        """Return the arguments of ``scoring_mlp`` that build the head."""
        return {"dropout": self.head_dropout}

    def reset_head(self, num_classes: int) -> None:
        """Replace the head with a new one for ``num_classes``, on the same device and dtype."""
        num_classes = check_count(num_classes, "num_classes")
        check_rates(head_dropout=self.head_dropout)
        widths = (self.embed_dim, *self.head_channels, num_classes)
        head = scoring_mlp(*widths, **self.head_options())
        self.head = head.to(next(self.levels.parameters())).train(self.training)
        self.num_classes = num_classes

    def flat_input(
        self, x: Tensor | None, pos: Tensor | None, batch: Tensor | None, batch_size: int | None
    ) -> FlatClouds:
        """Check the arguments of a call and return them in the precision of the weights."""
        like = next(self.levels.parameters())
        return flat_input(x, pos, batch, batch_size, in_channels=self.in_channels, like=like)

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "rows C"]:
        """Return the features of checked clouds, as in :meth:`forward_features`."""
        raise NotImplementedError

    def forward_features(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
    ) -> Float[Tensor, "rows C"]:
        """Return one feature per row, ``[rows, embed_dim]``."""
        return self.compute_features(self.flat_input(x, pos, batch, batch_size))

    def forward_head(self, x: Float[Tensor, "rows C"]) -> Float[Tensor, "rows num_classes"]:
        """Return scores ``[rows, num_classes]`` for the output of :meth:`forward_features`."""
        return self.head(x)

    def forward(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
    ) -> Float[Tensor, "rows num_classes"]:
        """Return scores per cloud, ``[B, num_classes]``, or per point, ``[N, num_classes]``."""
        return self.forward_head(self.forward_features(x, pos, batch, batch_size))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items())


__all__ = ["FlatBackbone"]
