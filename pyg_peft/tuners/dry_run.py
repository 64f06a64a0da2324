"""A forward on an example: initialises lazy layers, and measures what every module returns."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def _call(model: nn.Module, example: Any) -> Any:
    """Call ``model`` on a tuple of arguments, a mapping of named ones, or one argument."""
    if isinstance(example, Mapping):
        return model(**example)
    # A batch of graphs may be a tuple of its own kind; only a plain one holds arguments.
    return model(*example) if type(example) is tuple else model(example)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@contextmanager
def _undisturbed(model: nn.Module) -> Generator[None]:
    """Within the context the model is in eval mode without gradients; afterwards modes and random
    state are what they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        for module, training in modes:
            module.training = training


def initialize(base: nn.Module, example: Any) -> None:
    """Run ``base`` once if layers of it wait for their first input, and there is an example."""
    if example is not None and any(is_lazy(p) for p in base.parameters()):
        with _undisturbed(base):
            _call(base, example)


def output_widths(base: nn.Module, example: Any) -> dict[str, int] | None:
    """Run ``base`` once and return the width of each called module's output, by path.

    Of a tuple the first element counts. Without an example nothing is run.
    """
    if example is None:
        return None
    widths: dict[str, int] = {}

    def measure(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output  # pyright: ignore[reportUnknownVariableType]
            if isinstance(first, Tensor) and first.dim() > 0:
                widths[path] = first.size(-1)

        return hook

    handles = [m.register_forward_hook(measure(path)) for path, m in base.named_modules()]
    try:
        with _undisturbed(base):
            _call(base, example)
    finally:
        for handle in handles:
            handle.remove()
    return widths


def try_out(model: nn.Module, example: Any) -> None:
    """Run a model with a new adapter once, in eval mode, if there is an example."""
    if example is None:
        return
    training = model.training
    try:
        with _undisturbed(model):
            _call(model, example)
    finally:
        model.train(training)


__all__ = ["initialize", "output_widths", "try_out"]
