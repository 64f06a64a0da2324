"""Measure the peak memory of a piece of work in this process."""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch


class Peak:
    """Result of :func:`peak_memory`.

    Attributes:
        mebibytes: Peak above the level before, in MiB; ``None`` where it cannot be measured.
    """

    mebibytes: float | None = None


@contextmanager
def peak_memory(device: torch.device) -> Generator[Peak]:
    """Measure the peak memory above the level before, of the device or, on a CPU, of the process.

    The memory of a process can be measured on Linux only.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.mebibytes = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    level = _forget_peak()
    yield peak
    highest = resident("VmHWM")
    if level is not None and highest is not None:
        peak.mebibytes = highest - level


def _forget_peak() -> float | None:
    """Return freed memory to the system, reset the peak, and return the current level in MiB."""
    try:
        # What was freed and kept would be used again without a trace.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):
        return None
    return resident("VmRSS")


def resident(key: str) -> float | None:
    """Return ``VmRSS`` or its peak ``VmHWM`` in MiB, as Linux counts them; otherwise ``None``."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)


__all__ = ["Peak", "peak_memory", "resident"]
