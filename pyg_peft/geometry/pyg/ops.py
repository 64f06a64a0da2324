"""PyG's own neighbor functions without ``pyg-lib``, while they are enabled."""

import importlib
from collections.abc import Callable
from types import TracebackType

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.index import index2ptr

from pyg_peft.errors import check_batch, check_tensor
from pyg_peft.geometry.pyg.searches import pyg_fps, pyg_knn, pyg_nearest, pyg_radius
from pyg_peft.geometry.pyg.voxels import pyg_grid_cluster

#: Maps a flag of PyG 2.8 and later to the schema and the implementation of the operator.
_OPERATORS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "WITH_KNN": (
        "knn(Tensor x, Tensor y, Tensor? ptr_x=None, Tensor? ptr_y=None, int k=1, "
        "bool cosine=False, int num_workers=1) -> Tensor",
        pyg_knn,
    ),
    "WITH_RADIUS": (
        "radius(Tensor x, Tensor y, Tensor? ptr_x=None, Tensor? ptr_y=None, float r=1.0, "
        "int max_num_neighbors=32, int num_workers=1, bool ignore_same_index=False) -> Tensor",
        pyg_radius,
    ),
    "WITH_NEAREST": (
        "nearest(Tensor x, Tensor y, Tensor? ptr_x=None, Tensor? ptr_y=None) -> Tensor",
        pyg_nearest,
    ),
    "WITH_FPS": (
        "fps(Tensor src, Tensor ptr, float ratio=0.5, bool random_start=True) -> Tensor",
        pyg_fps,
    ),
    "WITH_GRID_CLUSTER": (
        "grid_cluster(Tensor pos, Tensor size, Tensor? start=None, Tensor? end=None) -> Tensor",
        pyg_grid_cluster,
    ),
}

#: Modules of PyG 2.8 that convert a ``batch`` to offsets, which hide whether it was sorted.
_BORDER_MODULES = (
    "torch_geometric.nn.pool",
    "torch_geometric.nn.conv.edge_conv",
    "torch_geometric.nn.conv.gravnet_conv",
    "torch_geometric.nn.conv.x_conv",
)

#: Modules of PyG 2.6 and 2.7 that hold a function of ``torch_cluster``, and its name.
_LEGACY_NAMES = {
    "torch_geometric.nn.conv.edge_conv": "knn",
    "torch_geometric.nn.conv.gravnet_conv": "knn",
    "torch_geometric.nn.conv.x_conv": "knn_graph",
    "torch_geometric.nn.pool.voxel_grid": "grid_cluster",
}


class PygOps:
    """Handle returned by :func:`enable_pyg_ops`: a context manager with a ``disable`` method."""

    @property
    def enabled(self) -> bool:
        """Whether this handle still keeps the functions enabled."""
        return self in _holders

    def disable(self) -> None:
        """Restore PyG, unless another handle still keeps the functions enabled."""
        if self.enabled:
            _holders.remove(self)
            if not _holders:
                _restore()

    def __enter__(self) -> "PygOps":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disable()


#: Handles that keep the functions enabled, and the calls that restore PyG, in reverse order.
_holders: list[PygOps] = []
_undo: list[Callable[[], object]] = []


def enable_pyg_ops() -> PygOps:
    """Make PyG's own neighbor functions work without its compiled libraries.

    This enables ``knn``, ``knn_graph``, ``radius``, ``radius_graph``, ``nearest``, ``fps``,
    ``knn_interpolate`` and ``voxel_grid`` of ``torch_geometric.nn``, and everything that calls
    them: ``DynamicEdgeConv``, ``XConv``, ``GravNetConv``, ``transforms.KNNGraph``,
    ``transforms.RadiusGraph``, ``transforms.GridSampling``. Importing pyg_peft alone changes
    nothing. Functions that were imported before this call work too. Functions that an installed
    ``pyg-lib`` (or, for PyG 2.6 and 2.7, ``torch_cluster``) provides are not replaced.

    PyG 2.8 looks up operators in the namespace ``pyg`` and flags; both are registered. PyG 2.6 and
    2.7 call ``torch_cluster``, which is replaced inside PyG.

    A ``batch`` that is not sorted raises an error. Worker processes that are not forked start
    without the functions: pass :func:`pyg_ops_worker_init` to their loader.

    Returns:
        A context manager that restores PyG at the end of a ``with`` block or when ``disable()`` is
        called. Without either, the functions stay enabled.

    Differences:
        To the compiled libraries: neighbors are sorted nearest first and ties go to the lower row,
        but if rows search each other, a row precedes other rows that are equal to it; an unsorted
        ``batch`` raises; a radius search with too many neighbors keeps the nearest; ``cosine``
        works on the CPU; NaN raises; a random start follows ``torch.manual_seed``; a grid with too
        many cells to number raises.

    Example:
        >>> from torch_geometric.nn import knn_graph
        >>> with enable_pyg_ops():
        ...     knn_graph(torch.tensor([[0.0], [1.0], [5.0]]), k=1)
        tensor([[1, 0, 1],
                [0, 1, 2]])
    """
    if not _holders:
        try:
            if hasattr(torch_geometric.typing, "WITH_KNN"):
                _enable_operators()
            else:
                _enable_stand_in()
        except BaseException:
            _restore()
            raise
    _holders.append(PygOps())
    return _holders[-1]


def pyg_ops_enabled() -> bool:
    """Return whether :func:`enable_pyg_ops` is in effect in this process.

    Example:
        >>> with enable_pyg_ops():
        ...     pyg_ops_enabled()
        True
    """
    return bool(_holders)


def pyg_ops_worker_init(worker_id: int = 0) -> None:
    """Enable PyG's functions in a worker process, as ``worker_init_fn`` of a ``DataLoader``.

    Workers that are spawned or started by a fork server import everything anew and do not inherit
    :func:`enable_pyg_ops`. This applies to Windows and macOS, and to loaders with
    ``multiprocessing_context="spawn"``. In forked workers the call does no harm.

    Args:
        worker_id: Number of the worker, which is not used.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(range(4), num_workers=2, worker_init_fn=pyg_ops_worker_init)
    """
    enable_pyg_ops()


def _enable_operators() -> None:
    missing = [flag for flag in _OPERATORS if not getattr(torch_geometric.typing, flag)]
    if not missing:
        return
    library = torch.library.Library("pyg", "FRAGMENT")
    _undo.append(library._destroy)
    for flag in missing:
        schema, function = _OPERATORS[flag]
        name = library.define(schema)
        library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"pyg::{name}", _FAKES[name], lib=library)
        _set(torch_geometric.typing, flag, True)
    for module in _BORDER_MODULES:
        _set(importlib.import_module(module), "index2ptr", _borders_of_sorted)
    _set(importlib.import_module("torch_geometric.nn.pool"), "_batch_to_ptr", _borders_if_any)


def _borders_of_sorted(batch: Tensor, size: int | None = None) -> Tensor:
    """Return PyG's offsets of a ``batch``, which must be sorted."""
    check_tensor(batch, "batch", shape=("N",), kind="int")
    check_batch(batch, batch.numel(), size)
    # PyG's conversion reads the memory of the ids without checking strides.
    return index2ptr(batch.long().contiguous(), size)


def _borders_if_any(batch: Tensor | None, batch_size: int | None = None) -> Tensor | None:
    """Replace PyG's ``_batch_to_ptr``, which reads the largest id before anything is checked."""
    return None if batch is None else _borders_of_sorted(batch, batch_size)


def _enable_stand_in() -> None:
    if torch_geometric.typing.WITH_TORCH_CLUSTER:  # pyright: ignore[reportAttributeAccessIssue]
        return
    from pyg_peft.geometry.pyg import legacy

    _set(torch_geometric.typing, "torch_cluster", legacy)
    _set(torch_geometric.typing, "WITH_TORCH_CLUSTER_BATCH_SIZE", True)
    _set(importlib.import_module("torch_geometric.nn.pool"), "torch_cluster", legacy)
    for module, name in _LEGACY_NAMES.items():
        _set(importlib.import_module(module), name, getattr(legacy, name))


def _set(owner: object, name: str, value: object) -> None:
    before = getattr(owner, name)
    _undo.append(lambda: setattr(owner, name, before))
    setattr(owner, name, value)


def _restore() -> None:
    while _undo:
        _undo.pop()()


def _fake_edges(x: Tensor, y: Tensor, *args: object) -> Tensor:
    """Return the shape of a search result for the compiler, with an unknown number of edges."""
    check_tensor(x, "x")  # "meta" tensors arrive here too, and have no neighbors
    check_tensor(y, "y")
    return y.new_empty(2, torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


def _fake_nearest(x: Tensor, *args: object) -> Tensor:
    check_tensor(x, "x")
    return x.new_empty(x.size(0), dtype=torch.long)


def _fake_fps(src: Tensor, *args: object) -> Tensor:
    check_tensor(src, "src")
    return src.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


_FAKES: dict[str, Callable[..., Tensor]] = {
    "knn": _fake_edges,
    "radius": _fake_edges,
    "nearest": _fake_nearest,
    "fps": _fake_fps,
    "grid_cluster": _fake_nearest,
}

__all__ = ["PygOps", "enable_pyg_ops", "pyg_ops_enabled", "pyg_ops_worker_init"]
