"""Geometric functions of point positions, without trainable parameters."""

from pyg_peft.geometry.chamfer import (
    chamfer_distance,
    chamfer_distance_l1,
    nearest_squared_distances,
)
from pyg_peft.geometry.edge_structure import (
    BipartiteStructure,
    bipartite_structure,
    edge_structure,
)
from pyg_peft.geometry.grid import GridSample, grid_sample
from pyg_peft.geometry.interpolation import interpolate, interpolation_weights
from pyg_peft.geometry.layout import counts, offsets, to_dense, to_flat
from pyg_peft.geometry.patches import Patches, build_patches
from pyg_peft.geometry.pyg.ops import (
    PygOps,
    enable_pyg_ops,
    pyg_ops_enabled,
    pyg_ops_worker_init,
)
from pyg_peft.geometry.scene import scene_columns
from pyg_peft.geometry.search.backends import available_backends, use_backend
from pyg_peft.geometry.search.neighbors import ball_query, knn, knn_graph
from pyg_peft.geometry.search.sampling import authors_convention, farthest_point_sample
from pyg_peft.geometry.structure import Structure
from pyg_peft.geometry.structure_search import build_structure

__all__ = [
    "BipartiteStructure",
    "GridSample",
    "Patches",
    "PygOps",
    "Structure",
    "authors_convention",
    "available_backends",
    "ball_query",
    "bipartite_structure",
    "build_patches",
    "build_structure",
    "chamfer_distance",
    "chamfer_distance_l1",
    "counts",
    "edge_structure",
    "enable_pyg_ops",
    "farthest_point_sample",
    "grid_sample",
    "interpolate",
    "interpolation_weights",
    "knn",
    "knn_graph",
    "nearest_squared_distances",
    "offsets",
    "pyg_ops_enabled",
    "pyg_ops_worker_init",
    "scene_columns",
    "to_dense",
    "to_flat",
    "use_backend",
]
