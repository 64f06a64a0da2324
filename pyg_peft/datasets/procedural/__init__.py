"""Procedural shapes: a labeled set for demonstrations and a stream for pre-training."""

from pyg_peft.datasets.procedural.shapes import (
    ProceduralShapes,
    ProceduralStream,
    ScanEffects,
    procedural_stream,
)

__all__ = ["ProceduralShapes", "ProceduralStream", "ScanEffects", "procedural_stream"]
