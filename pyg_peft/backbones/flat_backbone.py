"""The base class of backbones on flat clouds: features first, then a head of shared layers."""

from inspect import signature
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MLP
from torch_geometric.nn.inits import reset

from pyg_peft.backbones.layers.flat_input import FlatClouds, flat_input
from pyg_peft.backbones.layers.shared_mlp import scoring_mlp
from pyg_peft.backbones.layers.tokens import check_rates
from pyg_peft.errors import check_count
from pyg_peft.typing import Batch, Pos


class FlatBackbone(nn.Module):
    """Base class of classifiers and segmentation models on flat clouds, without layers of its own.

    The rows of features and scores are the ``B`` clouds for a classifier, and the ``N`` points for
    a segmentation model. A subclass sets every constructor argument as an attribute and builds
    ``levels`` and the layers after them. Its constructor ends with :meth:`reset_head`. It also
    implements ``forward_features``.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (rows, num_classes).
    """

    task: ClassVar[str]
    num_classes: int
    in_channels: int
    embed_dim: int
    head_channels: tuple[int, ...]
    head_dropout: float
    levels: nn.ModuleList
    head: MLP

    def reset_parameters(self) -> None:
        for part in self.children():
            reset(part)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; the class called with them has the same shapes."""
        # A user's subclass may take other arguments, so use the direct subclass of FlatBackbone.
        own = next(kind for kind in type(self).__mro__ if FlatBackbone in kind.__bases__)
        return {name: getattr(self, name) for name in signature(own).parameters}

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

    def forward_features(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
    ) -> Float[Tensor, "rows C"]:
        """Return one feature per row, ``[rows, embed_dim]``."""
        raise NotImplementedError

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
