"""Cache the frozen features of a training run, computed once per sample and view."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.errors import CheckpointError
from pyg_peft.geometry import Patches
from pyg_peft.model import PeftModel
from pyg_peft.tensor_file import read_tensors, short, write_tensors
from pyg_peft.tuners.engine.saving import base_fingerprint

_KIND = "a cache of features"
_FORMAT = 1


@dataclass(frozen=True)
class _Entry:
    """Cached tensors of one cloud; ``mask`` always has a value, ``query`` only with a bank."""

    tokens: Tensor  # [G, C]
    center: Tensor  # [G, 3]
    mask: Tensor  # [G]
    query: Tensor | None  # [C]


class FeatureCache:
    r"""Caches patch tokens, centers and the bank's query of clouds, for reuse in later epochs.

    They depend on the frozen base alone. So a method that does not train the patch embedding needs
    them once per sample and view, not once per epoch. Augmentation is limited to a fixed number of
    views: ``Augmented(..., num_views=n)`` gives items a ``view_id``.

    Call the cache with a batch and pass the result to the model by name. The values are those of
    ``PeftModel.precompute`` for the batch in which each cloud first occurred. The values of a
    cloud do not depend on the other clouds of its batch.

    Args:
        model: The model with a frozen base. The cache belongs to the base's fingerprint.
        transform: Description of the transform of the clouds, as text. Caches of different
            transforms are not mixed.

    Raises:
        ValueError: If the model's method trains the patch embedding, or a batch has no
            ``sample_id``.

    Example:
        >>> cache = FeatureCache(model, transform="1024 points, unit sphere")     # doctest: +SKIP
        >>> logits = model(sample_id=data.sample_id, **cache(data))               # doctest: +SKIP
    """

    def __init__(self, model: PeftModel, transform: str = "") -> None:
        if model.active_adapter is None:
            raise ValueError("Expected 'model' to have an active adapter (got none)")
        self.model = model
        self.identity = {
            "base": base_fingerprint(model.base, model.peft_config[model.active_adapter]),
            "transform": transform,
            "query": model.memory_bank is not None,
        }
        self.entries: dict[tuple[int, int, str], _Entry] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __call__(self, data: Data) -> dict[str, Any]:
        """Return ``patches``, ``tokens`` and, with a bank, ``query`` of a batch, by name.

        The patches hold only centers and mask, which is all that blocks use. Their members are
        needed for tokens only and are not kept.
        """
        keys = self._keys(data)
        fresh = [number for number, key in enumerate(keys) if key not in self.entries]
        if fresh:
            # The whole batch, not only its new clouds, for bits equal to an uncached forward.
            for number, entry in enumerate(self._compute(data)):
                self.entries.setdefault(keys[number], entry)
        entries = [self.entries[key] for key in keys]
        device = data.pos.device  # pyright: ignore[reportOptionalMemberAccess]
        mask = torch.stack([entry.mask for entry in entries]).to(device)
        center = torch.stack([entry.center for entry in entries]).to(device)
        empty = center.new_zeros(*center.shape[:2], 0, 3)
        no_index = torch.zeros(center.shape[:2], dtype=torch.long, device=device)
        found: dict[str, Any] = {
            "tokens": torch.stack([entry.tokens for entry in entries]).to(device),
            "patches": Patches(
                points=empty,
                center=center,
                index=no_index.unsqueeze(-1)[..., :0],
                center_index=no_index,
                mask=None if bool(mask.all()) else mask,
                features=None,
            ),
        }
        queries = [entry.query for entry in entries if entry.query is not None]
        if queries:
            found["query"] = torch.stack(queries).to(device)
        return found

    def _compute(self, data: Data) -> Iterable[_Entry]:
        frozen = self.model.precompute(
            x=data.x, pos=data.pos, batch=data.batch, batch_size=data.num_graphs
        )
        if "tokens" not in frozen:
            raise ValueError(
                "Expected a method that leaves the patch embedding frozen, to cache its tokens "
                f"(got {self.model.peft_config[self.model.active_adapter or '']})"
            )
        patches, tokens, query = frozen["patches"], frozen["tokens"], frozen.get("query")
        mask = patches.mask
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for row in range(tokens.size(0)):
            yield _Entry(
                tokens[row].cpu().clone(),
                patches.center[row].cpu().clone(),
                mask[row].cpu().clone(),
                None if query is None else query[row].cpu().clone(),
            )

    def _keys(self, data: Data) -> list[tuple[int, int, str]]:
        if data.get("sample_id") is None:
            raise ValueError("Expected 'data' to have 'sample_id' to cache by (got none)")
        samples = data.sample_id.tolist()
        views = data.view_id.tolist() if data.get("view_id") is not None else [0] * len(samples)
        # Features computed in bfloat16 and in float32 differ.
        device = data.pos.device.type  # pyright: ignore[reportOptionalMemberAccess]
        enabled = torch.is_autocast_enabled(device)
        kind = str(torch.get_autocast_dtype(device)) if enabled else "none"
        return [(sample, view, kind) for sample, view in zip(samples, views, strict=True)]

    # ---- files --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write all entries to one file, whole or not at all."""
        if not self.entries:
            raise ValueError("Expected entries to save (got an empty cache)")
        keys = list(self.entries)
        entries = [self.entries[key] for key in keys]
        tensors = {
            "tokens": torch.stack([entry.tokens for entry in entries]),
            "center": torch.stack([entry.center for entry in entries]),
            "mask": torch.stack([entry.mask for entry in entries]),
        }
        queries = [entry.query for entry in entries if entry.query is not None]
        if queries:
            tensors["query"] = torch.stack(queries)
        content = {"format": _FORMAT, "identity": self.identity, "keys": keys}
        write_tensors(path, _KIND, tensors, content)

    def load(self, path: str | Path) -> None:
        """Load the entries of a file that :meth:`save` wrote.

        Raises:
            CheckpointError: If the file is damaged, foreign, or belongs to another base or
                transform.
        """
        content, tensors = read_tensors(path, _KIND, _FORMAT)
        if content.get("identity") != self.identity:
            raise CheckpointError(
                f"Expected '{path}' to hold features of {self.identity} "
                f"(got {short(content.get('identity'))})"
            )
        keys = _check_entries(content.get("keys"), tensors, path)
        query = tensors.get("query")
        if self.identity["query"] != (query is not None):
            raise CheckpointError(
                f"Expected '{path}' to hold 'query' only if its adapter has a memory bank "
                f"(got the tensors {', '.join(tensors)})"
            )
        for row, key in enumerate(keys):
            self.entries[key] = _Entry(
                tensors["tokens"][row],
                tensors["center"][row],
                tensors["mask"][row],
                None if query is None else query[row],
            )


def _check_entries(
    keys: Any, tensors: Mapping[str, Tensor], path: str | Path
) -> list[tuple[int, int, str]]:
    """Return the keys of a file's entries, if its tensors match them and each other.

    Raises:
        CheckpointError: If a key or a tensor is missing or of another kind. The message names it.
    """
    found: list[tuple[int, int, str]] = []
    for key in keys if isinstance(keys, list) else [keys]:
        match key:
            case [int() as sample, int() as view, str() as kind]:
                found.append((sample, view, kind))
            case _:
                raise CheckpointError(
                    f"Expected 'keys' in '{path}' to be a list of [sample, view, precision] "
                    f"(got {short(key)})"
                )
    missing = [name for name in ("tokens", "center", "mask") if name not in tensors]
    if missing:
        raise CheckpointError(f"Expected '{path}' to hold {', '.join(missing)} (got none)")
    rows, tokens = len(found), tensors["tokens"]
    groups = tuple(tokens.shape[1:2])
    shapes = {
        "tokens": (rows, *groups, *tokens.shape[2:3]),
        "center": (rows, *groups, 3),
        "mask": (rows, *groups),
        "query": (rows, *tensors["query"].shape[1:2]) if "query" in tensors else (),
    }
    for name, tensor in sorted(tensors.items(), key=lambda item: item[0] != "tokens"):
        fits = name in shapes and tensor.shape == shapes[name] and tensor.dim() >= 2
        if not fits or (tensor.dtype == torch.bool) != (name == "mask"):
            raise CheckpointError(
                f"Expected '{name}' in '{path}' to be a tensor of a cache for {rows} entries "
                f"(got {list(tensor.shape)} of {tensor.dtype})"
            )
    return found


__all__ = ["FeatureCache"]
