"""Sets of clouds in one ``.npz`` file."""
