"""Start a run from a saved adapter: its method, its base, its preprocessing and its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyg_peft.checkpoint import WEIGHTS, AdapterFile, fingerprint
from pyg_peft.cli.say import say
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import CheckpointError
from pyg_peft.loading import open_recorded, renew_head
from pyg_peft.model import PeftModel
from pyg_peft.tensor_file import short
from pyg_peft.tuners import METHODS
from pyg_peft.tuners.engine.hub import find_adapter
from pyg_peft.tuners.engine.loading import read_config, read_whole
from pyg_peft.tuners.engine.saving import base_fingerprint


@dataclass(frozen=True)
class Start:
    """A saved adapter to start a run from.

    Args:
        folder: Folder of the adapter.
        file: Its content.
        method: Name of its method.
        settings: Settings of its method; the number of classes is that of the new data.
        preprocessing: Preprocessing of the new run.
        has_bank: Whether it was trained with a memory bank; the new run builds its own.
    """

    folder: str
    file: AdapterFile
    method: str
    settings: dict[str, Any]
    preprocessing: Preprocessing
    has_bank: bool

    @property
    def backbone_class(self) -> str:
        """Name of the model."""
        return self.file.config["backbone"]["class"]

    @property
    def _recorded(self) -> dict[str, Any]:
        return (self.file.config.get("preprocessing") or {}).get("weights") or {}

    @property
    def weights(self) -> str | None:
        """Recorded weights of the base, or ``None``."""
        return self._recorded.get("source")

    @property
    def seed(self) -> int:
        """Random seed of weights of the base that are in no file."""
        return self._recorded.get("seed", 0)

    def metadata(self, weights: str) -> dict[str, Any]:
        """Return what the new adapter records about the base's weights and about this adapter."""
        sizes = self.file.config["backbone"]["config"]
        first = self._recorded.get("num_classes", sizes["num_classes"])
        return {
            "weights": {"source": weights, "seed": self.seed, "num_classes": first},
            "from_adapter": fingerprint(self.file.tensors)[:16],
        }

    def open_base(self, weights: str, settings: Mapping[str, Any], num_outputs: int) -> Any:
        """Build the adapter's base, with a head for ``num_outputs``.

        Raises:
            CheckpointError: If it is another base than the adapter was trained on.
        """
        base: Any = open_recorded(self.file.config, weights, settings)
        found = base_fingerprint(base, METHODS[self.method].from_dict(self.settings))
        if found != (expected := self.file.config["base_fingerprint"]):
            raise CheckpointError(
                f"Expected the base that '{self.folder}' was trained on, with fingerprint "
                f"{expected[:16]} (got {found[:16]}): name its weights by --backbone"
            )
        if base.num_classes != num_outputs:
            renew_head(base, num_outputs, self.seed)
        return base

    def load_into(self, model: PeftModel, class_names: Sequence[str]) -> dict[str, str]:
        """Load the adapter's tensors into the active adapter of ``model``.

        The head is left as it is, newly drawn, if ``class_names`` are not those of the adapter.

        Returns:
            What ``result.json`` records.
        """
        same = list(class_names) == self.file.config.get("class_names")
        head = self.settings.get("head") or "head"
        model.load_tensors(self.file.tensors, without=() if same else (str(head),))
        kept = "head included" if same else "with a new head, since the classes are others"
        say(f"starts from the {self.method} adapter in {self.folder}, {kept}")
        return {"folder": self.folder, "head": "loaded" if same else "new"}


def read_start(
    folder: str,
    *,
    task: str,
    method: str | None,
    method_args: Mapping[str, Any] | None,
    backbone_class: str | None,
    preprocessing: Preprocessing,
    bank: bool,
) -> Start:
    """Read a saved adapter, and check that the options of a run agree with it.

    Args:
        folder: Folder of the adapter, or its name on the Hub.
        task: Task of the run.
        method: Name of a method; ``None`` for that of the adapter.
        method_args: Settings of a method; must be ``None``.
        backbone_class: Name of a model; ``None`` for that of the adapter.
        preprocessing: Preprocessing of the run; the default means that of the adapter.
        bank: Whether the run may have a memory bank.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        CheckpointError: If the adapter is damaged, or of an unknown method.
        ValueError: If an option differs from the adapter. The message says what to do.
    """
    folder = str(find_adapter(folder))
    if not (Path(folder) / WEIGHTS).is_file():
        raise ValueError(
            f"Expected 'from_adapter' to be a folder with {WEIGHTS} in it (got '{folder}')"
        )
    file = read_whole(folder)
    config = read_config(file, METHODS, folder)
    recorded = file.config.get("preprocessing") or {}
    has_bank = file.config["memory_bank"] is not None
    for name, given, own in (
        ("task", task, recorded.get("task_name", task)),
        ("method", method, config.method),
        ("backbone_class", backbone_class, file.config["backbone"]["class"]),
    ):
        if given is not None and given != own:
            raise ValueError(
                f"Expected '{name}' to be that of 'from_adapter', {own!r} (got {given!r})"
            )
    if method_args:
        raise ValueError(
            "Expected no 'method_args' with 'from_adapter', whose settings are used "
            f"(got {dict(method_args)})"
        )
    if has_bank and not bank:
        raise ValueError(
            f"Expected 'bank' to be true, since '{folder}' was trained with a bank (got False)"
        )
    if recorded and preprocessing == Preprocessing():
        try:
            preprocessing = Preprocessing.from_dict(recorded)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{error}, in 'preprocessing' of '{folder}'") from error
    settings = {**config.to_dict(), "num_classes": None}
    weights = recorded.get("weights") or {}
    if not isinstance(weights, dict) or type(weights.get("seed", 0)) is not int:
        raise CheckpointError(
            f"Expected 'preprocessing.weights' in '{folder}' to hold a 'source' and a 'seed' "
            f"(got {short(weights)})"
        )
    return Start(folder, file, config.method, settings, preprocessing, has_bank)


__all__ = ["Start", "read_start"]
