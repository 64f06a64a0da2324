"""PyG's own operators without its compiled packages."""
