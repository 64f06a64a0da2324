"""Query a memory bank in a forward."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_tensor, described
from pyg_peft.geometry import Patches
from pyg_peft.nn import MemoryBank
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.tuners.engine.config import Question
from pyg_peft.tuners.graphs.geometry import CallReader, Names


def ask(base: nn.Module, call: dict[str, Any], question: Question, top_k: int) -> dict[str, Any]:
    """Query the bank; return the call with its answer as ``prior``, and reusable frozen inputs.

    Args:
        base: The model.
        call: Arguments of the model by name.
        question: The bank and the values to query it with.
        top_k: Number of rows to retrieve.
    """
    query = question.query
    if query is None:
        frozen = question.precompute(**call)
        query = frozen.pop("query")
        if not wants_gradients(call):
            call = {**call, **frozen}
    else:
        check_precision(base, query)
    prior = retrieve(
        question.bank,
        query,
        top_k,
        sample_id=question.sample_id,
        training=question.training,
    )
    # A given query may be of lower precision than the prompts, which autocast alone would accept.
    if not torch.is_autocast_enabled(prior.device.type):
        prior = prior.to(_precision(base) or prior.dtype)
    return {**call, "prior": prior}


def wants_gradients(call: Mapping[str, Any]) -> bool:
    """Whether an input requires a gradient, which frozen inputs cannot pass on."""
    patches = call.get("patches")
    values = [*call.values()]
    if isinstance(patches, Patches):
        values += [patches.points, patches.center, patches.features]
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in values
    )


def module_query(
    base: nn.Module, call: Mapping[str, Any], source: CloudRows, names: Names
) -> Tensor:
    """Compute the query of a call to any model with adapters disabled, like the bank's rows.

    Args:
        base: The model. It runs once.
        call: Arguments of the model by name.
        source: Module and pooling that the bank's rows come from.
        names: Names of the geometry in the model's calls, for the cloud ids.

    Shapes: output ``(B, C)``.
    """
    batch = CallReader(base, names)((), dict(call)).batch
    data = next((v for v in call.values() if hasattr(v, "num_graphs")), None)
    size: Any = call.get("batch_size")
    if size is None and data is not None:
        size = data.num_graphs
    if size is None:
        size = 1 if batch is None else int(batch.max()) + 1 if batch.numel() else 0
    with torch.no_grad():
        return source.read(base, partial(base, **call), batch, int(size))


def retrieve(
    bank: MemoryBank, query: Tensor, top_k: int, *, sample_id: Tensor | None, training: bool
) -> Tensor:
    """Return the bank's answer; while training, a sample does not retrieve itself.

    Raises:
        ValueError: If ids are needed for that and there are none, or the query is on another
            device.
        TypeError: If the query or the ids have another type.
    """
    check_tensor(query, "query", kind="float", device=bank.keys.device)
    # The bank gets the ids only if samples are to be left out.
    if sample_id is not None:
        if not isinstance(sample_id, Tensor):
            raise TypeError(
                f"Expected 'sample_id' to be an integer tensor [B] (got {described(sample_id)})"
            )
        check_tensor(sample_id, "sample_id", kind="int")
    leaves_out = training and bank.sample_id is not None
    if leaves_out and sample_id is None:
        raise ValueError(
            "Expected 'sample_id' while training with a memory bank, so that no sample "
            "retrieves itself (got None)"
        )
    return bank(query, top_k, sample_id=sample_id if leaves_out else None)


def check_precision(base: nn.Module, query: Any) -> None:
    """Raise unless a given query and the model are both double precision, or neither is."""
    like = _precision(base)
    if like is None or not isinstance(query, Tensor) or not query.is_floating_point():
        return
    if (query.dtype == torch.float64) != (like == torch.float64):
        raise TypeError(f"Expected 'query' to be of {like}, as the model (got {query.dtype})")


def _precision(base: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in base.parameters() if p.is_floating_point()), None)


__all__ = ["ask", "check_precision", "module_query", "retrieve", "wants_gradients"]
