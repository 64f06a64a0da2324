"""Selection of the library that searches neighbors or samples points.

All backends return the same neighbors, because :mod:`pyg_peft.geometry.ordering` sorts their
results. The choice affects speed only.
"""

import importlib
import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

#: Maps a backend to the package that it needs and to the tasks that it supports.
_BACKENDS: dict[str, tuple[str, frozenset[str]]] = {
    "dense": ("torch", frozenset({"knn", "fps"})),
    "scipy": ("scipy", frozenset({"knn"})),
    "nanoflann": ("pynanoflann", frozenset({"knn"})),
    "fpsample": ("fpsample", frozenset({"fps"})),
    "torch_cluster": ("torch_cluster", frozenset({"knn", "fps"})),
    "pyg_lib": ("pyg_lib", frozenset({"knn", "fps"})),
}

#: Trees prune nothing in more dimensions than this. PyG's own operators also search features.
TREE_DIMENSIONS = 8

# Not read in compiled graphs, where a context variable would cause a graph break. Compiled graphs
# always use the dense backend.
_forced: ContextVar[str | None] = ContextVar("pyg_peft_geometry_backend", default=None)


def available_backends(task: str | None = None) -> tuple[str, ...]:
    """Return the names of the installed backends.

    Args:
        task: ``"knn"`` or ``"fps"`` to list only the backends that support this task; ``None`` to
            list all.

    Raises:
        ValueError: If ``task`` is something else.

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
    # pyg-lib has no neighbor search up to version 0.5.
    return package != "pyg_lib" or hasattr(importlib.import_module(package).ops, "knn")


@contextmanager
def use_backend(name: str) -> Generator[None]:
    """Force a backend for all calls inside a ``with`` block, in the current thread.

    Tasks that the backend does not support (sampling for ``"scipy"``, neighbor search for
    ``"fpsample"``) keep their default backend. Graphs under ``torch.compile`` and ``torch.export``
    always use ``"dense"``.

    Args:
        name: One of :func:`available_backends`.

    Raises:
        ValueError: If ``name`` is not the name of a backend.
        ImportError: If the package of the backend is not installed.

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
    """Return the backend that ``task`` (``"knn"`` or ``"fps"``) currently uses for ``pos``.

    Searches within a ``radius`` use SciPy, whose trees prune by the radius. Searches on several
    threads use SciPy too, because the nanoflann backend is single-threaded.
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
    # fpsample computes in float32, which could change the order of float64 positions.
    single = pos.dtype == torch.float32
    return "fpsample" if single and "fpsample" in available_backends("fps") else "dense"


__all__ = ["TREE_DIMENSIONS", "available_backends", "chosen_backend", "use_backend"]
