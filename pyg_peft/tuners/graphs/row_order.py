"""Check that a layer's rows are in the order of the positions taken from an enclosing call.

A layer that receives no positions is adapted with those of an enclosing call, row by row. If the
model sorts or samples its points in between, the number of rows may match although the points
differ. One call cannot show this. Two calls can, the second with the points in another order: each
pair of a feature and its position must be in both.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.calls import by_name
from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.dry_run import call_on_example, undisturbed
from pyg_peft.tuners.graphs.adapter import GraphAdapter
from pyg_peft.tuners.graphs.geometry import CallReader, Names, is_data

# Number of rows that are looked up among those of the second call.
_ROWS = 256
_Pairs = list[tuple[Tensor, Tensor]]


def check_row_order(model: nn.Module, base: nn.Module, sites: Iterable[Site], example: Any) -> None:
    """Raise if a layer's rows are in another order than the positions of the enclosing call.

    The check passes if it cannot decide. This is so if the second call gives other features, as
    after sampling from a random point, or if many points have the same features.

    Args:
        model: The model with adapters. It is called twice, in eval mode.
        base: The model that ``example`` is for.
        sites: Sites of the adapter.
        example: An input. Nothing is checked without one.

    Raises:
        PlacementError: If the orders differ. The message names the layer.
    """
    adapters = [
        c for s in sites if isinstance(c := s.component, GraphAdapter) and c.uses_outer_positions
    ]
    if example is None or not adapters:
        return
    other = _reordered(base, example, adapters[0].names)
    if other is None:
        return
    first, second = (_pairs(model, adapters, call) for call in (example, other))
    for adapter, before, after in zip(adapters, first, second, strict=True):
        if any(_contradict(*pairs) for pairs in zip(before, after, strict=False)):
            raise PlacementError(
                f"Expected the rows of {adapter.path!r} to be in the order of the positions that a "
                "call around it receives (got the rows of other points, as after a sorting or a "
                "sampling in between): choose a target that receives the positions of its rows, "
                "or name the module that returns them as (x, pos, batch) with 'pos_from'"
            )


def _pairs(model: nn.Module, adapters: list[GraphAdapter], example: Any) -> list[_Pairs]:
    """Return the features and positions that each adapter is called with, call by call."""
    seen: list[_Pairs] = [[] for _ in adapters]
    for adapter, pairs in zip(adapters, seen, strict=True):
        adapter.watch(pairs)
    try:
        with undisturbed(model):
            call_on_example(model, example)
    finally:
        for adapter in adapters:
            adapter.watch(None)
    return seen


def _contradict(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> bool:
    """Whether most rows with the same distinctive features have other positions."""
    (x, pos), (other_x, other_pos) = before, after
    if x.shape != other_x.shape or len(x) < 3:
        return False
    rows = torch.linspace(0, len(x) - 1, min(_ROWS, len(x)), device=x.device).round().long()
    x, pos = x[rows].double(), pos[rows].double()
    nearest, index = torch.cdist(x, other_x.double()).topk(2, largest=False)
    is_same = nearest[:, 0] < 0.1 * nearest[:, 1]
    if 2 * int(is_same.sum()) < len(rows):
        return False
    away = (other_pos.double()[index[:, 0]] - pos).abs().amax(dim=1)
    moved = away > 1e-3 * (pos.amax(0) - pos.amin(0)).max()
    return 2 * int((moved & is_same).sum()) > int(is_same.sum())


def _reordered(base: nn.Module, example: Any, names: Names) -> Any:
    """Return the input with the points of each cloud in another order.

    The result is ``None`` if it cannot be determined which rows are points.
    """
    args, kwargs = (), {}
    if isinstance(example, Mapping):
        kwargs = dict(example)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    else:
        args = example if type(example) is tuple else (example,)  # pyright: ignore[reportUnknownVariableType]
    found = CallReader(base, names)(args, kwargs)
    edges = found.edge_index
    if found.pos is None or found.pos[0] is not found.pos[1]:
        return None
    if edges is not None and not (isinstance(edges, Tensor) and edges.layout == torch.strided):
        return None
    num, device = found.pos[0].size(0), found.pos[0].device
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(num, generator=generator).to(device)
    if found.has_ids and found.batch is not None:
        order = order[found.batch[order].argsort(stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(num, device=device)

    def moved(value: Any) -> Any:
        if value is edges and edges is not None:
            return place[edges]
        if isinstance(value, Tensor):
            is_row = value.layout == torch.strided and value.dim() > 0 and value.size(0) == num
            return value[order] if is_row else value
        if not is_data(value) or not hasattr(value, "keys"):
            return value
        changed = copy.copy(value)
        for name in list(value.keys()):
            changed[name] = moved(value[name])
        return changed

    return {name: moved(value) for name, value in by_name(base, args, kwargs).items()}


__all__ = ["check_row_order"]
