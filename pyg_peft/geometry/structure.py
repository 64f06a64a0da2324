"""Structure: the neighborhoods that layers need, built once from positions and shared."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_peft.errors import check_count, check_index, check_tensor
from pyg_peft.geometry.interpolation import sort_by_receiver
from pyg_peft.geometry.parts import Parts, parts_of_like_size


@dataclass(frozen=True)
class Structure:
    """Centers, the edges from members to centers, and the edges from centers back to points.

    Everything that layers share is computed and checked once, here. A layer only gathers and
    reduces.

    Args:
        center_index: Rows of ``x`` that act as centers ``[S]``.
        edge_index: Edges from members to centers ``[2, E]``, sorted by row 1. Row 0 holds rows of
            ``x``, row 1 the number of a center, 0 to ``S - 1``.
        interp_index: Edges from centers to points ``[2, E']``. Row 0 holds the number of a center,
            row 1 a row of ``x``. Stored sorted by row 1.
        interp_weight: Weights of the edges from centers to points ``[E']``, which sum to one per
            receiving row.
        degree: Number of members of a center if it is the same for all, so that layers can reshape
            instead of pad.
        interp_degree: Number of centers of a receiving row if it is the same for all.
        max_degree: Upper bound on the number of members of a center; counted by default.
        num_rows: Number of rows of ``x``; by default up to the last one that receives. Further rows
            receive nothing.

    Attributes:
        interp_ptr: Offsets of the edges that each row receives ``[num_rows + 1]``, for
            :func:`~pyg_peft.geometry.interpolate`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``edge_index`` is not sorted by center, refers to a row below zero or a
            center that does not exist, or contradicts ``degree`` or ``max_degree``; if
            ``interp_index`` refers to a row beyond ``num_rows``; or if ``interp_weight`` does not
            have one element per edge. The number of rows of ``x`` is not known here: a layer
            compares it with :attr:`last_row`. While a graph is compiled, values are not checked,
            and ``max_degree`` (or ``degree``) and ``num_rows`` must be given.

    Example:
        >>> from pyg_peft.geometry import build_structure
        >>> structure = build_structure(torch.eye(3), k=2, num_centers=1)
        >>> structure.edge_index.shape, structure.degree, structure.interp_degree
        (torch.Size([2, 2]), 2, 1)
        >>> structure.interp_ptr
        tensor([0, 1, 2, 3])
    """

    center_index: Tensor
    edge_index: Tensor
    interp_index: Tensor
    interp_weight: Tensor
    degree: int | None = None
    interp_degree: int | None = None
    max_degree: int | None = None
    num_rows: int | None = None
    interp_ptr: Tensor = field(init=False)

    def __post_init__(self) -> None:
        num_rows = self._check_indices()
        # Indices of types other than int64 may be interpreted as a mask.
        for name in ("center_index", "edge_index", "interp_index"):
            object.__setattr__(self, name, getattr(self, name).long())
        interp_index = self.interp_index
        if interp_index.size(1) != self.interp_weight.numel():
            raise ValueError(
                f"Expected 'interp_weight' to have {interp_index.size(1)} elements, one for each "
                f"edge (got {self.interp_weight.numel()})"
            )
        max_degree = _checked_degree(
            self.edge_index[1], self.center_index.numel(), self.degree, self.max_degree
        )
        if num_rows is None:
            _refuse_compiling("num_rows")
            num_rows = _last_row(interp_index) + 1
        elif not torch.compiler.is_compiling() and _last_row(interp_index) >= num_rows:
            raise ValueError(
                f"Expected 'interp_index' to name rows below {num_rows} "
                f"(got {_last_row(interp_index)})"
            )
        index, weight, ptr = sort_by_receiver(interp_index, self.interp_weight, num_rows)
        object.__setattr__(self, "interp_index", index)
        object.__setattr__(self, "interp_weight", weight)
        object.__setattr__(self, "interp_ptr", ptr)
        object.__setattr__(self, "max_degree", max_degree)
        object.__setattr__(self, "num_rows", num_rows)

    def _check_indices(self) -> int | None:
        """Check what can be checked without ``x``; return ``num_rows``."""
        device = check_tensor(self.center_index, "center_index").device
        center = check_index(self.center_index, "center_index", None, shape=("S",))
        for name in ("edge_index", "interp_index"):
            check_tensor(getattr(self, name), name, shape=(2, "E"), kind="int", device=device)
        check_index(self.edge_index[0], "edge_index[0]", None)
        check_index(self.interp_index[0], "interp_index[0]", center.numel(), of="centers")
        check_index(self.interp_index[1], "interp_index[1]", None)
        weight = self.interp_weight
        check_tensor(weight, "interp_weight", shape=("E",), kind="float", device=device)
        for name in ("degree", "interp_degree", "max_degree", "num_rows"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, least=0)
        return self.num_rows

    @cached_property
    def last_row(self) -> int:
        """The largest row of ``x`` that is a center or a member, -1 if there is none."""
        rows = [index.amax() for index in (self.center_index, self.edge_index[0]) if index.numel()]
        return int(torch.stack(rows).amax()) if rows else -1

    @cached_property
    def parts(self) -> Parts:
        """Centers grouped by number of members, for layers that pad; computed on first access."""
        # The cached value must also work in training if inference computed it first.
        with torch.inference_mode(False):
            return parts_of_like_size(self.edge_index[1], self.center_index.numel())

    def to_rows(self, rows: Tensor, num_rows: int | None = None) -> "Structure":
        """Return the structure of another array, in which node ``n`` is row ``rows[n]``.

        For example the tokens of a backbone, with prompts and a summary token between clouds.

        Args:
            rows: Rows of the other array ``[N]``.
            num_rows: Number of rows of the other array. Required while a graph is compiled.
        """
        rows = check_index(rows, "rows", num_rows, shape=("N",))
        if not torch.compiler.is_compiling():
            needed = max(self.last_row, _last_row(self.interp_index)) + 1
            if rows.numel() < needed:
                raise ValueError(
                    f"Expected 'rows' to have at least {needed} elements (got {rows.numel()})"
                )
        return replace(
            self,
            center_index=rows[self.center_index],
            edge_index=torch.stack([rows[self.edge_index[0]], self.edge_index[1]]),
            interp_index=torch.stack([self.interp_index[0], rows[self.interp_index[1]]]),
            num_rows=num_rows,
        )

    def to(self, device: torch.device | str) -> "Structure":
        """Return a copy on another device."""
        return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), self)


_NAMES = [field.name for field in fields(Structure)]


def _flatten(structure: Structure) -> tuple[list[Any], None]:
    return [getattr(structure, name) for name in _NAMES], None


def _flatten_with_keys(structure: Structure) -> tuple[list[tuple[Any, Any]], None]:
    return [(pytree.GetAttrKey(name), getattr(structure, name)) for name in _NAMES], None


def _unflatten(values: Iterable[Any], context: None) -> Structure:
    """Restore a structure without checking or sorting it again."""
    structure = object.__new__(Structure)
    for name, value in zip(_NAMES, values, strict=True):
        object.__setattr__(structure, name, value)
    return structure


# Registered so that structures work in exported graphs and with the hooks of sharded training.
pytree.register_pytree_node(
    Structure,
    _flatten,
    _unflatten,
    serialized_type_name="pyg_peft.geometry.Structure",
    flatten_with_keys_fn=_flatten_with_keys,
)


def _checked_degree(
    center: Tensor, num_centers: int, degree: int | None, max_degree: int | None
) -> int:
    """Check the centers of edges; return an upper bound on the number of members of a center."""
    if degree is not None and center.numel() != num_centers * degree:
        raise ValueError(
            f"Expected 'edge_index' to have {degree} edges at each of {num_centers} centers "
            f"(got {center.numel()} edges in all)"
        )
    if torch.compiler.is_compiling():
        if degree is None and max_degree is None:
            _refuse_compiling("max_degree")
        return cast(int, max_degree if degree is None else degree)
    if bool((center[1:] < center[:-1]).any()):
        raise ValueError("Expected 'edge_index' to be sorted by center (got another order)")
    if center.numel() > 0 and not 0 <= int(center[0]) <= int(center[-1]) < num_centers:
        raise ValueError(
            f"Expected 'edge_index' to name centers in [0, {num_centers}) "
            f"(got {int(center[0])} to {int(center[-1])})"
        )
    count = center.bincount(minlength=num_centers)
    most = int(count.max()) if num_centers > 0 else 0
    if degree is not None and bool((count != degree).any()):
        raise ValueError(
            f"Expected 'edge_index' to have {degree} edges at each center (got {most} at one)"
        )
    if max_degree is not None and most > max_degree:
        raise ValueError(
            f"Expected 'edge_index' to have at most {max_degree} edges at each center (got {most})"
        )
    return most if max_degree is None else max_degree


def _last_row(interp_index: Tensor) -> int:
    return int(interp_index[1].max()) if interp_index.numel() > 0 else -1


def _refuse_compiling(name: str) -> None:
    if torch.compiler.is_compiling():
        raise ValueError(f"Expected '{name}' to be given while a graph is compiled (got None)")


__all__ = ["Structure"]
