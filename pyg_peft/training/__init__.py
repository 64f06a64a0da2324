"""Training on Lightning (extra ``train``): data, module, metrics, cache, and masked pre-training.

Users may ignore all of it for a loop of their own; ``examples/train_loop.py`` is one.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pyg_peft.errors import MissingExtraError

if TYPE_CHECKING:
    from pyg_peft.training.cache import FeatureCache
    from pyg_peft.training.corpus import Corpus, ViewOptions, open_corpus
    from pyg_peft.training.data import ShapeDataModule
    from pyg_peft.training.metrics import MacroAccuracy, classification_metrics
    from pyg_peft.training.module import PeftModule
    from pyg_peft.training.preprocessing import Preprocessing
    from pyg_peft.training.pretrain import PretrainOptions, PretrainReport, pretrain
    from pyg_peft.training.sampler import KeyedSampler
    from pyg_peft.training.schedule import warmup_cosine
    from pyg_peft.training.sources import Splits, open_source

# Loaded on use: pre-training and plain loops need neither Lightning nor torchmetrics.
_HOME = {
    "Corpus": "corpus",
    "FeatureCache": "cache",
    "KeyedSampler": "sampler",
    "MacroAccuracy": "metrics",
    "PeftModule": "module",
    "Preprocessing": "preprocessing",
    "PretrainOptions": "pretrain",
    "PretrainReport": "pretrain",
    "ShapeDataModule": "data",
    "Splits": "sources",
    "ViewOptions": "corpus",
    "classification_metrics": "metrics",
    "open_corpus": "corpus",
    "open_source": "sources",
    "pretrain": "pretrain",
    "warmup_cosine": "schedule",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'pyg_peft.training' has no attribute '{name}'")
    try:
        value = getattr(import_module(f"pyg_peft.training.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("lightning", "torchmetrics"):
            raise
        raise MissingExtraError(error.name, "train") from error
    globals()[name] = value
    return value


__all__ = [
    "Corpus",
    "FeatureCache",
    "KeyedSampler",
    "MacroAccuracy",
    "PeftModule",
    "Preprocessing",
    "PretrainOptions",
    "PretrainReport",
    "ShapeDataModule",
    "Splits",
    "ViewOptions",
    "classification_metrics",
    "open_corpus",
    "open_source",
    "pretrain",
    "warmup_cosine",
]
