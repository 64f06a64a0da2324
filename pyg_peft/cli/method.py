"""Build a model with a method by name, and print what the method trains."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from pyg_peft.cli.say import say
from pyg_peft.datasets.keyed import keyed_generator, keyed_seed
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.nn import MemoryBank
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.tuners import METHODS, MethodConfig


def make_config(method: str, settings: Mapping[str, Any]) -> MethodConfig:
    """Return the configuration of a method by name.

    Raises:
        ValueError: If there is no such method or setting.
    """
    if method not in METHODS:
        raise ValueError(f"Expected 'method' to be one of {', '.join(METHODS)} (got {method!r})")
    try:
        return METHODS[method].from_dict(settings)
    except TypeError as error:
        raise ValueError(
            f"Expected 'method_args' to be of the types of {METHODS[method].__name__}'s settings "
            f"(got {dict(settings)}: {error})"
        ) from error


def make_model(
    base: nn.Module,
    method: str,
    settings: Mapping[str, Any],
    bank: MemoryBank | None,
    seed: int,
) -> PeftModel:
    """Put a method on ``base``, with new weights drawn from ``seed``.

    Args:
        base: Backbone to tune.
        method: Name of the method, a key of ``METHODS``.
        settings: Settings of the method.
        bank: Memory bank for methods that use one; others ignore it.
        seed: Random seed of new weights.
    """
    config = make_config(method, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "adapter"))
        return get_peft_model(base, config, memory_bank=bank if config.takes_memory_bank else None)


def fill_bank(
    base: nn.Module, data: ShapeDataModule, *, per_class: int | None = None, seed: int = 0
) -> MemoryBank:
    """Build a memory bank from features of the training split only.

    Args:
        base: Backbone that computes the features.
        data: Data module with the splits.
        per_class: Maximum number of samples of each class.
        seed: Random seed of the choice of samples.
    """
    say("filling the memory bank with features of the training split")
    loader = tqdm(data.bank_dataloader(), desc="bank", leave=False, disable=None)
    generator = keyed_generator(seed, "bank")
    return MemoryBank.from_loader(base, loader, per_class=per_class, generator=generator)


def show_counts(model: PeftModel) -> None:
    """Print the numbers of trainable parameters, with and without the head, and of frozen ones."""
    counts = model.count_parameters()
    say(f"trainable parameters   {counts.trainable:>12,}")
    say(f"  without the head     {counts.without_head:>12,}")
    say(f"frozen parameters      {counts.frozen:>12,}")


__all__ = ["fill_bank", "make_config", "make_model", "show_counts"]
