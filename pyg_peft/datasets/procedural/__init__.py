"""Shapes made by a program: a labelled set for demonstrations, a stream to pre-train on."""

from pyg_peft.datasets.procedural.shapes import (
    ProceduralShapes,
    ProceduralStream,
    ScanEffects,
    procedural_stream,
)

__all__ = ["ProceduralShapes", "ProceduralStream", "ScanEffects", "procedural_stream"]
