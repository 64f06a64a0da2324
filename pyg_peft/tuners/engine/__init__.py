"""Attach methods to a model, switch, save and load them; nothing here depends on one method."""
