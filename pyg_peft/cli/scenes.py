"""The options of fit that are for tiles of scenes."""

from inspect import signature
from typing import Any

from torch import nn

from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.scenes import SceneDataModule
from pyg_peft.training.tasks.segmentation import SegmentationTask


def scene_data_args(
    task: str,
    data_args: dict[str, Any] | None,
    label_field: str | None,
    ignore_label: int | list[int] | None,
    classes: dict[str, str] | None,
) -> dict[str, Any] | None:
    """Return the arguments of the data set with those that options of their own give.

    Raises:
        ValueError: If one is given for another task, or twice.
    """
    options = {"label_field": label_field, "ignore_label": ignore_label, "classes": classes}
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return data_args
    names = ", ".join(f"--{name}" for name in given)
    if task != SegmentationTask.name:
        raise ValueError(f"Expected {names} with '--task segmentation' only (got {task!r})")
    twice = sorted(set(given) & set(data_args or {}))
    if twice:
        raise ValueError(
            f"Expected each setting once (got {', '.join(twice)} in 'data_args' and as options)"
        )
    return {**(data_args or {}), **given}


def scene_backbone_args(
    kind: type[Any], module: ShapeDataModule, backbone_args: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return the arguments of a backbone, with the width of the features of a scene.

    Raises:
        ValueError: If the backbone takes no features, or is to have another width.
    """
    width = module.num_features if isinstance(module, SceneDataModule) else 0
    if width == 0:
        return backbone_args
    if "in_channels" not in signature(kind).parameters:
        raise ValueError(
            f"Expected 'features' to be empty for {kind.__name__}, which takes positions only "
            f"(got {width} columns)"
        )
    found = {"in_channels": width, **(backbone_args or {})}
    if found["in_channels"] != width:
        raise ValueError(
            f"Expected 'in_channels' of 'backbone_args' to be {width}, the columns of 'features' "
            f"(got {found['in_channels']})"
        )
    return found


def check_features_used(model: nn.Module, module: ShapeDataModule) -> None:
    """Raise if the layer of the features is zero and frozen, so that they would have no effect.

    Raises:
        ValueError: If it is.
    """
    if not isinstance(module, SceneDataModule) or module.num_features == 0:
        return
    stems = [layer for name, layer in model.named_modules() if name.endswith("feature_stem")]
    weights = [layer.weight for layer in stems if isinstance(layer, nn.Linear)]
    if any(not weight.requires_grad and not bool(weight.any()) for weight in weights):
        raise ValueError(
            "Expected 'features' to be empty for a backbone whose layer of features is zero and "
            f"frozen (got {list(module.settings.features)}): choose --method full_fine_tuning, or "
            "a --backbone_class without such a layer"
        )


__all__ = ["check_features_used", "scene_backbone_args", "scene_data_args"]
