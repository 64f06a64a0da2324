"""Which library searches: what is installed, what is chosen, and how to choose by hand.

Every backend returns the same neighbours (:mod:`pyg_peft.geometry.ordering` sees to it), so the
choice is one of speed alone.
"""

import importlib
import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

#: Name of a backend to the package that it needs, to what it can do.
_BACKENDS: dict[str, tuple[str, frozenset[str]]] = {
    "dense": ("torch", frozenset({"knn", "fps"})),
    "scipy": ("scipy", frozenset({"knn"})),
    "nanoflann": ("pynanoflann", frozenset({"knn"})),
    "fpsample": ("fpsample", frozenset({"fps"})),
    "torch_cluster": ("torch_cluster", frozenset({"knn", "fps"})),
    "pyg_lib": ("pyg_lib", frozenset({"knn", "fps"})),
}

#: A tree prunes nothing in more dimensions than these (features, in PyG's own operators).
TREE_DIMENSIONS = 8

# Read outside compiled graphs only: a graph always takes the dense backend, because a context
# variable would break it.
_forced: ContextVar[str | None] = ContextVar("pyg_peft_geometry_backend", default=None)


def available_backends(task: str | None = None) -> tuple[str, ...]:
    """Return the names of the installed backends, for ``task`` ``"knn"`` or ``"fps"``, or for any.

    Example:
        >>> {"dense", "scipy"} <= set(available_backends("knn"))
        True
    """
    if task not in (None, "knn", "fps"):
        raise ValueError(f"Expected 'task' to be 'knn', 'fps' or None (got {task!r})")
    return tuple(
        name
        for name, (package, tasks) in _BACKENDS.items()
        if (task is None or task in tasks) and _is_installed(package)
    )


@lru_cache
def _is_installed(package: str) -> bool:
    if importlib.util.find_spec(package) is None:
        return False
    # Up to 0.5, pyg-lib has no searches.
    return package != "pyg_lib" or hasattr(importlib.import_module(package).ops, "knn")


@contextmanager
def use_backend(name: str) -> Generator[None]:
    """Force a backend for the calls inside a ``with`` block, in this thread.

    A backend that has no part in a task (``"scipy"`` in sampling, ``"fpsample"`` in neighbour
    search) leaves that task's own choice as it is. Graphs under ``torch.compile`` and
    ``torch.export`` take ``"dense"`` whatever is forced.

    Args:
        name: one of :func:`available_backends`.

    Raises:
        ValueError: if ``name`` is not the name of a backend.
        ImportError: if its package is not installed.

    Example:
        >>> with use_backend("dense"):
        ...     chosen_backend("knn", torch.zeros(1, 3))
        'dense'
    """
    if not isinstance(name, str) or name not in _BACKENDS:
        raise ValueError(f"Expected 'name' to be one of {sorted(_BACKENDS)} (got {name!r})")
    if name not in available_backends():
        package = _BACKENDS[name][0]
        raise ImportError(
            f"Expected '{package}' to be installed for the backend '{name}' (got none)"
        )
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def chosen_backend(task: str, pos: Tensor, *, radius: float | None = None) -> str:
    """Return the backend that ``task`` (``"knn"`` or ``"fps"``) takes for ``pos`` right now.

    A search within a ``radius`` goes to SciPy, whose trees prune by it, and so does one on several
    threads, which nanoflann's would not use.
    """
    if torch.compiler.is_compiling():
        return "dense"
    forced = _forced.get()
    if forced is not None and task in _BACKENDS[forced][1]:
        return forced
    if pos.device.type != "cpu":
        return "dense"
    if task == "knn":
        if pos.size(1) > TREE_DIMENSIONS:
            return "dense"
        alone = radius is None and torch.get_num_threads() == 1
        return "nanoflann" if alone and "nanoflann" in available_backends("knn") else "scipy"
    # fpsample computes in float32 and would blur the order of float64 positions.
    single = pos.dtype == torch.float32
    return "fpsample" if single and "fpsample" in available_backends("fps") else "dense"


__all__ = ["TREE_DIMENSIONS", "available_backends", "chosen_backend", "use_backend"]
