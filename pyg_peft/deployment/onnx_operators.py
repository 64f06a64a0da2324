"""Translations to ONNX of operators that torch's exporter lacks or translates wrongly."""

import operator
from collections.abc import Callable
from typing import Any

import torch

_MOST_INT64 = 2**63 - 1


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the ``custom_translation_table`` of ``torch.onnx.export``."""
    from onnxscript import opset18

    op: Any = opset18  # its types admit tensors only, not the constants that it takes too

    def sort_stable(
        self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
    ) -> Any:
        # Among equals ``TopK`` puts the lower index first, in both directions.
        size = op.Shape(self, start=dim, end=dim + 1 or None)
        return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)

    def at_most(a: Any, b: Any) -> Any:
        # Ranges of sizes in a traced graph may exceed the integers of ONNX.
        return op.LessOrEqual(a, min(b, _MOST_INT64) if isinstance(b, int) else b)

    return {torch.ops.aten.sort.stable: sort_stable, operator.le: at_most}


__all__ = ["translations"]
