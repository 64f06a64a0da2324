"""The device of a command, by the name that the user gives."""

import torch


def find_device(name: str) -> torch.device:
    """Return a device on which tensors can be made.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps" and so on; "auto" is a CUDA device if there is one,
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
            "Expected 'device' to be auto, cpu, cuda, mps or another device that is available "
            f"(got {name!r}: {reason})"
        ) from error
    if device.type == "meta":  # its tensors have no values
        raise ValueError(f"Expected 'device' to hold values (got {name!r})")
    return device


__all__ = ["find_device"]
