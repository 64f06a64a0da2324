"""Describe an adapter for its folder, and write the folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pyg_peft.checkpoint import bank_name, fingerprint, remove_unused, to_json, write_adapter
from pyg_peft.nn import MemoryBank
from pyg_peft.storage import exclusive
from pyg_peft.tensor_file import check_values
from pyg_peft.trainable import ParameterCount
from pyg_peft.tuners.engine.card import check_card, model_card
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.placement import base_tensors, site_tensors


def base_fingerprint(base: nn.Module, config: MethodConfig) -> str:
    """Return the SHA-256 of the base's tensors, except those that the adapter replaces.

    The adapter replaces the head, for example.
    """
    return fingerprint(base_tensors(base, without=config.replaced_paths(base)))


def count(base: nn.Module, config: MethodConfig, sites: Sequence[Site]) -> ParameterCount:
    """Count the parameters of an adapter, those of its head among them, and those of the base."""
    trained = {k: t for k, t in site_tensors(sites).items() if isinstance(t, nn.Parameter)}
    heads = config.head_paths(base)
    of_head = [t for k, t in trained.items() if any(f"{k}.".startswith(f"{p}.") for p in heads)]
    frozen = base_tensors(base)
    return ParameterCount(
        trainable=sum(t.numel() for t in trained.values()),
        head=sum(t.numel() for t in of_head),
        frozen=sum(p.numel() for name, p in base.named_parameters() if name in frozen),
    )


def describe(
    base: nn.Module,
    config: MethodConfig,
    sites: Sequence[Site],
    *,
    memory_bank: str | None,
    class_names: Sequence[str] | None,
    preprocessing: Mapping[str, Any] | None,
    card: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the configuration to save: all that ``predict`` needs besides the base's file.

    Raises:
        ValueError: If the number of class names differs from the backbone's number of scores.
    """
    if class_names is not None:
        check_class_names(class_names, base, config)
    counts = count(base, config, sites)
    arguments = getattr(base, "config", None)
    return {
        "method": config.method,
        "settings": config.to_dict(),
        "backbone": {
            "class": type(base).__name__,
            "config": dict(arguments) if isinstance(arguments, Mapping) else None,
        },
        "base_fingerprint": base_fingerprint(base, config),
        "memory_bank": memory_bank,
        "class_names": None if class_names is None else list(class_names),
        "preprocessing": None if preprocessing is None else dict(preprocessing),
        "parameters": {
            "trainable": counts.trainable,
            "head": counts.head,
            "frozen": counts.frozen,
        },
        **({"card": dict(card)} if card else {}),
    }


def save_adapter(
    folder: str | Path,
    base: nn.Module,
    config: MethodConfig,
    sites: Sequence[Site],
    *,
    bank: MemoryBank | None,
    class_names: Sequence[str] | None,
    preprocessing: Mapping[str, Any] | None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapter and its bank, then remove a bank that only the previous adapter used.

    Raises:
        ValueError: If there is not one class name for each score, or a tensor is not finite.
            Nothing is written in that case.
        TypeError: If a setting is not a JSON value, or a tensor is complex, sparse or without
            values. Nothing is written in that case.
    """
    check_card(card)
    description = describe(
        base,
        config,
        sites,
        memory_bank=None if bank is None else bank.hash,
        class_names=class_names,
        preprocessing=preprocessing,
        card=card,
    )
    to_json(description)
    tensors = site_tensors(sites)
    for key, tensor in tensors.items():
        check_values(key, tensor)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder) as alone:
        if bank is not None:
            # The bank is written first, under its own name. So the folder always has the bank of
            # its adapter, whether that is the old or the new one.
            bank.save(folder / bank_name(bank.hash))
        write_adapter(folder, tensors, description, model_card(description))
        if alone:
            remove_unused(folder)


def check_class_names(class_names: Sequence[str], base: nn.Module, config: MethodConfig) -> None:
    """Raise ``ValueError`` unless there is one name for each score of a backbone's adapter."""
    # In backbones 'num_classes' matches the head; in other models it may mean anything.
    known = getattr(base, "num_classes", None) if hasattr(base, "reset_head") else None
    expected = config.num_classes or known
    if expected is not None and len(class_names) != expected:
        raise ValueError(
            f"Expected 'class_names' to name the {expected} classes of the adapter's scores "
            f"(got {len(class_names)}: {list(class_names)})"
        )


__all__ = ["base_fingerprint", "check_class_names", "count", "describe", "save_adapter"]
