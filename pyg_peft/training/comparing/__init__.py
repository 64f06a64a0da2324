"""Compare methods fairly: draws of the data, shared frozen features, memory, and statistics."""
