"""Evaluate a trained model: classification, segmentation, scenes, probes."""
