"""Apply the geometry-aware adapter to a layer of any model."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_peft.geometry import (
    Structure,
    bipartite_structure,
    build_structure,
    edge_structure,
)
from pyg_peft.geometry.interpolation import weighted_sums
from pyg_peft.nn import GeometryAwareAdapter
from pyg_peft.tuners.engine.layers import MEASURE
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs, features_of, with_features
from pyg_peft.tuners.engine.turns import PerThread
from pyg_peft.tuners.graphs.geometry import CallReader, Found, Names, read_output
from pyg_peft.tuners.graphs.prompts import GraphPrompts
from pyg_peft.tuners.graphs.sources import GeometrySource, SharedStructures

# The memory of attention among a point's members is quadratic in their number: 0.4 GB for 4096.
MOST_MEMBERS = 4096


class GraphAdapter(Component):
    """Passes a layer's output, one row per point, through a geometry-aware adapter.

    If the layer has edges, the adapter aggregates over them, at the targets if they are bipartite.
    Otherwise it aggregates over nearest neighbors, in a structure that the layers of a level share.
    If a module returns ``(x, pos, batch)``, its ``x`` is adapted with this ``pos`` and ``batch``.

    Args:
        adapter: The adapter, of the width of the output.
        path: Path of the layer, for messages.
        reader: Reader of the layer's calls.
        source: Source with the geometry of an enclosing call, if the layer's own call lacks some.
        shared: Structures of one forward.
        prompts: Component that adds prompts to this layer. The geometry is then that of the
            original call, without prompts.
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
        # In a tuple, so that modules attached elsewhere are not registered as children.
        self._links = (reader, source, shared, prompts)
        self._watched = PerThread(_Watched)

    @property
    def uses_outer_positions(self) -> bool:
        """Whether positions may come from another call than the layer's own."""
        return self._links[1] is not None

    @property
    def names(self) -> Names:
        """Names of the geometry in the model's calls."""
        return self._links[0].names

    def watch(self, pairs: list[tuple[Tensor, Tensor]] | None) -> None:
        """Record adapted features and positions of this thread in ``pairs``; ``None`` stops it."""
        self._watched.here().pairs = pairs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        prompts = self._links[3]
        if prompts is not None:
            args, kwargs = prompts.held.pop()
        x = features_of(output)
        self._check_features(x)
        return with_features(output, self._adapt(x, self._geometry(args, kwargs, output)))

    def _geometry(self, args: Args, kwargs: Kwargs, output: Any) -> Found:
        reader, source, _, _ = self._links
        found = read_output(output)
        if found.is_complete:
            return found
        call = reader(args, kwargs)
        found = call if found.pos is None else found.completed_by(call)
        return found if source is None else source.complete(found, self.path)

    def _adapt(self, x: Tensor, found: Found) -> Tensor:
        pos, shared = found.pos, self._links[2]
        if pos is None or pos[1].size(0) != x.size(0):
            raise ValueError(
                f"Expected the geometry of {self.path!r} to have a position for each of its "
                f"{x.size(0)} rows (got {'none' if pos is None else pos[1].size(0)}): choose "
                "another target, or name the source with 'pos_from'"
            )
        if (pairs := self._watched.here().pairs) is not None:
            pairs.append((x, pos[1]))
        if found.edge_index is None:
            ids = self._ids(found, x.size(0))
            structure = shared.get((*pos, ids), lambda: self._search(pos[1], ids))
            return self.adapter(x, structure=structure)
        edges = self._edges(found)
        # A compiled graph cannot count members, so no point may have more than k.
        most = self.adapter.k if torch.compiler.is_compiling() else None
        if pos[0] is pos[1]:
            structure = shared.get(
                (*pos, edges), lambda: edge_structure(pos[1], edges, max_degree=most)
            )
            self._check_degree(structure)
            return self.adapter(x, structure=structure)
        structure, back, weight, ptr = shared.get(
            (*pos, edges), lambda: bipartite_structure(*pos, edges, max_degree=most)
        )
        self._check_degree(structure)
        lifted = weighted_sums(x, back, weight, pos[0].size(0), ptr)
        return self.adapter(torch.cat([x, lifted]), structure=structure)[: x.size(0)]

    def _edges(self, found: Found) -> Tensor:
        """Return edges ``[2, E]``, row 0 the source; the same tensor for all layers of a level."""
        edges, shared = found.edge_index, self._links[2]
        if is_torch_sparse_tensor(edges):
            # An adjacency has a row for each target. PyG's ``to_edge_index`` would change it.
            return shared.get((edges,), lambda: edges.to_sparse_coo()._indices().flip(0))
        if not isinstance(edges, Tensor):
            raise ValueError(
                f"Expected the edges of {self.path!r} to be a tensor [2, E] or a sparse adjacency "
                f"of torch (got {type(edges).__name__})"
            )
        return shared.get((edges,), lambda: edges.flip(0)) if found.flipped else edges

    def _ids(self, found: Found, num_rows: int) -> Tensor | None:
        """Return the cloud id of each row; ``None`` if there is one cloud."""
        batch = found.batch
        if found.has_ids or (batch is None and found.knows_batch):
            return batch
        if batch is not None and not torch.compiler.is_compiling() and not batch.diff().any():
            return None  # one cloud, of which the layer sees other points
        raise ValueError(
            f"Expected {self.path!r} or a module around it to receive edges, or cloud ids of its "
            f"{num_rows} points (got {'none' if batch is None else f'ids of {batch.size(0)}'}): "
            "name them with 'batch_name' or 'edge_index_name', or the module with 'pos_from'"
        )

    def _search(self, pos: Tensor, batch: Tensor | None) -> Structure:
        adapter = self.adapter
        return build_structure(
            pos, batch, k=adapter.k, ratio=adapter.ratio, num_interp=adapter.num_interp
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
                f"linear layer (got {x.size(1)}): {MEASURE}"
            )

    def _check_degree(self, structure: Structure) -> None:
        if (structure.max_degree or 0) > MOST_MEMBERS:
            raise ValueError(
                f"Expected no point of {self.path!r} to have more than {MOST_MEMBERS} edges "
                f"(got {structure.max_degree}), among which the adapter attends: bound them where "
                "the graph is made, such as by 'max_num_neighbors', or choose another target"
            )

    def extra_repr(self) -> str:
        return f"path={self.path!r}"


class _Watched:
    """The list in which a dry run records adapted features and positions."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] | None = None


__all__ = ["GraphAdapter"]
