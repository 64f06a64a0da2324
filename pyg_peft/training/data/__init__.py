"""Clouds on their way to a batch: sources, views, order, labels, cache."""
