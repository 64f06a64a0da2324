"""Extraction of one feature row, label and id per training sample with a frozen backbone."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyg_peft.nn.batch_call import call_on_batch
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.nn.eval_mode import eval_mode


@runtime_checkable
class QueryBackbone(Protocol):
    """Interface that a backbone needs to fill a memory bank; all token backbones provide it."""

    def make_patches(
        self, pos: Tensor, batch: Tensor | None, batch_size: int | None, x: Tensor | None
    ) -> Any:
        """Divide clouds into patches."""
        ...

    def forward_query(self, patches: Any) -> Tensor:
        """Return one feature row per cloud."""
        ...


@runtime_checkable
class Adapted(Protocol):
    """A model with adapters on a base model, such as a ``PeftModel``."""

    base: nn.Module

    def disable_adapter(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the base model runs without adapters."""
        ...


@torch.no_grad()
def collect_features(
    backbone: nn.Module,
    loader: Iterable[Any],
    source: CloudRows | None = None,
    call: Callable[[Any, Any], Any] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return features, labels (if clouds have a class) and ids, in ascending order of the ids.

    The backbone runs in eval mode, on its own device, and the mode of every module is restored.

    Args:
        backbone: A token backbone, or any model if ``source`` is given.
        loader: Iterable of PyG batches.
        source: Module whose output provides the features.
        call: Function that runs the model on a batch if ``source`` is given. By default, the model
            is called by the names of its parameters.
    """
    if call is not None and source is None:
        raise ValueError("Expected 'module' to be given together with 'call' (got None)")
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    features: list[Tensor] = []
    labels: list[Tensor | None] = []
    ids: list[Tensor] = []
    with eval_mode(backbone):
        for data in loader:
            data = data.to(device)
            y, sample_id = _read_targets(data)
            features.append(_features(backbone, data, source, call or call_on_batch))
            labels.append(y)
            ids.append(sample_id)
    if not features:
        raise ValueError("Expected 'loader' to yield at least one batch (got none)")
    sample_id, order = torch.cat(ids).sort()
    twice = sample_id[1:][sample_id[1:] == sample_id[:-1]]
    if twice.numel() > 0:
        raise ValueError(
            f"Expected 'loader' to yield each sample_id once (got {int(twice[0])} more than once)"
        )
    known = [y for y in labels if y is not None]
    if known and len(known) < len(labels):
        raise ValueError("Expected 'loader' to yield y in every batch or in none (got some)")
    return torch.cat(features)[order], torch.cat(known)[order] if known else None, sample_id


def _features(
    backbone: nn.Module, data: Any, source: CloudRows | None, call: Callable[[Any, Any], Any]
) -> Tensor:
    """Return one row per cloud."""
    if source is not None:
        run = partial(call, backbone, data)
        return source.read(backbone, run, data.batch, data.num_graphs)
    if not isinstance(backbone, QueryBackbone):
        raise TypeError(
            "Expected 'backbone' to offer make_patches and forward_query, or 'module' to name "
            f"where features come from (got {type(backbone).__name__})"
        )
    patches = backbone.make_patches(data.pos, data.batch, data.num_graphs, data.x)
    return backbone.forward_query(patches)


def _read_targets(data: Any) -> tuple[Tensor | None, Tensor]:
    """Return the labels of the clouds, if there are any, and the ids of a batch."""
    sample_id = getattr(data, "sample_id", None)
    if sample_id is None:
        raise ValueError(
            "Expected 'loader' to yield batches with a 'sample_id' (got none): wrap the data set "
            "in pyg_peft.datasets.SampleIds"
        )
    one_per_cloud = (data.num_graphs,)
    if sample_id.shape != one_per_cloud:
        raise ValueError(
            f"Expected 'sample_id' to hold one entry per cloud, {list(one_per_cloud)} "
            f"(got {list(sample_id.shape)})"
        )
    y = data.y
    # A bank of clouds cannot use labels of points, nor several labels or numbers to estimate.
    is_class = y is not None and y.shape == one_per_cloud and not y.is_floating_point()
    return (y if is_class else None), sample_id


__all__ = ["Adapted", "QueryBackbone", "collect_features"]
