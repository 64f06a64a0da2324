"""Load an adapter's folder as components and a memory bank, without changing the model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyg_peft.checkpoint import AdapterFile, bank_name, check_config, check_tensors, read_adapter
from pyg_peft.errors import CheckpointError, PlacementError
from pyg_peft.nn import MemoryBank
from pyg_peft.tensor_file import check_plain, check_values
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.placement import match_base, site_tensors
from pyg_peft.tuners.engine.saving import base_fingerprint


class LoadedAdapter(NamedTuple):
    """An adapter that is not attached yet.

    Attributes:
        config: The method and its settings.
        sites: Components with the file's tensors in them.
        bank: Memory bank of the adapter, or ``None``.
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
        folder: The folder that ``save_adapter`` wrote.
        base: The model that the adapter was trained on.
        methods: Methods by their name in a file.
        bank: The adapter's bank, if it is already loaded. By default it is read from the folder.

    Raises:
        CheckpointError: If anything in the folder is damaged, foreign or does not fit.
    """
    file = read_whole(folder)
    config = _with_saved_classes(read_config(file, methods, folder), base, file, folder)
    sites = restore_sites(file, base, config, folder)
    bank = find_bank(file.config["memory_bank"], bank, folder)
    try:
        config.check_bank(base, bank)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected the memory bank and 'settings' of '{folder}' to fit the base (got: {error})"
        ) from error
    return LoadedAdapter(config, sites, bank)


def read_whole(folder: str | Path) -> AdapterFile:
    """Read an adapter folder, and check that every configuration field is present and typed.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        CheckpointError: If anything is damaged or foreign, or a field is missing or mistyped.
    """
    file = read_adapter(folder)
    check_config(file.config, folder)
    return file


def find_bank(
    expected: str | None, bank: MemoryBank | None, folder: str | Path
) -> MemoryBank | None:
    """Return the bank that an adapter was trained with: the given one or the one in its folder.

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
    """Return the method's configuration in a file.

    Raises:
        CheckpointError: If the method is not among ``methods``, or a setting is unknown, mistyped
            or out of its range. The message lists ``methods``.
    """
    name = file.config["method"]
    if name not in methods:
        raise CheckpointError(
            f"Expected '{source}' to hold one of the methods {', '.join(sorted(methods))} "
            f"(got {name!r}; hand its class in through configs=[...])"
        )
    try:
        return methods[name].from_dict(file.config["settings"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected 'settings' in '{source}' to be those of {methods[name].__name__} "
            f"(got: {error})"
        ) from error


def _with_saved_classes(
    config: MethodConfig, base: nn.Module, file: AdapterFile, source: str | Path
) -> MethodConfig:
    """Return the configuration for a base with another number of classes than at saving.

    The adapter then has its own head, of the size that it was saved with. For an adapter that was
    saved without one, the fingerprint shows that the frozen head differs.
    """
    sizes, names = file.config["backbone"].get("config") or {}, file.config.get("class_names")
    saved = sizes.get("num_classes", None if names is None else len(names))
    has = getattr(base, "num_classes", None)
    if config.num_classes is not None or saved is None or has in (None, saved):
        return config
    if not hasattr(base, "reset_head"):
        return config
    try:
        return replace(config, num_classes=saved)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{error}, in 'backbone.config' of '{source}'") from error


def restore_sites(
    file: AdapterFile, base: nn.Module, config: MethodConfig, source: str | Path
) -> list[Site]:
    """Create components and fill them with the file's tensors; ``base`` is not changed.

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
        # An adapter without its own head depends on that of the base.
        head = hasattr(base, "head") and "head" not in config.replaced_paths(base)
        raise CheckpointError(
            f"{wanted} with fingerprint {expected[:16]} (got {type(base).__name__} with "
            f"{found[:16]}): its frozen weights differ"
            f"{', among which the head is, since the adapter was saved without one' * head}"
        )
    sites = _make_sites(config, base, file, source)
    match_base(base, sites)
    fill(sites, file.tensors, source)
    return sites


def _make_sites(
    config: MethodConfig, base: nn.Module, file: AdapterFile, source: str | Path
) -> list[Site]:
    """Create components of the sizes in a file's settings, which must match the file's tensors.

    Components of the library's own methods are first created on the meta device. So a size that
    the file does not have raises before memory is allocated for it.
    """
    has_bank = file.config["memory_bank"] is not None
    try:
        if type(config).__module__.partition(".")[0] == __name__.partition(".")[0]:
            with torch.device("meta"), _StayOnMeta():
                claimed = site_tensors(config.sites(base, has_bank=has_bank))
            check_tensors(file.tensors, claimed, source)
        return config.sites(base, has_bank=has_bank)
    except CheckpointError:
        raise
    # PyTorch reports a size that is too large as a RuntimeError.
    except (TypeError, ValueError, LookupError, OverflowError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected 'settings' in '{source}' to fit {type(base).__name__} (got: {error})"
        ) from error


class _StayOnMeta(TorchFunctionMode):
    """Keeps meta tensors on the meta device, though a new head is moved to its model's device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def fill(sites: Sequence[Site], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors into components by their keys.

    Raises:
        CheckpointError: If a key, a shape or a kind of numbers does not fit, or a number is not
            finite. Nothing is copied in that case.
    """
    expected = site_tensors(sites)
    check_tensors(tensors, expected, source)
    for name, tensor in expected.items():
        try:
            # Checked in the target precision, in which a large number may not be finite.
            check_plain(name, tensors[name])
            check_values(name, tensors[name].to(tensor.dtype))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{error}, in '{source}'") from error
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name].to(tensor.device, tensor.dtype))


__all__ = [
    "LoadedAdapter",
    "fill",
    "find_bank",
    "load_adapter",
    "read_config",
    "read_whole",
    "restore_sites",
]
