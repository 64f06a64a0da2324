"""One published method: one file, or one folder where it needs more."""
