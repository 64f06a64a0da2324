"""Scores of a trained model: classification, segmentation, scenes, probes."""
