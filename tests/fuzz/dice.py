"""Draws within one case, in the words of ``hypothesis.strategies``.

Hypothesis draws the seed of each case (always the same ones in CI) and runs the case; everything in
it is drawn here, from that seed. A draw of Hypothesis's own costs twenty times as much, and a case
has twenty: 200 cases of a hundred names would take minutes for the drawing alone. What is lost is
shrinking, which cases of a dozen points hardly need, and which would run a hanging case again and
again.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Strategy = Callable[[Random], T]
#: Called with a strategy, gives a value.
Draw = Callable[[Strategy[Any]], Any]


def integers(low: int, high: int) -> Strategy[int]:
    """Between both, which are drawn more often than what lies between."""
    return lambda r: r.choice((low, high)) if r.random() < 0.2 else r.randint(low, high)


def booleans() -> Strategy[bool]:
    return lambda r: r.random() < 0.5


def sampled_from(values: Sequence[T]) -> Strategy[T]:
    return lambda r: r.choice(values)


def tuples(*strategies: Strategy[Any]) -> Strategy[tuple[Any, ...]]:
    return lambda r: tuple(strategy(r) for strategy in strategies)


def lists(strategy: Strategy[T], min_size: int = 0, max_size: int = 10) -> Strategy[list[T]]:
    return lambda r: [strategy(r) for _ in range(integers(min_size, max_size)(r))]


def permutations(values: Sequence[T]) -> Strategy[list[T]]:
    return lambda r: r.sample(list(values), len(values))


def binary(max_size: int) -> Strategy[bytes]:
    return lambda r: r.randbytes(integers(0, max_size)(r))


def draws(seed: int) -> Draw:
    """What is drawn for one seed."""
    random = Random(seed)
    return lambda strategy: strategy(random)


__all__ = [
    "Draw",
    "Strategy",
    "binary",
    "booleans",
    "draws",
    "integers",
    "lists",
    "permutations",
    "sampled_from",
    "tuples",
]
