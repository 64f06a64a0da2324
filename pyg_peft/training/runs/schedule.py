"""Learning-rate schedule: linear warm-up, then half a cosine."""

import math


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, floor: float = 0.0) -> float:
    r"""Return the factor of the base learning rate in step ``step`` (counted from 0).

    .. math::
        f(t) = \begin{cases} (t + 1) / w & t < w \\
        f_0 + (1 - f_0) \tfrac{1}{2} (1 + \cos \pi \tfrac{t - w}{T - w}) & \text{else} \end{cases}

    Args:
        step: The step, from 0. Steps past the end keep the floor.
        total_steps: Number :math:`T` of steps of the whole run.
        warmup_steps: Number :math:`w` of steps of the linear warm-up.
        floor: Last factor :math:`f_0`.

    Raises:
        ValueError: If ``total_steps`` is not positive, or ``warmup_steps`` is not in
            ``[0, total_steps]``.

    Example:
        >>> [round(warmup_cosine(t, 6, 2), 2) for t in range(7)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if total_steps < 1:
        raise ValueError(f"Expected 'total_steps' to be positive (got {total_steps})")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"Expected 'warmup_steps' to lie in [0, {total_steps}] (got {warmup_steps})"
        )
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


__all__ = ["warmup_cosine"]
