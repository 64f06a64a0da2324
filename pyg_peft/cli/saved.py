"""A saved adapter on its base, with what it records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyg_peft.cli.weights import open_recorded
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel
from pyg_peft.tensor_file import short
from pyg_peft.training.data.preprocessing import Preprocessing
from pyg_peft.tuners.engine.loading import read_whole
from pyg_peft.tuners.engine.saving import check_class_names


@dataclass(frozen=True)
class Saved:
    """Everything that prediction needs.

    Args:
        model: base and adapter, in eval mode.
        class_names: in the order of the logits.
        preprocessing: as in training.
        read_args: arguments of ``read_points`` with which the files of training were read.
    """

    model: PeftModel
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    read_args: dict[str, Any]

    @property
    def task(self) -> str:
        """What the base was built for: ``"classification"`` or ``"segmentation"``."""
        base: Any = self.model.base
        return base.task


def open_adapter(folder: str, weights: str | None, settings: Mapping[str, Any]) -> Saved:
    """Load an adapter folder onto its base.

    Args:
        folder: where it was saved.
        weights: of the base, as in ``open_backbone``; ``None`` for those that the adapter records.
        settings: constructor arguments of the base that replace the recorded ones.

    Raises:
        CheckpointError: a file is damaged, the base is another one, or names and preprocessing are
            not in the folder.
        ValueError: there is not one name for each score.
    """
    config = read_whole(folder).config
    for key in ("class_names", "preprocessing"):
        if config.get(key) is None:
            raise CheckpointError(f"Expected '{folder}' to hold '{key}' (got none)")
    model = PeftModel.from_pretrained(open_recorded(config, weights, settings), folder)
    recorded, names = config["preprocessing"], tuple(config["class_names"])
    read_args = recorded.get("read_args", {})  # older adapters have none
    if not isinstance(read_args, dict):
        raise CheckpointError(
            f"Expected 'preprocessing.read_args' in '{folder}' to be an object "
            f"(got {short(read_args)})"
        )
    # Saving checks it, too, but did not always.
    check_class_names(names, model.base, model.peft_config["default"])
    try:
        preprocessing = Preprocessing.from_dict(recorded)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{error}, in 'preprocessing' of '{folder}'") from error
    return Saved(model, names, preprocessing, dict(read_args))


__all__ = ["Saved", "open_adapter"]
