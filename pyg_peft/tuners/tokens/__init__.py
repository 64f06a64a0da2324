"""Shared code of methods for token backbones."""
