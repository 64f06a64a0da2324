"""Tiles of scenes with a label per point, such as airborne laser scans."""
