"""Masked pre-training on unlabeled clouds."""
