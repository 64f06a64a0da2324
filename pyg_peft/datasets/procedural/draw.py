"""Random numbers for one procedural shape, the same on every machine and in any order of access."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Draw random numbers from a stream keyed by integers.

    NumPy guarantees that both the hash of the key and the random bits stay stable. Only uniform
    floats are drawn, because NumPy may change its other distributions.

    Args:
        *key: Non-negative integers such as seed, split and index.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def array(self, *shape: int) -> np.ndarray:
        """Return uniform numbers in [0, 1)."""
        return self._generator.random(shape)

    def uniform(self, low: float, high: float) -> float:
        """Return one uniform number in [low, high)."""
        return low + (high - low) * self._generator.random()

    def log_uniform(self, low: float, high: float) -> float:
        """Return one number in [low, high) whose logarithm is uniform."""
        return low * (high / low) ** self._generator.random()

    def integer(self, low: int, high: int) -> int:
        """Return one of the integers low, ..., high (inclusive)."""
        return low + int((high - low + 1) * self._generator.random())

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[int(len(choices) * self._generator.random())]

    def chance(self, probability: float) -> bool:
        """Return ``True`` with this probability."""
        return bool(self._generator.random() < probability)

    def direction(self) -> np.ndarray:
        """Return a point on the unit sphere, uniform by area."""
        z = self.uniform(-1.0, 1.0)
        angle = self.uniform(0.0, 2 * math.pi)
        ring = math.sqrt(1 - z * z)
        return np.array([ring * math.cos(angle), ring * math.sin(angle), z])

    def rotation(self) -> np.ndarray:
        """Return a uniform random rotation matrix, from a random unit quaternion."""
        u, v, w = self.array(3)
        a, b = math.sqrt(1 - u), math.sqrt(u)
        x, y = a * math.sin(2 * math.pi * v), a * math.cos(2 * math.pi * v)
        z, s = b * math.sin(2 * math.pi * w), b * math.cos(2 * math.pi * w)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * s), 2 * (x * z + y * s)],
                [2 * (x * y + z * s), 1 - 2 * (x * x + z * z), 2 * (y * z - x * s)],
                [2 * (x * z - y * s), 2 * (y * z + x * s), 1 - 2 * (x * x + y * y)],
            ]
        )


__all__ = ["Draw"]
