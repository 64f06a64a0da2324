"""How an adapter's folder comes back as components and a bank; the model is only read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoint import AdapterFile, bank_name, check_tensors, read_adapter
from ..errors import CheckpointError, PlacementError
from ..nn import MemoryBank
from .config import MethodConfig, Site
from .placement import match_base, site_tensors
from .saving import base_fingerprint


class LoadedAdapter(NamedTuple):
    """An adapter that is not attached yet.

    Attributes:
        config: The method and its settings.
        sites: Components with the file's tensors in them.
        bank: Its memory bank, if it has one.
    """

    config: MethodConfig
    sites: list[Site]
    bank: MemoryBank | None


def load_adapter(
    folder: str | Path,
    base: nn.Module,
    methods: Mapping[str, type[MethodConfig]],
    bank: MemoryBank | None = None,
) -> LoadedAdapter:
    """Read an adapter for ``base``.

    Args:
        folder: Where ``save_adapter`` wrote.
        base: The model that the adapter was trained on.
        methods: Method by the name that stands in a file.
        bank: The adapter's bank, if it is at hand; read from the folder otherwise.

    Raises:
        CheckpointError: If anything in the folder is damaged, foreign or does not fit.
    """
    file = read_adapter(folder)
    config = read_config(file, methods, folder)
    sites = restore_sites(file, base, config, folder)
    bank = find_bank(file.config["memory_bank"], bank, folder)
    config.check_bank(base, bank)
    return LoadedAdapter(config, sites, bank)


def find_bank(
    expected: str | None, bank: MemoryBank | None, folder: str | Path
) -> MemoryBank | None:
    """The bank that an adapter was trained with: the one at hand or the one in its folder.

    Raises:
        CheckpointError: If it is missing or another one, or the adapter was trained without a bank.
    """
    if expected is None:
        if bank is not None:
            raise CheckpointError(
                f"Expected no 'memory_bank' for '{folder}', which was trained without one (got one)"
            )
        return None
    if bank is None:
        path = Path(folder) / bank_name(expected)
        if not path.is_file():
            raise CheckpointError(
                f"Expected '{path}' or the argument 'memory_bank', since the adapter was trained "
                "with a bank (got neither)"
            )
        bank = MemoryBank.load(path)
    if bank.hash != expected:
        raise CheckpointError(
            f"Expected the memory bank {expected[:16]} for '{folder}' (got {bank.hash[:16]})"
        )
    return bank


def read_config(
    file: AdapterFile, methods: Mapping[str, type[MethodConfig]], source: str | Path
) -> MethodConfig:
    """The method's configuration in a file.

    Raises:
        CheckpointError: If the method is not among ``methods``; those are listed.
    """
    name = file.config["method"]
    if name not in methods:
        raise CheckpointError(
            f"Expected '{source}' to hold one of the methods {', '.join(sorted(methods))} "
            f"(got {name!r}; hand its class in through configs=[...])"
        )
    return methods[name].from_dict(file.config["settings"])


def restore_sites(
    file: AdapterFile, base: nn.Module, config: MethodConfig, source: str | Path
) -> list[Site]:
    """Components with the file's tensors in them; ``base`` is only read.

    Raises:
        CheckpointError: If the base is another one, or a key or shape does not fit.
    """
    expected, made_for = file.config["base_fingerprint"], file.config["backbone"]["class"]
    wanted = f"Expected the base that '{source}' was trained on, {made_for}"
    try:
        found = base_fingerprint(base, config)
    except PlacementError as error:
        raise CheckpointError(f"{wanted} (got {type(base).__name__}: {error})") from error
    if found != expected:
        raise CheckpointError(
            f"{wanted} with fingerprint {expected[:16]} (got {type(base).__name__} with "
            f"{found[:16]}): its frozen weights differ"
        )
    sites = config.sites(base, has_bank=file.config["memory_bank"] is not None)
    match_base(base, sites)
    fill(sites, file.tensors, source)
    return sites


def fill(sites: Sequence[Site], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors into components by their keys.

    Raises:
        CheckpointError: If a key or a shape does not fit; nothing is copied then.
    """
    expected = site_tensors(sites)
    check_tensors(tensors, expected, source)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name].to(tensor.device, tensor.dtype))


__all__ = ["LoadedAdapter", "fill", "find_bank", "load_adapter", "read_config", "restore_sites"]
