"""Folders of shapes, one folder per class."""
