"""Parsers, one module a family of file formats; each turns a path into ``RawPoints``."""

from pyg_peft.datasets.formats.raw_points import RawPoints

__all__ = ["RawPoints"]
