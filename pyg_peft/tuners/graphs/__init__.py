"""Shared code of methods for any PyG model: read the geometry of layers from their calls."""
