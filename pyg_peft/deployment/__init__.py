"""Deployment: merge an adapter into its base, and export models to files without Python code."""

from pyg_peft.deployment.export import FORMATS, export_model
from pyg_peft.deployment.graph import ServedModel
from pyg_peft.deployment.merged import load_merged, save_merged

__all__ = ["FORMATS", "ServedModel", "export_model", "load_merged", "save_merged"]
