"""Random generators that depend on a key only, not on the order of calls.

A training run that is interrupted, resumed, or spread over more workers must draw the same numbers
as an uninterrupted one. Nothing in this module therefore keeps a state: a key such as
``(seed, epoch, sample_id)`` is hashed into the seed of a new generator.
"""

import hashlib
import operator
import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

Key = int | str


def keyed_seed(*key: Key) -> int:
    """Hash a key of integers and strings into a 63-bit seed that is the same on every machine.

    Args:
        *key: Integers (also NumPy's) and strings. Their order matters.

    Raises:
        TypeError: If the key holds anything else.

    Example:
        >>> from pyg_peft.datasets import keyed_seed
        >>> keyed_seed(0, "view", 7) == keyed_seed(0, "view", 7)
        True
        >>> keyed_seed(0, 1) == keyed_seed(1, 0)
        False
    """
    parts = [repr(part) if isinstance(part, str) else str(_integer(part)) for part in key]
    digest = hashlib.blake2b("|".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _integer(part: Key) -> int:
    try:
        return operator.index(part)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"Expected 'key' to hold integers and strings (got {part!r})") from None


def keyed_generator(*key: Key) -> torch.Generator:
    """Return a new CPU ``torch.Generator`` for this key.

    Args:
        *key: See :func:`keyed_seed`.

    Example:
        >>> import torch
        >>> from pyg_peft.datasets import keyed_generator
        >>> draw = torch.rand(2, generator=keyed_generator(0, 5))
        >>> torch.equal(draw, torch.rand(2, generator=keyed_generator(0, 5)))
        True
    """
    return torch.Generator().manual_seed(keyed_seed(*key))


@contextmanager
def keyed_globals(*key: Key) -> Generator[None, None, None]:
    """Seed the global generators of torch (CPU), NumPy and Python within the context only.

    Use it for transforms that take no generator, such as PyG's own. The previous states are
    restored at the end, so that the caller's random numbers do not change.

    Args:
        *key: See :func:`keyed_seed`.
    """
    seed = keyed_seed(*key)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    # torch.manual_seed would also seed every accelerator, whose state is not restored.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


__all__ = ["Key", "keyed_generator", "keyed_globals", "keyed_seed"]
