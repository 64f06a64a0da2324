"""Eval mode for the time of a context."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Generator[None]:
    """Put a module in eval mode, and restore the mode of each of its modules on exit.

    Args:
        module: Any module.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with eval_mode(net):
        ...     [m.training for m in net.modules()]
        [False, False, False]
        >>> [m.training for m in net.modules()]
        [True, True, False]
    """
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        # A PeftModel also stores its mode beside those of its modules.
        module.train(modes[0][1])
        for m, training in modes:
            m.training = training


__all__ = ["eval_mode"]
