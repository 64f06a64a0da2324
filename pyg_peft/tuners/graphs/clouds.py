"""Find the cloud ids of a layer's points, and store the memory bank's answer for each cloud.

A layer with edges rarely receives cloud ids. But its positions come from a call with ``pos`` and
``batch``, or from an output ``(x, pos, batch)``. Both are recorded during a forward. A layer looks
up its positions by tensor identity. If edges lead from points with known ids to others, such as
from points to centers, the ids of these follow::

    level(x, pos, batch) ──before──▶ recorded: ids of pos
        └── conv(x, (pos, center), edge_index) ──▶ recorded: ids of center, along the edges
            block(x, center, edge_index)       ──▶ find(center)
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pyg_peft.tuners.engine.slot import Args, Component, Kwargs
from pyg_peft.tuners.engine.turns import PerThread
from pyg_peft.tuners.graphs.geometry import CallReader, Found, read_output


class CloudIds(Component):
    """Stores the bank's answer and the cloud ids of positions during one forward of the base."""

    def __init__(self) -> None:
        super().__init__()
        self._forwards = PerThread(_Forward)

    @property
    def prior(self) -> Tensor | None:
        """Answer of the memory bank in this thread's forward."""
        return self._forwards.here().prior

    @property
    def recorded(self) -> list[tuple[Tensor, Tensor]]:
        """Positions and their cloud ids in this thread's forward."""
        return self._forwards.here().recorded

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        forward = self._forwards.here()
        forward.recorded = []
        # Passed by name, but not a parameter of the base.
        forward.prior = kwargs.get("prior")
        return args, {name: value for name, value in kwargs.items() if name != "prior"}

    def release(self, module: nn.Module) -> None:
        forward = self._forwards.here()
        forward.recorded = []
        forward.prior = None

    def record(self, found: Found) -> None:
        """Record the cloud ids in the geometry of a call or an output."""
        if found.pos is None:
            return
        ids = self.find(found)
        if ids is not None:
            self.note(found.pos[1], ids)

    def note(self, pos: Tensor, ids: Tensor) -> None:
        """Record the cloud ids of this tensor of positions, unless they are known."""
        if self._known(pos) is None:
            self.recorded.append((pos, ids))

    def find(self, found: Found) -> Tensor | None:
        """Return the cloud id of each target of a call, or ``None`` if the ids are unknown.

        The id is ``-1`` for a target that no edge leads to.
        """
        if found.pos is None:
            return None
        source, target = found.pos
        # A call may have more cloud ids than points: those of another level.
        if found.has_ids:
            return found.batch
        ids = self._known(target)
        edges = found.edge_index
        if not isinstance(edges, Tensor) or edges.layout != torch.strided:
            edges = None  # ids are not derived from a sparse adjacency
        if ids is None and source is not target and edges is not None:
            of_source = self._known(source)
            if of_source is not None:
                sender, receiver = edges.flip(0) if found.flipped else edges
                # The maximum over no edges is 0, which is also an id, so ids are shifted by 1.
                ids = scatter(of_source[sender] + 1, receiver, 0, target.size(0), "max") - 1
        return ids

    def _known(self, pos: Tensor) -> Tensor | None:
        return next((ids for known, ids in self.recorded if known is pos), None)


class _Forward:
    """State of :class:`CloudIds` during one forward."""

    def __init__(self) -> None:
        self.prior: Tensor | None = None
        self.recorded: list[tuple[Tensor, Tensor]] = []


class CloudRecorder(Component):
    """Records cloud ids from a module's calls and outputs, for the layers with prompts.

    Args:
        reader: Reader of the module's calls.
        clouds: Store of the cloud ids.
    """

    def __init__(self, reader: CallReader, clouds: CloudIds) -> None:
        super().__init__()
        # In a tuple, so that a module attached elsewhere is not registered as a child.
        self._links = (reader, clouds)

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        reader, clouds = self._links
        clouds.record(reader(args, kwargs))
        return args, kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> object:
        self._links[1].record(read_output(output))
        return output


def cloud_of_each(ids: Tensor | None, num_points: int, num_clouds: int, path: str) -> Tensor | None:
    """Return the cloud id of each of a layer's points; ``None`` if there is one cloud.

    Raises:
        ValueError: If there are several clouds and the ids are unknown, or an id is too large.
    """
    if num_clouds == 1:
        return None
    if ids is None or ids.size(0) != num_points:
        raise ValueError(
            f"Expected the clouds of the {num_points} points of {path!r} to be known from a call "
            "or an output with 'pos' and 'batch', of this very tensor of positions (got none): the "
            "bank answers for each cloud; choose other targets or num_prompts=0"
        )
    if not torch.compiler.is_compiling() and ids.numel() and int(ids.max()) >= num_clouds:
        raise ValueError(
            f"Expected 'query' to have a row for each of {int(ids.max()) + 1} clouds "
            f"(got {num_clouds})"
        )
    return ids


__all__ = ["CloudIds", "CloudRecorder", "cloud_of_each"]
