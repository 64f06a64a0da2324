"""Frozen features of clouds that many rows see: computed by the first, read by the others."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyg_peft.model import PeftModel
from pyg_peft.training.data.cache import FeatureCache

STAGES = ("train", "val", "test")
_OF_A_METHOD = {"method", "settings", "bank", "epochs", "lr"}


class SharedFeatures:
    """Caches of one row's clouds, kept in files below ``folder`` for rows on the same clouds.

    Args:
        model: whose frozen part the features come from.
        config: of the row; all of it but the method decides which clouds and views there are.
        folder: of files, one for each stage and kind of clouds.
    """

    def __init__(self, model: PeftModel, config: Mapping[str, Any], folder: Path) -> None:
        clouds = {key: value for key, value in config.items() if key not in _OF_A_METHOD}
        text = json.dumps(clouds, sort_keys=True)
        self.caches = {stage: FeatureCache(model, f"{stage}: {text}") for stage in STAGES}
        self._paths = {stage: folder / _name(cache) for stage, cache in self.caches.items()}
        self.found: dict[str, int] = {}  # clouds of each stage that other rows had left
        for stage, path in self._paths.items():
            if path.exists():
                self.caches[stage].load(path)
            self.found[stage] = len(self.caches[stage])

    def save(self) -> None:
        """Write the files that have got entries."""
        for stage, cache in self.caches.items():
            if len(cache) > self.found[stage]:
                cache.save(self._paths[stage])


def _name(cache: FeatureCache) -> str:
    text = json.dumps(cache.identity, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"
