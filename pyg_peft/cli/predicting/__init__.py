"""The parts of ``pyg-peft predict``: its input files, its results, and labels of points."""
