"""A saved adapter on its base, with what it records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyg_peft.checkpoint import read_adapter
from pyg_peft.cli.weights import open_recorded
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel
from pyg_peft.training.preprocessing import Preprocessing


@dataclass(frozen=True)
class Saved:
    """Everything that prediction needs.

    Args:
        model: base and adapter, in eval mode.
        class_names: in the order of the logits.
        preprocessing: as in training.
    """

    model: PeftModel
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def open_adapter(folder: str, weights: str | None, settings: Mapping[str, Any]) -> Saved:
    """Load an adapter folder onto its base.

    Args:
        folder: where it was saved.
        weights: of the base, as in ``open_backbone``; ``None`` for those that the adapter records.
        settings: constructor arguments of the base that replace the recorded ones.

    Raises:
        CheckpointError: a file is damaged, the base is another one, or names and preprocessing are
            not in the folder.
    """
    config = read_adapter(folder).config
    for key in ("class_names", "preprocessing"):
        if config.get(key) is None:
            raise CheckpointError(f"Expected '{folder}' to hold '{key}' (got none)")
    model = PeftModel.from_pretrained(open_recorded(config, weights, settings), folder)
    return Saved(
        model, tuple(config["class_names"]), Preprocessing.from_dict(config["preprocessing"])
    )


__all__ = ["Saved", "open_adapter"]
