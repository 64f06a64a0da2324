"""Find the device that a command runs on."""

from typing import Any

import torch


def find_device(name: str) -> torch.device:
    """Return a device on which tensors can be made.

    Args:
        name: "cpu", "cuda", "cuda:1" and so on; "auto" is a CUDA device if there is one,
            otherwise the CPU.

    Raises:
        ValueError: If torch has no device of this name, or it is not available.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # A build of torch without a device raises errors of several types.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"Expected 'device' to be 'auto' or a device that is there (got {name!r}: {reason})"
        ) from error
    if device.type not in ("cpu", "cuda"):  # other devices are untested, and MPS has no float64
        raise ValueError(f"Expected 'device' to be a CPU or a CUDA device (got {name!r})")
    return device


def trainer_device(name: str) -> dict[str, Any]:
    """Return the arguments of Lightning's trainer for a device; none for ``"auto"``.

    Raises:
        ValueError: See :func:`find_device`.
    """
    if name == "auto":
        return {}
    device = find_device(name)
    if device.type == "cpu":
        return {"accelerator": "cpu"}
    return {"accelerator": "gpu", "devices": 1 if device.index is None else [device.index]}


__all__ = ["find_device", "trainer_device"]
