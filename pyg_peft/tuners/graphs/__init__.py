"""What methods on any PyG model share: geometry of its layers, read from their calls."""
