"""Find the linear layers of a model and the widths of its layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import Target, match_modules
from pyg_peft.tuners.engine.slot import SLOT

MEASURE = "hand get_peft_model an 'example' of the model's input, and widths are measured"


def linear_layers(base: nn.Module) -> dict[str, nn.Module]:
    """Return every linear layer of PyTorch and PyG by path."""
    # Imported here, so that building a configuration does not import all of PyG's layers.
    from torch_geometric.nn import Linear as PyGLinear

    return {
        path: module
        for path, module in base.named_modules()
        if isinstance(module, (nn.Linear, PyGLinear)) and SLOT not in path.split(".")
    }


def adaptable_layers(base: nn.Module) -> dict[str, nn.Module]:
    """Return every layer that LoRA supports by path: linear ones, and PyG's ``HeteroLinear``."""
    from torch_geometric.nn import HeteroLinear

    linear = linear_layers(base)
    return {
        path: module
        for path, module in base.named_modules()
        if path in linear or (isinstance(module, HeteroLinear) and SLOT not in path.split("."))
    }


def is_never_called(base: nn.Module, path: str) -> bool:
    """Whether a layer is ``out_proj`` of ``nn.MultiheadAttention``, which reads its weights."""
    parent, _, child = path.rpartition(".")
    return child == "out_proj" and isinstance(base.get_submodule(parent), nn.MultiheadAttention)


def below(base: nn.Module, targets: Sequence[Target]) -> set[str]:
    """Return the paths of the modules that ``exclude_modules`` matches, and of all inside them."""
    excluded = match_modules(base, targets, argument="exclude_modules")
    roots = tuple(f"{path}." if path else "" for path in excluded)
    return {path for path, _ in base.named_modules() if f"{path}.".startswith(roots)}


def output_channels(module: nn.Module, path: str, measured: Mapping[str, int] | None = None) -> int:
    """Return a module's output width: measured, or from its attributes or last linear layer.

    Args:
        module: The module.
        path: Path of the module.
        measured: Widths by path, from a dry run.

    Raises:
        PlacementError: If the width cannot be determined.
    """
    if measured is not None and path in measured:
        return measured[path]
    for name in ("out_features", "out_channels"):
        width = getattr(module, name, None)
        if isinstance(width, int) and width > 0:
            return width
    if inner := list(linear_layers(module).items()):
        return output_channels(inner[-1][1], path)
    raise PlacementError(
        f"Expected {path!r} to have an output of known width (got {type(module).__name__}, "
        f"which has no out_channels and holds no linear layer): {MEASURE}"
    )


def check_bottleneck(width: int, channels: int, path: str) -> None:
    """Raise unless a bottleneck is at most as wide as the layer's output.

    Raises:
        PlacementError: If the bottleneck is wider.
    """
    if width > channels:
        raise PlacementError(
            f"Expected 'bottleneck_channels' to be at most {channels}, as {path!r} returns "
            f"(got {width}): if that is not its width, {MEASURE}"
        )


def input_channels(module: nn.Module, measured: int | None = None) -> int:
    """Return the input width of a layer with edges, or zero if it has none or it is unknown.

    The width is measured, or read from the layer's attributes or first linear layer. If sources
    and targets have different widths, it is that of the sources.

    Args:
        module: The layer.
        measured: Measured width, from a dry run.
    """
    if measured is not None:
        return measured
    from torch_geometric.nn import EdgeConv, PointNetConv

    width = getattr(module, "in_channels", None)
    width = width[0] if isinstance(width, (tuple, list)) else width  # pyright: ignore[reportUnknownVariableType]
    if isinstance(width, int) and width > 0:
        return width
    inner = list(linear_layers(module).values())
    if not inner:
        return 0
    first: Any = inner[0]
    width = int(getattr(first, "in_features", 0) or first.in_channels)
    if isinstance(module, EdgeConv):
        return width // 2  # features and differences are concatenated
    return width - 3 if isinstance(module, PointNetConv) else width  # with a relative position


__all__ = [
    "MEASURE",
    "adaptable_layers",
    "below",
    "check_bottleneck",
    "input_channels",
    "is_never_called",
    "linear_layers",
    "output_channels",
]
