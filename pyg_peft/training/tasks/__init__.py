"""What can be learned from labels: the contract of a task, and four tasks."""
