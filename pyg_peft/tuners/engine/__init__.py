"""How methods are fastened to a model, switched, saved and loaded: none is known by name."""
