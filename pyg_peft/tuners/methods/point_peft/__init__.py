"""Point-PEFT: Point-prior Prompt and Geometry-aware Adapter, on tokens or on any PyG model."""
