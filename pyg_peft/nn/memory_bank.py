"""Memory bank: frozen features of a training set that new clouds retrieve from."""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_peft.errors import CheckpointError, check_count, check_tensor, described
from pyg_peft.nn.attention import parameter_free_attention
from pyg_peft.nn.bank_features import Adapted, collect_features
from pyg_peft.nn.bank_file import read_bank, write_bank
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.symmetries import Symmetries
from pyg_peft.tensor_file import check_values, fingerprint

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_TENSORS = ("keys", "values", "labels", "sample_id")


@Symmetries(
    permutation="equivariant",
    of="the queries",
    depends_on=("x",),
    independent="rows",
    note="The order of the bank's rows does not matter, except among exactly equal scores.",
)
class MemoryBank(nn.Module):
    r"""Retrieves the training samples that are most similar to a cloud, after `"Point-PEFT:
    Parameter-Efficient Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        \mathbf{Z}_b = \big[\, \mathbf{q}_b, \;
        \textstyle\sum_{t} a_{bt} \mathbf{v}_{r_t}, \; \mathbf{v}_{r_1}, \ldots, \mathbf{v}_{r_k}
        \,\big]

    The rows :math:`r_1 \ldots r_k` are the ``top_k`` rows whose keys have the largest product with
    the query at length one, best first, the lower row among equals. The weights :math:`a_{bt}` are
    the softmax of these products over the ``top_k``, as in
    :func:`~pyg_peft.nn.parameter_free_attention`. :math:`\mathbf{v}` are ``values``;
    :math:`\mathbf{q}_b` is returned unchanged, at its own length. All tensors are buffers; nothing
    is trained.

    A bank must contain training samples only. During training, pass ``sample_id`` so that a sample
    does not retrieve itself.

    Args:
        keys: One row per training sample, used as given (:meth:`from_loader` normalizes them).
        values: Value of each row; ``None`` means the keys.
        labels: Class of each row, for :meth:`balanced`.
        sample_id: Id of each row, strictly increasing.
        source: Module of a model that the rows come from, if the model is not a token backbone.
            Queries are computed in the same way.

    Shapes:
        - **input:** query ``[B, C]``, sample_id ``[B]`` or ``None``
        - **output:** ``[B, 2 + top_k, C]``

    Symmetries:

    Raises:
        ValueError: If tensors have unequal lengths, contain NaN or an infinite number, or ids are
            not strictly increasing; if a query has another width or is not finite; if ``top_k``
            exceeds the bank; or if ``sample_id`` is passed to a bank without ids.
        TypeError: If an argument is not a tensor or an integer as required, labels or ids are not
            integers, or tensors are sparse or without values.
        CheckpointError: If a file is damaged, truncated, or not a memory bank.

    Differences:
        The authors keep one row per training sample of every class and let a training sample
        retrieve itself, which a test sample never can. Here rows can be balanced by class, and a
        sample does not retrieve itself. Among equal scores, keys and values are chosen by the lower
        row.

    Example:
        >>> bank = MemoryBank(torch.eye(4), sample_id=torch.arange(4))
        >>> prior = bank(torch.eye(4)[:2], top_k=2, sample_id=torch.tensor([0, 1]))
        >>> prior.shape
        torch.Size([2, 4, 4])
    """

    keys: Tensor
    labels: Tensor | None
    sample_id: Tensor | None
    _values: Tensor | None

    def __init__(
        self,
        keys: Float[Tensor, "R C"],
        values: Float[Tensor, "R C"] | None = None,
        *,
        labels: Int[Tensor, " R"] | None = None,
        sample_id: Int[Tensor, " R"] | None = None,
        source: CloudRows | None = None,
    ) -> None:
        _check(keys, values, labels, sample_id)
        super().__init__()
        self.register_buffer("keys", keys.detach())
        self.register_buffer("_values", None if values is None else values.detach())
        self.register_buffer("labels", labels)
        # Contiguous, as it is searched in each forward.
        self.register_buffer("sample_id", None if sample_id is None else sample_id.contiguous())
        self.source = source

    @classmethod
    def from_loader(
        cls,
        backbone: nn.Module,
        loader: Iterable[Any],
        *,
        module: str | None = None,
        pool: str | None = "max",
        call: Callable[[Any, Any], Any] | None = None,
        per_class: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Create a bank from the features of a training set that ``backbone`` computes.

        The backbone runs in eval mode, on its own device, and the mode of every module is restored.
        The adapters of a ``PeftModel`` are disabled. Rows are sorted by ``sample_id``, so a loader
        that shuffles creates the same bank. Keys are the features at length one, values the
        features.

        Args:
            backbone: Backbone with ``make_patches`` and ``forward_query``, or any model if
                ``module`` is given.
            loader: Iterable of PyG batches with ``pos``, ``sample_id``, and ``x`` and ``y`` if
                known.
            module: Path of the module whose output is used, or a glob that matches one module. It
                must return a row per point, ``(x, pos, batch)``, or a row per cloud.
            pool: Pooling of rows to one per cloud: ``"max"``, ``"mean"``, or ``None`` if
                the module returns one row per cloud.
            call: Function that runs the model of a ``module`` on a batch, ``call(model, data)``. By
                default, the model is called with the attributes of the batch that are its
                parameters or, if it has neither ``pos`` nor ``x``, with the batch.
            per_class: Maximum number of rows to keep of each class; ``None`` keeps all.
            generator: Random generator that selects the rows to keep; ``None`` keeps those with the
                lowest ``sample_id``.
        """
        resting = contextlib.nullcontext()
        if isinstance(backbone, Adapted):
            backbone, resting = backbone.base, backbone.disable_adapter()
        source = None if module is None else CloudRows.find(backbone, module, pool)
        with resting:
            values, labels, sample_id = collect_features(backbone, loader, source, call)
        keys = F.normalize(values, dim=-1)
        bank = cls(keys, values, labels=labels, sample_id=sample_id, source=source)
        return bank if per_class is None else bank.balanced(per_class, generator=generator)

    def balanced(self, per_class: int, *, generator: torch.Generator | None = None) -> Self:
        """Return a bank with at most ``per_class`` rows of each class.

        Args:
            per_class: Maximum number of rows to keep of each class.
            generator: Random generator that selects the rows; ``None`` keeps the first rows of each
                class.
        """
        per_class = min(check_count(per_class, "per_class"), len(self))
        if self.labels is None:
            raise ValueError("Expected 'labels' to balance classes by (got None)")
        labels = self.labels
        order = torch.arange(len(self), device=labels.device)
        if generator is not None:
            if not isinstance(generator, torch.Generator):
                raise TypeError(
                    f"Expected 'generator' to be a torch.Generator (got {described(generator)})"
                )
            order = torch.randperm(len(self), generator=generator, device=generator.device)
            order = order.to(labels.device)
        order = order[labels[order].argsort(stable=True)]  # grouped by class
        _, count = labels[order].unique_consecutive(return_counts=True)
        first = (count.cumsum(0) - count).repeat_interleave(count)
        rank = torch.arange(len(self), device=labels.device) - first  # place within the class
        keep = order[rank < per_class].sort().values
        return type(self)(
            self.keys[keep],
            None if self._values is None else self._values[keep],
            labels=labels[keep],
            sample_id=None if self.sample_id is None else self.sample_id[keep],
            source=self.source,
        )

    @property
    def values(self) -> Tensor:
        """Values of the rows."""
        return self.keys if self._values is None else self._values

    @property
    def channels(self) -> int:
        """Width of a row."""
        return self.keys.size(1)

    @property
    def hash(self) -> str:
        """SHA-256 of the names, shapes, dtypes and bytes of the current tensors, and the source."""
        source = self.source
        return fingerprint(self._tensors(), f"{source.module} {source.pool}" if source else "")

    def __len__(self) -> int:
        return self.keys.size(0)

    def forward(
        self,
        query: Float[Tensor, "B C"],
        top_k: int,
        sample_id: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B P C"]:
        """Return the query, the weighted sum of its ``top_k`` rows, and these rows, best first.

        A row with the ``sample_id`` of the query's cloud is not retrieved. Ids that the bank does
        not contain exclude nothing.
        """
        check_tensor(query, "query", shape=("B", self.channels), kind="float")
        exclude = None
        if sample_id is not None:
            check_tensor(sample_id, "sample_id", shape=query.shape[:1], kind="int")
            exclude = self._rows_of(sample_id)
        out, _, index = parameter_free_attention(
            query, self.keys, self.values, top_k, exclude=exclude
        )
        neighbors = self.values[index].to(query.dtype)  # [B, top_k, C]
        return torch.cat([query.unsqueeze(1), out.unsqueeze(1), neighbors], dim=1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank to a ``.safetensors`` file, completely or not at all."""
        write_bank(Path(path), self._tensors(), None if self.source is None else vars(self.source))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a bank that :meth:`save` wrote, and verify all of its bytes."""
        tensors, source = read_bank(Path(path), _TENSORS)
        try:
            keys = tensors.pop("keys")
            return cls(keys, **tensors, source=None if source is None else CloudRows(**source))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"Expected '{path}' to hold a memory bank ({error})") from error

    def extra_repr(self) -> str:
        of = "" if self.source is None else f", module={self.source.module!r}"
        return f"{len(self)}, {self.channels}{of}"

    def _tensors(self) -> dict[str, Tensor]:
        held = (self.keys, self._values, self.labels, self.sample_id)
        return {n: t for n, t in zip(_TENSORS, held, strict=True) if t is not None}

    def _rows_of(self, sample_id: Tensor) -> Tensor:
        """Return the row of each id, ``-1`` for ids that the bank does not contain."""
        if self.sample_id is None:
            raise ValueError("Expected the bank to have 'sample_id', to exclude samples (got None)")
        row = torch.searchsorted(self.sample_id, sample_id.to(self.sample_id.dtype).contiguous())
        row = row.clamp(max=len(self) - 1)
        return torch.where(self.sample_id[row] == sample_id, row, -1)


def _check(
    keys: Tensor, values: Tensor | None, labels: Tensor | None, sample_id: Tensor | None
) -> None:
    for name, tensor in zip(_TENSORS, (keys, values, labels, sample_id), strict=True):
        if (name == "keys" or tensor is not None) and not isinstance(tensor, Tensor):
            check_tensor(tensor, name)
    if keys.dim() != 2 or keys.size(0) == 0 or not keys.is_floating_point():
        raise ValueError(
            "Expected 'keys' to be a floating-point [R, C] tensor with at least one row "
            f"(got {list(keys.shape)} of {keys.dtype})"
        )
    if values is not None:
        _check_rows(values, keys)
    for name, tensor in (("labels", labels), ("sample_id", sample_id)):
        if tensor is not None:
            _check_column(name, tensor, keys.size(0))
    for name, tensor in zip(_TENSORS, (keys, values, labels, sample_id), strict=True):
        if tensor is not None:
            _check_content(name, tensor)
    if sample_id is not None and bool((sample_id[1:] <= sample_id[:-1]).any()):
        raise ValueError("Expected 'sample_id' to be strictly increasing (got a step back)")


def _check_content(name: str, tensor: Tensor) -> None:
    check_values(name, tensor)
    if tensor.is_floating_point():
        check_tensor(tensor, name, kind="float")  # nothing is computed with 8-bit types


def _check_rows(values: Tensor, keys: Tensor) -> None:
    if values.shape != keys.shape:
        raise ValueError(
            f"Expected 'values' to be of shape {list(keys.shape)} (got {list(values.shape)})"
        )
    if not values.is_floating_point():
        raise TypeError(f"Expected 'values' to be floating point (got {values.dtype})")


def _check_column(name: str, tensor: Tensor, rows: int) -> None:
    if tensor.shape != (rows,):
        raise ValueError(f"Expected '{name}' to be of shape [{rows}] (got {list(tensor.shape)})")
    if tensor.dtype not in _INTEGERS:
        raise TypeError(f"Expected '{name}' to be an integer tensor (got {tensor.dtype})")


__all__ = ["MemoryBank"]
