"""Backbones of the table that are no Point-MAE: their weights, and where each method sits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pyg_peft import backbones as library

RANDOM = "random"


class Variant(Protocol):
    """What is asked of a method of the plan."""

    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def weights(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A class of the library with weights that a plan pins.

    Args:
        kind: name of the class.
        weights: file, seen from the plan's folder. One of a classifier gives a network for parts
            its encoder; decoder and head are fresh then.
        sha256: of that file. Other weights are another plan.
        methods: those that fit, with the settings that they need here.
        sizes: constructor arguments that the weights cannot tell.
        axes: order of the coordinates that the weights were trained with.
        folder: the plan's.
    """

    kind: str
    weights: str
    sha256: str
    methods: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[int, int, int] = (0, 1, 2)
    folder: Path = Path()

    @classmethod
    def read(cls, values: Mapping[str, Any], folder: Path) -> "Backbone":
        """From an entry of a plan in ``folder``.

        Raises:
            ValueError: the library has no such class.
        """
        if values["kind"] not in library.__all__:
            raise ValueError(
                f"Expected 'kind' to be one of {', '.join(library.__all__)} (got {values['kind']})"
            )
        settings: dict[str, Any] = {**values, "folder": folder}
        if "axes" in values:
            settings["axes"] = tuple(values["axes"])
        return cls(**settings)

    @property
    def path(self) -> Path:
        return (self.folder / self.weights).resolve()

    def config(self, name: str, method: Variant) -> dict[str, Any]:
        """What of a row's configuration the backbone decides."""
        scratch = method.weights == RANDOM
        return {
            "settings": {**method.settings, **self.methods[name]},
            "bank": False,  # prompts on graphs are off unless asked for, and no row does
            "backbone": {"kind": self.kind, "sizes": dict(self.sizes), "axes": list(self.axes)},
            "weights": RANDOM if scratch else self.path.name,
            "weights_hash": RANDOM if scratch else self.sha256,
        }

    def check_weights(self) -> None:
        """Raise unless the file is here and is the one that the plan means.

        Raises:
            ValueError: it is not.
        """
        found = hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path.is_file() else None
        if found != self.sha256:
            raise ValueError(
                f"Expected '{self.weights}' with the SHA-256 {self.sha256} (got {found or 'none'}):"
                " pretrain_classifier.py makes it; where it comes out otherwise, the plan needs "
                "the new hash, and its rows run again"
            )

    def open(self, num_classes: int, seed: int, *, scratch: bool = False) -> nn.Module:
        """The network with a head for ``num_classes``.

        Args:
            num_classes: scores of a cloud, or of a point.
            seed: of all that is fresh.
            scratch: leave the weights and draw all of them.
        """
        kind = getattr(library, self.kind)
        # A network for parts takes the encoder of a classifier's file, without its head.
        wanted = num_classes if self.kind.endswith("Segmentation") else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind.from_checkpoint(self.path, wanted, **self.sizes)
            if wanted is None:
                model.reset_head(num_classes)
            if scratch:
                model.reset_parameters()
        return model
