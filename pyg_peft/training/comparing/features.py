"""Frozen features of clouds that many runs see: computed by the first, read by the others."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch_geometric.data import Batch, Data

from pyg_peft.model import PeftModel
from pyg_peft.storage import write_atomic
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.fitting.data_module import ShapeDataModule

STAGES = ("train", "val", "test")


class SharedFeatures:
    """Caches of the clouds of one run, kept in files for other runs on the same clouds.

    Args:
        model: Model whose frozen part computes the features.
        clouds: Everything that decides which clouds and views there are, as JSON-able values.
        folder: Folder of the files, one for each stage and kind of clouds.

    Attributes:
        caches: The cache of each stage, for ``fit``.
        found: Number of clouds and views of each stage that other runs had computed.
    """

    def __init__(self, model: PeftModel, clouds: Mapping[str, Any], folder: Path) -> None:
        text = json.dumps(clouds, sort_keys=True)
        self.caches = {stage: _TimedCache(model, f"{stage}: {text}") for stage in STAGES}
        self._paths = {stage: folder / _name(cache) for stage, cache in self.caches.items()}
        self.found: dict[str, int] = {}
        for stage, path in self._paths.items():
            if path.exists():
                self.caches[stage].load(path)
                self.caches[stage].spared = _read_seconds(path)
            self.found[stage] = len(self.caches[stage])

    @property
    def spared_seconds(self) -> float:
        """The time that it took other runs to compute the features that were found."""
        return sum(cache.spared for cache in self.caches.values())

    def save(self) -> None:
        """Write the files that have new entries."""
        for stage, cache in self.caches.items():
            if len(cache) > self.found[stage]:
                path = self._paths[stage]
                cache.save(path)
                text = json.dumps(cache.spared + cache.seconds)
                write_atomic(_seconds_file(path), lambda file, text=text: file.write_text(text))


class _TimedCache(FeatureCache):
    """A cache that measures the time of its computations."""

    def __init__(self, model: PeftModel, transform: str) -> None:
        super().__init__(model, transform)
        self.seconds = 0.0
        self.spared = 0.0

    def _compute(self, data: Data) -> Iterable[Any]:
        begun = time.perf_counter()
        found = list(super()._compute(data))
        self.seconds += time.perf_counter() - begun
        return found


def can_cache(model: PeftModel, data: ShapeDataModule) -> bool:
    """Return whether the method leaves the patch embedding alone, so its tokens can be kept."""
    if not hasattr(model.base, "make_patches"):
        return False  # the library keeps tokens, not features of points
    some: Any = data.val_set[0]
    batch: Any = Batch.from_data_list([some])
    return "tokens" in model.precompute(pos=batch.pos, batch=batch.batch)


def _name(cache: FeatureCache) -> str:
    text = json.dumps(cache.identity, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"


def _seconds_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_seconds(path: Path) -> float:
    try:
        return float(json.loads(_seconds_file(path).read_text()))
    except (OSError, ValueError, TypeError):
        return 0.0  # killed between both files: the time is not known


__all__ = ["SharedFeatures", "can_cache"]
