"""The base class of the Point-MAE models that return scores: shipped weights and new heads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pyg_peft.backbones.layers.constructor import constructor_arguments
from pyg_peft.backbones.layers.patch_embed import check_tokens
from pyg_peft.backbones.point_mae.encoder import PointMAEEncoder
from pyg_peft.backbones.weights.shipped import find_pretrained
from pyg_peft.errors import check_count
from pyg_peft.geometry import Patches
from pyg_peft.typing import Tokens


class PointMAEWithHead(PointMAEEncoder):
    """Base class of the Point-MAE models with a head, for clouds or for points.

    A subclass implements ``from_checkpoint`` and ``make_head``. Its constructor sets
    ``num_classes`` and ``head``.

    Args:
        embed_dim, depth, num_heads, num_centers, patch_size, in_channels, drop_path: See
            :class:`~pyg_peft.backbones.point_mae.encoder.PointMAEEncoder`.
    """

    task: ClassVar[str]
    num_classes: int
    head: Any  # a module, of another class in each subclass

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; the class called with them has the same shapes."""
        return constructor_arguments(self, PointMAEWithHead)

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, name: str, num_classes: int | None = None, **sizes: Any) -> Self:
        """Build a model with weights that ship with the package.

        Args:
            name: One of the names that :func:`pyg_peft.backbones.list_models` returns.
            num_classes: As in ``from_checkpoint``.
            **sizes: As in ``from_checkpoint``; they replace the sizes stored with the file.

        Raises:
            ValueError: If the name does not exist; the message lists all names.
            CheckpointError: If the installed file is damaged.
        """
        path, stored = find_pretrained(name)
        return cls.from_checkpoint(path, num_classes, **{**stored, **sizes})

    def make_head(self, num_classes: int) -> Any:
        """Build a head for ``num_classes``."""
        raise NotImplementedError

    def reset_head(self, num_classes: int) -> None:
        """Replace the head with a new one for ``num_classes``, on the same device and dtype."""
        num_classes = check_count(num_classes, "num_classes")
        head = self.make_head(num_classes).to(self.norm.weight)
        self.head = head.train(self.head.training)
        self.num_classes = num_classes

    def embed_or_check(self, patches: Patches, tokens: Tokens | None) -> Tokens:
        """Return the tokens of patches, or the given tokens if there is one per patch."""
        if tokens is None:
            return self.embed(patches)
        return check_tokens(tokens, patches, self.embed_dim)


__all__ = ["PointMAEWithHead"]
