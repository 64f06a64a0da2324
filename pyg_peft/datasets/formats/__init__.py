"""Parsers, one module per family of file formats. Each reads a path into ``RawPoints``."""

from pyg_peft.datasets.formats.raw_points import RawPoints

__all__ = ["RawPoints"]
