"""The registry of backbones by name, and the list of weights that ship with the package.

Commands, tables of the documentation and tests read these lists. A saved file refers to a backbone
by its key here, never by an import path.
"""

from typing import Any, TypeVar

from torch import nn

from pyg_peft.backbones.dgcnn.classifier import DGCNN
from pyg_peft.backbones.dgcnn.segmentation import DGCNNSegmentation
from pyg_peft.backbones.point_mae.classifier import PointMAE
from pyg_peft.backbones.point_mae.segmentation import PointMAESegmentation
from pyg_peft.backbones.point_transformer.classifier import PointTransformer
from pyg_peft.backbones.point_transformer.segmentation import PointTransformerSegmentation
from pyg_peft.backbones.pointnet.classifier import PointNet
from pyg_peft.backbones.pointnet.segmentation import PointNetSegmentation
from pyg_peft.backbones.pointnet2.classifier import PointNetPlusPlus
from pyg_peft.backbones.pointnet2.segmentation import PointNetPlusPlusSegmentation
from pyg_peft.backbones.weights.shipped import SHIPPED

Kind = TypeVar("Kind", bound=type[nn.Module])

# Members that commands need, to build a model, load it and change its number of classes.
_NEEDED = ("config", "from_checkpoint", "reset_head")
HEADS = ("classification", "segmentation")

BACKBONES: dict[str, type[Any]] = {
    "DGCNN": DGCNN,
    "DGCNNSegmentation": DGCNNSegmentation,
    "PointMAE": PointMAE,
    "PointMAESegmentation": PointMAESegmentation,
    "PointNet": PointNet,
    "PointNetPlusPlus": PointNetPlusPlus,
    "PointNetPlusPlusSegmentation": PointNetPlusPlusSegmentation,
    "PointNetSegmentation": PointNetSegmentation,
    "PointTransformer": PointTransformer,
    "PointTransformerSegmentation": PointTransformerSegmentation,
}


def register_backbone(kind: Kind) -> Kind:
    """Register your own backbone under its class name; use it as a decorator.

    Args:
        kind: A module class with ``task`` (``"classification"`` or ``"segmentation"``), ``config``,
            ``from_checkpoint`` and ``reset_head``. A class with the members of
            :class:`~pyg_peft.backbones.contract.TokenBackbone` is a token backbone.

    Raises:
        TypeError: If ``kind`` is not a module class, or a member is missing.
        ValueError: If the name is taken by another class, or ``task`` is unknown.

    Example:
        >>> from pyg_peft.backbones import PointMAE
        >>> @register_backbone
        ... class MyBackbone(PointMAE):
        ...     pass
        >>> "MyBackbone" in list_backbones("classification")
        True
        >>> del BACKBONES["MyBackbone"]
    """
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise TypeError(f"Expected 'kind' to be a class of modules (got {kind!r})")
    missing = [name for name in _NEEDED if not hasattr(kind, name)]
    if missing:
        raise TypeError(f"Expected {kind.__name__} to have {', '.join(missing)} (got none)")
    task = getattr(kind, "task", None)
    if task not in HEADS:
        raise ValueError(
            f"Expected 'task' of {kind.__name__} to be one of {', '.join(HEADS)} (got {task!r})"
        )
    if BACKBONES.get(kind.__name__, kind) is not kind:
        raise ValueError(f"Expected a name that is free (got {kind.__name__!r}, which is taken)")
    BACKBONES[kind.__name__] = kind
    return kind


def list_backbones(task: str | None = None) -> list[str]:
    """Return the names of all backbones, or of those for ``task``.

    Raises:
        ValueError: If there is no such task.

    Example:
        >>> list_backbones("segmentation")[:2]
        ['DGCNNSegmentation', 'PointMAESegmentation']
    """
    if task is not None and task not in HEADS:
        raise ValueError(f"Expected 'task' to be one of {', '.join(HEADS)} or None (got {task!r})")
    return sorted(name for name, kind in BACKBONES.items() if task in (None, kind.task))


def list_models() -> list[str]:
    """Return the names of the pre-trained weights that ``from_pretrained`` loads.

    Example:
        >>> list_models()
        ['point-mae-tiny']
    """
    return sorted(SHIPPED)


__all__ = ["BACKBONES", "HEADS", "list_backbones", "list_models", "register_backbone"]
