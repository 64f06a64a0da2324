"""What training and pre-training share: checkpoint files, resuming, schedules."""
