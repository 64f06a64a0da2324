"""Check that a memory bank fits the model."""

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.nn import MemoryBank
from pyg_peft.tuners.tokens.blocks import token_blocks


def check_token_bank(base: nn.Module, bank: MemoryBank) -> None:
    """Raise unless the bank's rows are features like the queries of this token backbone."""
    channels, _ = token_blocks(base)
    if bank.source is not None:
        raise ValueError(
            f"Expected 'memory_bank' to hold features of the whole {type(base).__name__} "
            f"(got those of its module {bank.source.module!r}): fill it without 'module'"
        )
    if bank.channels != channels:
        raise ValueError(
            f"Expected 'memory_bank' to have {channels} channels, as the backbone "
            f"(got {bank.channels})"
        )


def check_graph_bank(base: nn.Module, bank: MemoryBank) -> None:
    """Raise unless the bank names the module of this model that queries come from."""
    if bank.source is None:
        raise ValueError(
            f"Expected 'memory_bank' on layers of {type(base).__name__} to be filled with "
            "MemoryBank.from_loader(model, loader, module=...), so that a query is made the same "
            "way (got one that names no module)"
        )
    if bank.source.module not in dict(base.named_modules()):
        raise PlacementError(
            f"Expected 'memory_bank' to be of {type(base).__name__} (got one of a module "
            f"{bank.source.module!r}, which it has not)"
        )


__all__ = ["check_graph_bank", "check_token_bank"]
