"""The parts of ``pyg-peft compare``: what is compared, the work of a process, and the tables."""
