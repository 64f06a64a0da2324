"""Frozen features of a training set, to be looked up by those of a new cloud."""

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
from pyg_peft.tensor_file import check_values, fingerprint

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_TENSORS = ("keys", "values", "labels", "sample_id")


class MemoryBank(nn.Module):
    r"""Looks up the training samples that are most like a cloud, after `"Point-PEFT:
    Parameter-Efficient Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        \mathbf{Z}_b = \big[\, \mathbf{q}_b, \;
        \textstyle\sum_{t} a_{bt} \mathbf{v}_{r_t}, \; \mathbf{v}_{r_1}, \ldots, \mathbf{v}_{r_k}
        \,\big]

    The rows :math:`r_1 \ldots r_k` are the ``top_k`` whose keys have the largest product with the
    query at length one, best first, the lower row among equals; the weights :math:`a_{bt}` are the
    softmax of these products over the ``top_k``, as in
    :func:`~pyg_peft.nn.parameter_free_attention`. :math:`\mathbf{v}` are ``values``;
    :math:`\mathbf{q}_b` is returned as it came, at its own length. All tensors are buffers; nothing
    is trained.

    A bank belongs to training samples only. While training, hand in ``sample_id``: a sample then
    does not retrieve itself.

    Args:
        keys: one row per training sample; taken as they are (:meth:`from_loader` normalises them).
        values: what a row contributes; ``None`` means the keys.
        labels: class of each row, for :meth:`balanced`.
        sample_id: identity of each row, strictly increasing.
        source: the module of a model that the rows come from, if it is no token backbone; a query
            is made the same way.

    Shapes:
        - **input:** query ``[B, C]``, sample_id ``[B]`` or ``None``
        - **output:** ``[B, 2 + top_k, C]``

    Symmetries:
        Clouds do not see each other. The order of the bank's rows does not matter, except among
        exactly equal scores.

    Raises:
        ValueError: tensors of unequal length; NaN or an infinite number; ids that are not strictly
            increasing; a query of another width or not finite; ``top_k`` beyond the bank;
            ``sample_id`` for a bank without ids.
        TypeError: what is no tensor, or no integer; labels or ids that are no integers; tensors
            that are sparse or without values.
        CheckpointError: a file that is damaged, cut short, or no bank.

    Differences:
        The authors keep one row per training sample of every class and let a training sample find
        itself, which a test sample never can; here rows can be balanced by class and a sample is
        kept from itself. Keys and values of equal scores are chosen by the lower row.

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
        self.register_buffer("sample_id", sample_id)
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
        """Fill a bank with the features that ``backbone`` gives a training set.

        The backbone runs in eval mode, on its own device, and every module's mode is restored; the
        adapters of a ``PeftModel`` rest. Rows are sorted by ``sample_id``, so a loader that
        shuffles fills the same bank. Keys are the features at length one, values the features.

        Args:
            backbone: offers ``make_patches`` and ``forward_query``, or is any model that a
                ``module`` is named of.
            loader: yields PyG batches with ``pos``, ``sample_id``, and ``x`` and ``y`` if known.
            module: path of the module whose output is taken, or a glob that matches one; it returns
                a row per point, ``(x, pos, batch)``, or a row per cloud.
            pool: how rows become one a cloud: ``"max"``, ``"mean"``, or ``None`` if they are.
            call: runs the model of a ``module`` on a batch, ``call(model, data)``; by default with
                what the batch has of its parameters or, without ``pos`` and ``x``, on the batch.
            per_class: keep at most that many rows of each class; ``None`` keeps all.
            generator: draws the rows that are kept; ``None`` keeps those of lowest ``sample_id``.
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

        ``generator`` draws the rows; without one the first rows of each class are kept.
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
        """What the rows contribute."""
        return self.keys if self._values is None else self._values

    @property
    def channels(self) -> int:
        """Width of a row."""
        return self.keys.size(1)

    @property
    def hash(self) -> str:
        """SHA-256 of names, shapes, types and bytes of what the bank holds now, and its source."""
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
        """Return the query, the weighted sum of its ``top_k`` rows, and those rows, best first.

        A row whose id is that of the query's cloud is not retrieved. An id that the bank does not
        hold excludes nothing.
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
        """Write the bank to a ``.safetensors`` file: the whole file or nothing."""
        write_bank(Path(path), self._tensors(), None if self.source is None else vars(self.source))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a bank that :meth:`save` wrote, and check every byte of it."""
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
        """Return the row of each id, ``-1`` where the bank has none."""
        if self.sample_id is None:
            raise ValueError("Expected a bank with 'sample_id' to leave samples out (got None)")
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
    if values is not None and values.shape != keys.shape:
        raise ValueError(
            f"Expected 'values' to be of shape {list(keys.shape)} (got {list(values.shape)})"
        )
    if values is not None and not values.is_floating_point():
        raise TypeError(f"Expected 'values' to be floating point (got {values.dtype})")
    for name, tensor in (("labels", labels), ("sample_id", sample_id)):
        if tensor is not None and tensor.shape != keys.shape[:1]:
            raise ValueError(
                f"Expected '{name}' to be of shape [{keys.size(0)}] (got {list(tensor.shape)})"
            )
        if tensor is not None and tensor.dtype not in _INTEGERS:
            raise TypeError(f"Expected '{name}' to be an integer tensor (got {tensor.dtype})")
    for name, tensor in zip(_TENSORS, (keys, values, labels, sample_id), strict=True):
        if tensor is not None:
            check_values(name, tensor)
    if sample_id is not None and bool((sample_id[1:] <= sample_id[:-1]).any()):
        raise ValueError("Expected 'sample_id' to be strictly increasing (got a step back)")


__all__ = ["MemoryBank"]
