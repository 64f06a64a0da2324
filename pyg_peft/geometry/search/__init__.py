"""Find neighbors and sample points, by the fastest package that is installed."""
