"""Strategies of the public names, a module for each room."""
