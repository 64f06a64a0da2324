"""Run a model on an example, to initialize lazy layers and to measure input and output widths."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_peft.errors import check_module
from pyg_peft.nn.eval_mode import eval_mode
from pyg_peft.tuners.engine.calls import parameter_names
from pyg_peft.tuners.engine.slot import features_of


class Widths(NamedTuple):
    """Widths that a dry run measured on the modules that were called.

    Attributes:
        inputs: Width of the first argument by path, zero if there is none. For a tuple, that of
            its first element.
        outputs: Width of the output by path. For a tuple, that of its first element.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]


def call_on_example(model: nn.Module, example: Any) -> Any:
    """Call ``model`` on a tuple of arguments, a mapping of named ones, or one argument."""
    if isinstance(example, Mapping):
        return model(**example)
    # A batch of graphs may be a subclass of tuple; only a plain tuple holds arguments.
    return model(*example) if type(example) is tuple else model(example)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@contextmanager
def undisturbed(model: nn.Module) -> Generator[None]:
    """Put the model in eval mode without gradients, and restore modes and random state on exit."""
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    with eval_mode(model), torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
        yield


def initialize(base: nn.Module, example: Any) -> None:
    """Run ``base`` once if it has uninitialized lazy layers and there is an example."""
    check_module(base, "base")
    if example is not None and any(is_lazy(p) for p in base.parameters()):
        with undisturbed(base):
            call_on_example(base, example)


def measure_widths(base: nn.Module, example: Any) -> Widths | None:
    """Run ``base`` once and measure each called module; without an example return ``None``."""
    if example is None:
        return None
    widths = Widths({}, {})

    def measure(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            name, *_ = *parameter_names(module), ""
            features = features_of(args[0] if args else kwargs.get(name))
            if features is None:
                widths.inputs[path] = 0
            for into, first in ((widths.inputs, features), (widths.outputs, features_of(output))):
                if isinstance(first, Tensor) and first.dim() > 0:
                    into[path] = first.size(-1)

        return hook

    handles = [
        module.register_forward_hook(measure(path), with_kwargs=True)
        for path, module in base.named_modules()
    ]
    try:
        with undisturbed(base):
            call_on_example(base, example)
    finally:
        for handle in handles:
            handle.remove()
    return widths


def try_out(model: nn.Module, example: Any) -> None:
    """Run a model with a new adapter once in eval mode, if there is an example."""
    if example is None:
        return
    with undisturbed(model):
        call_on_example(model, example)


__all__ = [
    "Widths",
    "call_on_example",
    "initialize",
    "measure_widths",
    "try_out",
    "undisturbed",
]
