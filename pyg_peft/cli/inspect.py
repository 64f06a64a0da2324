"""Show what a method or a saved adapter trains and what stays frozen, or how far a run has come."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.backbones.weights.shipped import shipped_for
from pyg_peft.checkpoint import WEIGHTS
from pyg_peft.cli.inspect_run import show_run
from pyg_peft.cli.method import make_model, show_counts
from pyg_peft.cli.saved import open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.loading import backbone_class as find_class
from pyg_peft.loading import open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.nn import MemoryBank
from pyg_peft.training.runs.progress import is_run
from pyg_peft.tuners import Slot
from pyg_peft.tuners.engine.hub import find_adapter
from pyg_peft.tuners.engine.loading import read_whole

_BANK_ROWS = 64

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`."""
    parser.add_argument("adapter", nargs="?", help="a saved adapter or a run, instead of a method")
    parser.add_function_arguments(run, skip={"adapter"})


def run(
    adapter: str | None = None,
    method: str = "point_peft",
    method_args: dict[str, Any] | None = None,
    backbone: str | None = None,
    backbone_class: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    num_classes: int = 40,
    bank: bool = True,
) -> None:
    """Inspect a method, a saved adapter, or a run in progress.

    Args:
        adapter: Saved adapter, or the folder of a run that fit writes or has written; leave it out
            to inspect a method on a backbone.
        method: Name of the method.
        method_args: Settings of the method.
        backbone: As in fit; for an adapter, the default are the recorded weights. Without shipped
            weights, sizes are those of the class, since the values of weights do not matter.
        backbone_class: Name of the model; PointMAE by default.
        backbone_args: Constructor arguments of the backbone.
        num_classes: Number of classes of the head.
        bank: Whether to count parameters as with a memory bank, for methods that use one.
    """
    if adapter is not None:
        adapter = str(find_adapter(adapter))
    if adapter is not None and is_run(adapter):
        show_run(adapter)
        say()
        if not (Path(adapter) / WEIGHTS).is_file():
            say("no adapter yet: it is saved when the run ends")
            return
    if adapter is None:
        kind = find_class(backbone_class)
        weights = backbone or shipped_for(kind.__name__) or "random"
        base = open_backbone(weights, num_classes, backbone_args or {}, 0, kind)
        bank = bank and is_token_backbone(base)
        # Counts depend on whether there is a bank, not on its contents.
        rows = MemoryBank(torch.zeros(_BANK_ROWS, base.embed_dim)) if bank else None
        model = make_model(base, method, method_args or {}, rows, seed=0)
    else:
        config = read_whole(adapter).config
        saved = open_adapter(adapter, backbone, backbone_args or {})
        model = saved.model
        say(f"method           {printable(config['method'])}")
        say(f"classes          {printable(', '.join(saved.class_names))}")
        say(f"preprocessing    {printable(config['preprocessing'])}")
        say(f"base fingerprint {config['base_fingerprint']}")
        say(f"memory bank      {config['memory_bank'] or 'none'}")
        say()
    show_counts(model)
    say()
    show_frozen(model)
    say()
    show_sites(model)


def show_frozen(model: PeftModel) -> None:
    """Print the parameters of each part of the base, of which its own are never trained."""
    say(f"{'part of the base':24s} {'own, frozen':>14s} {'adapter, trained':>18s}")
    for name, part in model.base.named_children():
        if name == "peft":
            continue
        frozen, trained = _count(part)
        say(f"{name:24s} {frozen:14,} {trained:18,}")
    loose = [p for _, p in model.base.named_parameters(recurse=False)]
    slot = getattr(model.base, "peft", None)
    trained = _count(slot)[1] if isinstance(slot, nn.Module) else 0
    say(f"{'(the model itself)':24s} {sum(p.numel() for p in loose):14,} {trained:18,}")


def show_sites(model: PeftModel) -> None:
    """Print each module that carries components of the adapter, with equal blocks in one line."""
    rows: dict[tuple[str, str, int], list[str]] = {}
    for path, module in model.base.named_modules():
        slot = getattr(module, "peft", None)
        if not isinstance(slot, Slot):
            continue
        for component in slot.components():
            size = sum(p.numel() for p in component.parameters())
            steps = path.split(".")
            number = next((step for step in steps if step.isdecimal()), "")
            shape = ".".join("*" if step == number and number else step for step in steps)
            key = (shape or "(model)", _name(component), size)
            rows.setdefault(key, []).append(number)
    say(f"{'place':24s} {'component':36s} {'parameters':>12s}")
    for (place, component, size), numbers in rows.items():
        where = place if numbers == [""] else place.replace("*", _span(numbers))
        times = f" x {len(numbers)}" if len(numbers) > 1 else ""
        say(f"{where:24s} {component:36s} {size:12,}{times}")
    say("A component that several places share is counted at each of them here, once above.")


def _count(module: nn.Module) -> tuple[int, int]:
    """Return the number of parameters of a module itself, and of the adapter in it."""
    seen = list(module.named_parameters(prefix="peft" if isinstance(module, Slot) else ""))
    trained = sum(p.numel() for name, p in seen if "peft" in name.split("."))
    return sum(p.numel() for _, p in seen) - trained, trained


def _name(component: nn.Module) -> str:
    inner = getattr(component, "component", None)
    kind = type(inner if isinstance(inner, nn.Module) else component).__name__
    if getattr(component, "replaces", None) is not None:
        names = [name for name, _ in component.named_parameters()]
        return f"own {', '.join(names)}" + (" and statistics" if [*component.buffers()] else "")
    return kind


def _span(numbers: list[str]) -> str:
    """Return numbers as a range or a list, such as ``["0", "1", "2"]`` as ``"0-2"``."""
    values = [int(number) for number in numbers]
    whole = values == list(range(values[0], values[-1] + 1)) and len(values) > 1
    return f"{values[0]}-{values[-1]}" if whole else ",".join(numbers)
