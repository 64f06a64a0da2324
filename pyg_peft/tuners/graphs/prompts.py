"""Add prompts to a layer's graph as virtual nodes, and remove their rows from its output."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.nn import PointPriorPrompt, PromptTokens
from pyg_peft.tuners.engine.layers import MEASURE
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs
from pyg_peft.tuners.engine.turns import PerThread
from pyg_peft.tuners.graphs.clouds import CloudIds, cloud_of_each
from pyg_peft.tuners.graphs.geometry import CallReader
from pyg_peft.tuners.graphs.sources import GeometrySource


def takes_prompts(layer: nn.Module, reader: CallReader) -> bool:
    """Whether a layer can take prompts.

    It must take features first and edges by name, and require no other per-point or per-edge
    argument except positions, such as normals, cloud ids or edge attributes.
    """
    return (
        bool(reader.features and reader.edge_index)
        and reader.needs_only(reader.features, reader.pos, reader.edge_index)
        and not getattr(layer, "cached", False)  # it would keep the prompts' edges
    )


class GraphPrompts(Component):
    r"""Appends prompts to the points of a layer with edges, connected to all points of a cloud.

    ::

        x, pos      [points | prompts]                    output [points | prompts] ─▶ [points]
        edge_index  [edges | prompt ─▶ every point of its cloud]

    Prompts send but receive nothing, so clouds stay separate. Without a memory bank all clouds have
    the same prompts: one copy serves the whole batch, and cloud ids are not needed. With a bank,
    each cloud has its own prompts, which depend on the bank's answer. If the bank's width differs
    from the layer's, a trained linear map ``W_out W_in`` of low rank converts the answer.

    Args:
        prompt: Features of the prompts, of the width of the layer's input.
        path: Path of the layer, for messages.
        reader: Reader of the layer's calls.
        source: Source with the geometry of an enclosing call, if the layer's own call lacks some.
        clouds: Cloud ids and the bank's answer; ``None`` without a bank.
        bank_channels: Width of the bank's rows.
    """

    def __init__(
        self,
        prompt: PointPriorPrompt | PromptTokens,
        path: str,
        reader: CallReader,
        source: GeometrySource | None = None,
        clouds: CloudIds | None = None,
        bank_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.prompt = prompt
        self.path = path
        has_pos = bool(reader.pos)
        self.prompt_pos = nn.Parameter(torch.empty(prompt.num_prompts, 3)) if has_pos else None
        self.map: nn.Module = nn.Identity()
        if isinstance(prompt, PointPriorPrompt) and bank_channels not in (None, prompt.channels):
            rank = prompt.bottleneck.bottleneck_channels
            self.map = nn.Sequential(
                nn.Linear(bank_channels, rank, bias=False),
                nn.Linear(rank, prompt.channels, bias=False),
            )
        self._notes = PerThread(list)
        # In a tuple, so that modules attached elsewhere are not registered as children.
        self._links = (reader, source, clouds)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the prompts; positions are uniform in a cube around the origin, as on tokens."""
        self.prompt.reset_parameters()
        for part in self.map.children():
            part.reset_parameters()  # pyright: ignore[reportCallIssue]
        if self.prompt_pos is not None:
            nn.init.uniform_(self.prompt_pos, -0.5, 0.5)

    @property
    def held(self) -> list[tuple[Args, Kwargs]]:
        """Original calls of this thread, from which the geometry is read after the layer."""
        return self._notes.here()

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        reader, _, clouds = self._links
        call = dict(zip(reader.parameters, args, strict=False)) | kwargs
        x, pos = call.get(reader.features), call.get(reader.pos)
        source: Any = x[0] if isinstance(x, (tuple, list)) else x
        self._check(call, source)
        num_targets, is_bipartite = _targets(x, pos)
        if is_bipartite:
            _check_bipartite(module, self.path, source.size(0), num_targets)
        prompts, cloud = self._prompts(args, kwargs, num_targets)
        rows = prompts.to(source.dtype).flatten(0, 1)  # [B * P, C]
        changes: dict[str, Any] = {
            reader.features: _append(x, rows),
            reader.edge_index: self._join(call, source.size(0), num_targets, cloud),
        }
        if pos is not None:
            assert self.prompt_pos is not None
            places = self.prompt_pos.repeat(prompts.size(0), 1)
            pos = (pos, pos) if is_bipartite and isinstance(pos, Tensor) else pos
            changes[reader.pos] = pos = _append(pos, places)
            if clouds is not None and cloud is not None:
                of_prompts = torch.arange(prompts.size(0), device=cloud.device)
                of_prompts = of_prompts.repeat_interleave(self.prompt.num_prompts)
                # Layers inside this one see the prompts as points, unless edges are bipartite:
                # then the prompts are sources only.
                ids = cloud if is_bipartite else torch.cat([cloud, of_prompts])
                clouds.note(pos[1] if is_bipartite else pos, ids)
        self.held.append((args, kwargs))
        names = reader.parameters
        return (
            tuple(changes.get(n, a) for n, a in zip(names, args, strict=False)),
            {n: changes.get(n, value) for n, value in kwargs.items()},
        )

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        reader, (own_args, own_kwargs) = self._links[0], self.held[-1]
        joined = dict(zip(reader.parameters, args, strict=False)) | kwargs
        call = dict(zip(reader.parameters, own_args, strict=False)) | own_kwargs
        num_targets, is_bipartite = _targets(call[reader.features], call.get(reader.pos))
        num_rows = num_targets if is_bipartite else joined[reader.features].size(0)
        if not isinstance(output, Tensor) or output.dim() != 2 or output.size(0) != num_rows:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"Expected {self.path!r} to return features of {num_rows} rows, so that those of "
                f"the prompts can be known (got {got}): choose another target or num_prompts=0"
            )
        return output[:num_targets]

    def _prompts(
        self, args: Args, kwargs: Kwargs, num_targets: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return prompts ``[B, P, C]`` and the targets' clouds; without a bank ``B`` is 1."""
        reader, source, clouds = self._links
        if isinstance(self.prompt, PromptTokens) or clouds is None:
            return self.prompt(1), None
        prior = clouds.prior
        if prior is None:
            raise RuntimeError(
                "This adapter was made with a memory bank, and its layer got no answer of it: call "
                "the PeftModel, which queries the bank, not the model inside, and checkpoint that "
                "model as a whole, not the layer"
            )
        ids = None
        if prior.size(0) != 1:
            found = reader(args, kwargs)
            ids = clouds.find(found)
            if ids is None and source is not None and source.held:
                ids = clouds.find(found.completed_by(source.held[-1]))
        cloud = cloud_of_each(ids, num_targets, prior.size(0), self.path)
        return self.prompt(prior.size(0), self.map(prior)), cloud

    def _join(self, call: Kwargs, num_sources: int, num_targets: int, cloud: Tensor | None) -> Any:
        """Return the layer's edges and those from the prompts, sorted by receiver."""
        reader = self._links[0]
        edges = call[reader.edge_index]
        receiver = torch.arange(num_targets, device=edges.device)
        if cloud is not None:
            receiver = receiver[cloud >= 0]
            cloud = cloud[receiver]
        number = torch.arange(self.prompt.num_prompts, device=edges.device)
        first = receiver.new_zeros(receiver.size(0)) if cloud is None else cloud * number.size(0)
        sender = num_sources + first[:, None] + number  # [T, P]
        added = torch.stack([sender, receiver[:, None].expand_as(sender)]).flatten(1)
        if reader.flipped:
            added = added.flip(0)
        joined = torch.cat([edges, added.to(edges.dtype)], dim=1)
        return joined[:, joined[0 if reader.flipped else 1].argsort(stable=True)]

    def _check(self, call: Kwargs, source: Any) -> None:
        reader, path = self._links[0], self.path
        edges = call.get(reader.edge_index)
        if not isinstance(edges, Tensor) or edges.layout != torch.strided:
            got = "a sparse tensor" if isinstance(edges, Tensor) else type(edges).__name__
            raise ValueError(
                f"Expected {path!r} to be called with {reader.edge_index!r} of shape [2, E], "
                f"so that prompts can be joined (got {got}): choose another target or "
                "num_prompts=0"
            )
        channels = self.prompt.channels
        if not isinstance(source, Tensor) or source.dim() != 2 or source.size(1) != channels:
            got = list(source.shape) if isinstance(source, Tensor) else type(source).__name__
            raise ValueError(
                f"Expected {path!r} to be called with features [N, {channels}] (got {got}): "
                f"{MEASURE}"
            )
        used = {reader.features, reader.pos, reader.edge_index}
        others = [n for n, v in call.items() if n not in used and isinstance(v, (Tensor, Sequence))]
        others = [name for name in others if not isinstance(call[name], str)]
        if others:
            raise ValueError(
                f"Expected {path!r} to be called with features, positions and edges alone, which "
                f"prompts have (got {', '.join(others)} besides): choose another target or "
                "num_prompts=0"
            )


def _targets(x: Any, pos: Any) -> tuple[int, bool]:
    """Return the number of receiving points, and whether they differ from the sending ones."""
    if isinstance(pos, (tuple, list)):
        return pos[1].size(0), True  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(x, (tuple, list)):
        return x.size(0), False
    target = x[1] if x[1] is not None else pos  # pyright: ignore[reportUnknownVariableType]
    return (x[0] if target is None else target).size(0), True  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _append(value: Any, rows: Tensor) -> Any:
    """Append rows to ``value``; for a pair, to the sources."""
    if isinstance(value, Tensor):
        return torch.cat([value, rows.to(value.dtype)])
    source, *rest = value
    return torch.cat([source, rows.to(source.dtype)]), *rest


def _check_bipartite(module: nn.Module, path: str, num_sources: int, num_targets: int) -> None:
    """Raise if prompts do not fit a bipartite layer.

    They do not fit if the sources are not the first of a pair. Nor if self-loops, which a layer
    adds up to the smaller number of points, would reach the prompts.
    """
    if getattr(module, "flow", "source_to_target") != "source_to_target":
        raise ValueError(
            f"Expected 'flow' of {path!r} to be 'source_to_target' where edges are bipartite "
            f"(got {module.flow!r}): choose another target or num_prompts=0"
        )
    if getattr(module, "add_self_loops", False) and num_sources < num_targets:
        raise ValueError(
            f"Expected {path!r}, which adds self-loops, to have no fewer sources than targets "
            f"(got {num_sources} and {num_targets}): choose another target or num_prompts=0"
        )


__all__ = ["GraphPrompts", "takes_prompts"]
