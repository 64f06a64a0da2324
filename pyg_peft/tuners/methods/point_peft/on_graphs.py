"""Place the components of Point-PEFT in any model whose layers have geometry."""

from collections.abc import Mapping

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.nn import NeighborAttention, PointPriorPrompt, PromptTokens
from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.layers import check_bottleneck, input_channels, output_channels
from pyg_peft.tuners.engine.slot import SLOT, check_site
from pyg_peft.tuners.graphs.adapter import GraphAdapter
from pyg_peft.tuners.graphs.clouds import CloudIds, CloudRecorder
from pyg_peft.tuners.graphs.geometry import CallReader
from pyg_peft.tuners.graphs.origins import Origins, listed
from pyg_peft.tuners.graphs.prompts import GraphPrompts, takes_prompts
from pyg_peft.tuners.graphs.sources import GeometrySource, SharedStructures
from pyg_peft.tuners.methods.biases import bias_sites
from pyg_peft.tuners.methods.point_peft.components import new_adapter, new_attention
from pyg_peft.tuners.methods.point_peft.settings import PointPEFTSettings


def graph_sites(
    base: nn.Module,
    config: PointPEFTSettings,
    targets: Mapping[str, nn.Module],
    *,
    has_bank: bool,
) -> list[Site]:
    """Create the components for layers of any model, except the head's.

    Args:
        base: The model.
        config: The method's settings.
        targets: The layers by path.
        has_bank: Whether prompts depend on a memory bank.

    Raises:
        PlacementError: If a target is a container, has no known width, or neither receives geometry
            nor is inside a module that does; the message lists those that do. If prompts are
            requested and no target can take them.
    """
    origins = Origins(base, config.names, config.pos_from)
    sources: dict[str, GeometrySource | None] = {}
    for path, layer in targets.items():
        check_site(layer, path)
        sources[path] = origins.of(path)
    clouds = CloudIds() if has_bank else None
    prompted = _prompted(base, config, targets) if config.num_prompts else {}
    prompts = {
        path: GraphPrompts(
            _prompt(config, channels, has_bank=has_bank),
            path,
            origins.reader(path),
            sources[path],
            clouds,
            config.bank_channels,
        )
        for path, channels in prompted.items()
    }
    shared = SharedStructures((*origins.beside.values(), *prompts.values()))
    attention: dict[int, NeighborAttention] = {}
    sites = [Site("", "structures", shared)]
    if clouds is not None:
        sites.append(Site("", "clouds", clouds))
    for path, layer in targets.items():
        channels = output_channels(layer, path, config.channels)
        check_bottleneck(config.bottleneck_channels, channels, path)
        if channels not in attention:
            attention[channels] = new_attention(config, channels)
        adapter = new_adapter(config, channels, attention[channels])
        reader, joined = origins.reader(path), prompts.get(path)
        placed = GraphAdapter(adapter, path, reader, sources[path], shared, joined)
        sites.append(Site(path, "adapter", placed))
        # The after methods run in reverse order, so prompts are removed before the adapter runs.
        if joined is not None:
            sites.append(Site(path, "prompt", joined))
    # After the prompts, since layers inside a prompted layer receive them as points.
    sites += origins.sites()
    if clouds is not None:
        for path, reader in origins.carriers().items():
            sites.append(Site(path, "cloud_ids", CloudRecorder(reader, clouds)))
    if config.train_biases:
        saved = config.trained_modules(base)
        sites += bias_sites(base, inside=tuple(targets), without=saved)
    return sites


def _prompted(
    base: nn.Module, config: PointPEFTSettings, targets: Mapping[str, nn.Module]
) -> dict[str, int]:
    """Return the input widths of the first targets that can take prompts, by path."""
    if not config.prompt_depth:
        return {}
    if found := _takers(targets, config):
        return dict(list(found.items())[: config.prompt_depth])
    others = _takers(dict(base.named_modules()), config)
    raise PlacementError(
        f"Expected a target that can take prompts: one called with features first, with "
        f"{config.edge_index_name!r} by name, and with nothing else that has a row per point, but "
        f"for positions (got {', '.join(targets)}); num_prompts=0 goes without; modules that can: "
        f"{listed(others)}"
    )


def _prompt(
    config: PointPEFTSettings, channels: int, *, has_bank: bool
) -> PointPriorPrompt | PromptTokens:
    num_prompts = config.num_prompts or 0
    if not has_bank:
        return PromptTokens(num_prompts, channels)
    # The first layers of a model may be narrower than the bottleneck.
    width = min(config.prompt_bottleneck_channels, channels)
    return PointPriorPrompt(channels, num_prompts, width)


def _takers(modules: Mapping[str, nn.Module], config: PointPEFTSettings) -> dict[str, int]:
    """Return the input widths of the modules that can take prompts, by path.

    The model itself is left out, since the state that its layers share is dropped after its call.
    """
    measured = config.in_channels or {}
    return {
        path: channels
        for path, module in modules.items()
        if path
        and SLOT not in path.split(".")
        and takes_prompts(module, CallReader(module, config.names))
        and (channels := input_channels(module, measured.get(path))) > 0
    }


__all__ = ["graph_sites"]
