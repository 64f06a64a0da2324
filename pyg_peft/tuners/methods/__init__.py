"""The published methods: one file each, or one folder if a method needs more."""
