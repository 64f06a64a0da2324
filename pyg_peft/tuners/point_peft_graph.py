"""Where Point-PEFT sits in any model whose layers can be placed in space."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from ..errors import PlacementError
from ..nn import GeometryAwareAdapter, NeighborAttention, PointPriorPrompt, PromptTokens
from ..trainable import match_modules
from .biases import bias_sites
from .calls import parameter_names
from .config import Site
from .graph_adapter import GraphAdapter
from .graph_clouds import CloudIds, CloudTeller
from .graph_geometry import CallReader, GeometrySource, Names, SharedStructures
from .graph_prompts import GraphPrompts, takes_prompts
from .layers import input_channels, output_channels
from .slot import SLOT, check_site

if TYPE_CHECKING:
    from .point_peft import PointPEFTConfig


def graph_sites(
    base: nn.Module,
    config: "PointPEFTConfig",
    targets: Mapping[str, nn.Module],
    *,
    has_bank: bool,
) -> list[Site]:
    """Components at layers of any model, the head aside.

    Args:
        base: The model.
        config: The method's settings.
        targets: The layers by path.
        has_bank: Whether prompts get an answer of a memory bank.

    Raises:
        PlacementError: If a target is a container, tells no width, or neither receives geometry nor
            lies within a module that does; those that do are listed. If there are to be prompts
            and no target can take them.
    """
    names = config.names
    sources: dict[str, GeometrySource] = {}
    origins: dict[str, str | None] = {}
    for path, layer in targets.items():
        check_site(layer, path)
        origin = origins[path] = _origin(base, path, names, config.pos_from)
        if origin is not None and origin not in sources:
            within = _contains(origin, path)
            reader = CallReader(base.get_submodule(origin), names) if within else None
            sources[origin] = GeometrySource(reader)
    clouds = CloudIds() if has_bank else None
    prompted = _prompted(base, config, targets) if config.num_prompts else {}
    prompts = {
        path: GraphPrompts(
            _prompt(config, channels, has_bank=has_bank),
            path,
            CallReader(targets[path], names),
            None if (origin := origins[path]) is None else sources[origin],
            clouds,
            config.bank_channels,
        )
        for path, channels in prompted.items()
    }
    noted = [source for source in sources.values() if source.reader is None]
    shared = SharedStructures((*noted, *prompts.values()))
    attention: dict[int, NeighborAttention] = {}
    sites = [Site("", "structures", shared)]
    sites += [Site(origin, "source", source) for origin, source in sources.items()]
    if clouds is not None:
        sites.append(Site("", "clouds", clouds))
        sites += [
            Site(path, "tells", CloudTeller(CallReader(module, names), clouds))
            for path, module in _carriers(base, names).items()
        ]
    for path, layer in targets.items():
        channels = output_channels(layer, path, config.channels)
        if channels not in attention:
            attention[channels] = NeighborAttention(
                channels, config.attention_channels, config.attention_heads
            )
        adapter = GeometryAwareAdapter(
            channels,
            config.bottleneck_channels,
            k=config.k,
            ratio=config.ratio,
            num_interp=config.num_interp,
            attention=attention[channels],
            propagation_scale=config.propagation_scale,
            center_scale=config.center_scale,
            scale=config.scale,
        )
        origin = origins[path]
        source = None if origin is None else sources[origin]
        reader, joined = CallReader(layer, names), prompts.get(path)
        placed = GraphAdapter(adapter, path, reader, source, shared, joined)
        sites.append(Site(path, "adapter", placed))
        # After hooks run in reverse: the rows of prompts go before the adapter.
        if joined is not None:
            sites.append(Site(path, "prompt", joined))
    if config.train_biases:
        saved = config.trained_modules(base)
        sites += bias_sites(base, inside=tuple(targets), without=saved)
    return sites


def _origin(base: nn.Module, path: str, names: Names, pos_from: str | None) -> str | None:
    """Path of the module that tells where a layer lies; ``None`` if its own call tells all."""
    if pos_from is not None:
        return _named_origin(base, path, pos_from)
    own = CallReader(base.get_submodule(path), names)
    if own.tells_pos and own.tells_neighbors:
        return None
    for ancestor in _ancestors(path):
        reader = CallReader(base.get_submodule(ancestor), names)
        if reader.tells_pos and reader.tells_neighbors:
            return ancestor
    raise PlacementError(
        f"Expected {path!r}, or a module around it, to receive {names.pos!r} and {names.batch!r} "
        f"or {names.edge_index!r} by name (got {type(base.get_submodule(path)).__name__} with "
        f"{', '.join(parameter_names(base.get_submodule(path))) or 'no named parameters'}); "
        f"say 'pos_name' if the model has another name, 'pos_from' if another module tells it; "
        f"modules that do: {_listed(_carriers(base, names))}"
    )


def _prompted(
    base: nn.Module, config: "PointPEFTConfig", targets: Mapping[str, nn.Module]
) -> dict[str, int]:
    """The first targets that can take prompts, and the width of their input, by path."""
    if not config.prompt_depth:
        return {}
    if found := _takers(targets, config):
        return dict(list(found.items())[: config.prompt_depth])
    others = _takers(dict(base.named_modules()), config)
    raise PlacementError(
        f"Expected a target that can take prompts: one called with features first, with "
        f"{config.edge_index_name!r} by name, and with nothing else that has a row per point, but "
        f"for positions (got {', '.join(targets)}); num_prompts=0 goes without; modules that can: "
        f"{_listed(others)}"
    )


def _prompt(
    config: "PointPEFTConfig", channels: int, *, has_bank: bool
) -> PointPriorPrompt | PromptTokens:
    num_prompts = config.num_prompts or 0
    if not has_bank:
        return PromptTokens(num_prompts, channels)
    # The first layers of a model may be narrower than the bottleneck.
    width = min(config.prompt_bottleneck_channels, channels)
    return PointPriorPrompt(channels, num_prompts, width)


def _takers(modules: Mapping[str, nn.Module], config: "PointPEFTConfig") -> dict[str, int]:
    """The modules that can take prompts, and the width of their input, by path."""
    measured = config.in_channels or {}
    return {
        path: channels
        for path, module in modules.items()
        if SLOT not in path.split(".")
        and takes_prompts(module, CallReader(module, config.names))
        and (channels := input_channels(module, measured.get(path))) > 0
    }


def _named_origin(base: nn.Module, path: str, pos_from: str) -> str | None:
    """The nearest module around a layer that ``pos_from`` names, or the only one beside it."""
    named = match_modules(base, [pos_from])
    if path in named:
        return None
    for ancestor in _ancestors(path):
        if ancestor in named:
            return ancestor
    if len(named) > 1:
        raise PlacementError(
            f"Expected 'pos_from' to name a module around {path!r} or one module whose output it "
            f"works on (got {', '.join(named)})"
        )
    (origin,) = named
    check_site(named[origin], origin)
    return origin


def _ancestors(path: str) -> list[str]:
    """Paths around ``path``, the nearest first, the model itself last."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)]


def _contains(outer: str, inner: str) -> bool:
    return outer == "" or f"{inner}.".startswith(f"{outer}.")


def _carriers(base: nn.Module, names: Names) -> dict[str, nn.Module]:
    """The modules whose calls tell the geometry, by path."""
    return {
        path: module
        for path, module in base.named_modules()
        if SLOT not in path.split(".")
        and (reader := CallReader(module, names)).tells_pos
        and reader.tells_neighbors
    }


def _listed(modules: Mapping[str, object]) -> str:
    return ", ".join(path or "the model itself" for path in modules) or "none"


__all__ = ["graph_sites"]
