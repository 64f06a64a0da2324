"""One folder of numbers that the authors' code produced."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class GoldenCase:
    """Tensors of a golden case, read when they are asked for; ``case / name`` is a path in it."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the arrays of ``<name>.npz`` as tensors in their own precision."""
        with np.load(self.folder / f"{name}.npz") as archive:
            return {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The state dict under the authors' key names."""
        return self.tensors("weights")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """What goes into the call."""
        return self.tensors("inputs")

    @cached_property
    def ref(self) -> dict[str, Tensor]:
        """What came out of the authors' code."""
        return self.tensors("ref")

    @cached_property
    def grad_probes(self) -> dict[str, Tensor]:
        """The vectors that the outputs were multiplied with for the gradients."""
        return self.tensors("grad_probes")

    @cached_property
    def grad_norms(self) -> dict[str, Any]:
        """The norm of each parameter's gradient; ``None`` or 0 where it has no influence."""
        return json.loads((self.folder / "grad_norms.json").read_text())
