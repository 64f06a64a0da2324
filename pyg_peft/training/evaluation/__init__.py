"""Metrics, scores of scenes, and probes of frozen features."""
