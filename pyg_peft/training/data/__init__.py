"""Prepare clouds for batches: sources, views, order, labels, cache."""
