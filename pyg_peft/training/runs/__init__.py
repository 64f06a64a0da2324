"""Shared code of training and pre-training: checkpoint files, resuming, schedules."""
