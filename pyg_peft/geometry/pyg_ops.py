"""PyG's own neighbor functions without ``pyg-lib``, for as long as they are enabled."""

import importlib
from collections.abc import Callable
from types import TracebackType

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.index import index2ptr

from pyg_peft.errors import check_batch, check_tensor
from pyg_peft.geometry.pyg_searches import pyg_fps, pyg_knn, pyg_nearest, pyg_radius

#: PyG's flag to the operator's schema and implementation, in PyG 2.8 and later.
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
}

#: Where PyG 2.8 turns a ``batch`` into borders, which show no more whether it was sorted.
_BORDER_MODULES = (
    "torch_geometric.nn.pool",
    "torch_geometric.nn.conv.edge_conv",
    "torch_geometric.nn.conv.gravnet_conv",
    "torch_geometric.nn.conv.x_conv",
)

#: Where PyG 2.6 and 2.7 keep a name of ``torch_cluster``, and which.
_LEGACY_NAMES = {
    "torch_geometric.nn.conv.edge_conv": "knn",
    "torch_geometric.nn.conv.gravnet_conv": "knn",
    "torch_geometric.nn.conv.x_conv": "knn_graph",
}


class PygOps:
    """What :func:`enable_pyg_ops` returns: a context manager, and a switch to take it all back."""

    @property
    def enabled(self) -> bool:
        """Whether this one still keeps the functions enabled."""
        return self in _holders

    def disable(self) -> None:
        """Restore PyG as it was, unless another one still keeps the functions enabled."""
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


#: Who keeps the functions enabled, and what to call, last first, to restore PyG.
_holders: list[PygOps] = []
_undo: list[Callable[[], object]] = []


def enable_pyg_ops() -> PygOps:
    """Make PyG's own neighbor functions work without its compiled libraries.

    ``knn``, ``knn_graph``, ``radius``, ``radius_graph``, ``nearest``, ``fps`` and
    ``knn_interpolate`` of ``torch_geometric.nn``, and what calls them: ``DynamicEdgeConv``,
    ``XConv``, ``GravNetConv``, ``transforms.KNNGraph``, ``transforms.RadiusGraph``. Nothing happens
    on import; names that were imported before work too. What an installed ``pyg-lib`` (or, for PyG
    2.6 and 2.7, ``torch_cluster``) offers is left alone.

    PyG 2.8 looks up operators of the name ``pyg`` and flags: both are registered. PyG 2.6 and 2.7
    call ``torch_cluster``: a stand-in takes its place inside PyG.

    A ``batch`` that is not sorted is refused. Worker processes that are not forked begin without
    the functions: give their loader :func:`pyg_ops_worker_init`.

    Returns:
        A context manager that restores PyG at the end of a ``with`` block, or when ``disable()`` is
        called. Without either the functions stay enabled.

    Differences:
        To the compiled libraries: neighbors come nearest first and ties go to the lower row, but
        a row that looks among its like comes before those that equal it; an unsorted ``batch``
        raises; a radius search that finds too many keeps the nearest; ``cosine`` works on the CPU;
        NaN raises; a random start follows ``torch.manual_seed``.

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
    """Enable PyG's functions in a worker process: a ``worker_init_fn`` for a ``DataLoader``.

    Workers that are spawned or come from a fork server import everything anew, and so do not
    inherit :func:`enable_pyg_ops`: those of Windows and macOS, and of a loader with
    ``multiprocessing_context="spawn"``. In forked workers it does no harm.

    Args:
        worker_id: number of the worker; any will do.

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
    """Return PyG's borders of a ``batch`` that is sorted."""
    check_tensor(batch, "batch", shape=("N",), kind="int")
    check_batch(batch, batch.numel(), size)
    # PyG's conversion reads the memory of the ids without a look at their strides.
    return index2ptr(batch.long().contiguous(), size)


def _borders_if_any(batch: Tensor | None, batch_size: int | None = None) -> Tensor | None:
    """Do as PyG's ``_batch_to_ptr``, which looks for the largest id before anything is checked."""
    return None if batch is None else _borders_of_sorted(batch, batch_size)


def _enable_stand_in() -> None:
    if torch_geometric.typing.WITH_TORCH_CLUSTER:  # pyright: ignore[reportAttributeAccessIssue]
        return
    from pyg_peft.geometry import pyg_legacy

    _set(torch_geometric.typing, "torch_cluster", pyg_legacy)
    _set(torch_geometric.typing, "WITH_TORCH_CLUSTER_BATCH_SIZE", True)
    _set(importlib.import_module("torch_geometric.nn.pool"), "torch_cluster", pyg_legacy)
    for module, name in _LEGACY_NAMES.items():
        _set(importlib.import_module(module), name, getattr(pyg_legacy, name))


def _set(owner: object, name: str, value: object) -> None:
    before = getattr(owner, name)
    _undo.append(lambda: setattr(owner, name, before))
    setattr(owner, name, value)


def _restore() -> None:
    while _undo:
        _undo.pop()()


def _fake_edges(x: Tensor, y: Tensor, *args: object) -> Tensor:
    """Shape of a search's result for the compiler: as many edges as there turn out to be."""
    check_tensor(x, "x")  # one on the device "meta" comes here too, and has no neighbors
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
}

__all__ = ["PygOps", "enable_pyg_ops", "pyg_ops_enabled", "pyg_ops_worker_init"]
