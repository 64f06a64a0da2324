"""The geometry-aware adapter at a layer of any model."""

from typing import Any

import torch
from torch import Tensor, nn

from ..geometry import (
    Structure,
    bipartite_structure,
    build_structure,
    edge_structure,
    interpolate,
)
from ..nn import GeometryAwareAdapter
from .graph_geometry import CallReader, Found, GeometrySource, SharedStructures, read_output
from .graph_prompts import GraphPrompts
from .slot import Args, Component, Kwargs, features_of, with_features


class GraphAdapter(Component):
    """Passes a layer's output, a row per point, through a geometry-aware adapter.

    Where the layer has edges, the adapter aggregates over them, at the targets if they are
    bipartite; otherwise over the nearest neighbours in a structure that a level shares. A module
    that returns ``(x, pos, batch)`` has its ``x`` adapted on the ``pos`` and ``batch`` beside it.

    Args:
        adapter: Of the width of the output.
        path: Of the layer, for messages.
        reader: Of the layer's calls.
        source: Notes the geometry of an ancestor's call, if the layer's own does not tell all.
        shared: Structures of one forward.
        prompts: What joins prompts to this layer; the geometry is then that of the call without.
    """

    def __init__(
        self,
        adapter: GeometryAwareAdapter,
        path: str,
        reader: CallReader,
        source: GeometrySource | None,
        shared: SharedStructures,
        prompts: GraphPrompts | None = None,
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.path = path
        # In a tuple: both are modules that sit elsewhere and are no children of this one.
        self._links = (reader, source, shared, prompts)

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        prompts = self._links[3]
        if prompts is not None:
            args, kwargs = prompts.held.pop()
        x = features_of(output)
        self._check_features(x)
        return with_features(output, self._adapt(x, self._geometry(args, kwargs, output)))

    def _geometry(self, args: Args, kwargs: Kwargs, output: Any) -> Found:
        found = read_output(output)
        if found.pos is not None:
            return found
        reader, source, _, _ = self._links
        found = reader(args, kwargs)
        if source is not None:
            if not source.held:
                raise RuntimeError(
                    f"Expected {self.path!r} to run within a call of the module that tells its "
                    "geometry (got a call of its own, as when a checkpoint is recomputed): call or "
                    "checkpoint that module as a whole, or choose targets that receive 'pos'"
                )
            found = found.completed_by(source.held[-1])
        return found

    def _adapt(self, x: Tensor, found: Found) -> Tensor:
        pos, shared = found.pos, self._links[2]
        if pos is None or pos[1].size(0) != x.size(0):
            raise ValueError(
                f"Expected the geometry of {self.path!r} to have a position for each of its "
                f"{x.size(0)} rows (got {'none' if pos is None else pos[1].size(0)}): choose "
                "another target, or name the source with 'pos_from'"
            )
        if found.edge_index is None:
            structure = shared.get((*pos, found.batch), lambda: self._search(found, x.size(0)))
            return self.adapter(x, structure=structure)
        edges = found.edge_index
        # A compiled graph cannot count members: no point may then have more than k.
        most = self.adapter.k if torch.compiler.is_compiling() else None
        if pos[0] is pos[1]:
            structure = shared.get(
                (*pos, edges), lambda: edge_structure(pos[1], edges, max_degree=most)
            )
            return self.adapter(x, structure=structure)
        structure, back, weight, ptr = shared.get(
            (*pos, edges), lambda: bipartite_structure(*pos, edges, max_degree=most)
        )
        lifted = interpolate(x, back, weight, pos[0].size(0), ptr=ptr)
        return self.adapter(torch.cat([x, lifted]), structure=structure)[: x.size(0)]

    def _search(self, found: Found, num_rows: int) -> Structure:
        if not found.knows_batch:
            raise ValueError(
                f"Expected {self.path!r} or a module around it to receive cloud ids or edges (got "
                "positions only): name them with 'batch_name' or 'edge_index_name'"
            )
        assert found.pos is not None
        adapter = self.adapter
        return build_structure(
            found.pos[1],
            found.batch,
            k=adapter.k,
            ratio=adapter.ratio,
            num_interp=adapter.num_interp,
        )

    def _check_features(self, x: Any) -> None:
        if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"Expected {self.path!r} to return features [N, C], or (x, pos, batch) (got {got})"
            )
        if x.size(1) != self.adapter.channels:
            raise ValueError(
                f"Expected {self.path!r} to return {self.adapter.channels} channels, as its last "
                f"linear layer (got {x.size(1)}): hand get_peft_model an 'example' of the model's "
                "input, and widths are measured"
            )

    def extra_repr(self) -> str:
        return f"path={self.path!r}"


__all__ = ["GraphAdapter"]
