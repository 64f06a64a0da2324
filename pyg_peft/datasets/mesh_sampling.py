"""Sample points on a triangle mesh, uniformly by area."""

from collections.abc import Mapping

import numpy as np
import torch

from pyg_peft.datasets.formats.raw_points import RawPoints


def sample_mesh(mesh: RawPoints, num_points: int, generator: torch.Generator) -> RawPoints:
    """Sample points from the faces of a mesh.

    Args:
        mesh: Vertices and faces.
        num_points: Number of points.
        generator: Source of the random numbers.

    Returns:
        A cloud. ``normal`` is that of the face. Categorical channels are those of the nearest
        corner of the face; others are interpolated between its corners.

    Raises:
        ValueError: If the faces have no area.
    """
    if mesh.faces is None:
        raise ValueError("Expected 'mesh' to have faces (got a cloud)")
    corners = mesh.pos[mesh.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    total = np.cumsum(area)
    if len(total) == 0 or not total[-1] > 0 or not np.isfinite(total[-1]):
        raise ValueError("the faces of the mesh have no area")
    draw = torch.rand(3, num_points, generator=generator, dtype=torch.float64).numpy()
    # Divided by its last entry, the sum ends at exactly 1, above every number drawn.
    face = np.searchsorted(total / total[-1], draw[0], side="right")
    root = np.sqrt(draw[1])
    weight = np.stack([1 - root, root * (1 - draw[2]), root * draw[2]], axis=1)
    pos = np.einsum("nc,ncd->nd", weight, corners[face])
    distance = np.linalg.norm(corners[face] - pos[:, None], axis=2)
    nearest = mesh.faces[face, distance.argmin(axis=1)]
    channels: dict[str, np.ndarray] = {}
    for name, values in _vertex_channels(mesh.channels).items():
        if name in mesh.categorical:
            channels[name] = values[nearest]
            continue
        mixed = np.einsum("nc,ncd->nd", weight, values[mesh.faces[face]])
        channels[name] = mixed.astype(np.float32)
    channels["normal"] = (cross[face] / area[face, None]).astype(np.float32)
    return RawPoints(pos, channels, None, mesh.categorical)


def vertices_of(mesh: RawPoints, *, merge: bool) -> RawPoints:
    """Return the vertices of a mesh as a cloud, in their order, with all their channels.

    Args:
        mesh: Vertices and faces.
        merge: Keep only one of equal vertices (.stl files repeat them for each triangle).
    """
    if not merge:
        return RawPoints(mesh.pos, mesh.channels, None, mesh.categorical)
    first = np.sort(np.unique(mesh.pos, axis=0, return_index=True)[1])
    kept = {name: values[first] for name, values in mesh.channels.items()}
    return RawPoints(mesh.pos[first], kept, None, mesh.categorical)


def _vertex_channels(channels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for name, values in channels.items() if name != "normal"}


__all__ = ["sample_mesh", "vertices_of"]
