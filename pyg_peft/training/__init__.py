"""Training on Lightning (extra ``train``): data, module, metrics, cache, and masked pre-training.

Users may ignore all of it for a loop of their own; ``examples/train_loop.py`` is one.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pyg_peft.errors import MissingExtraError

if TYPE_CHECKING:
    from pyg_peft.training.batches import EvenBatches
    from pyg_peft.training.cache import FeatureCache
    from pyg_peft.training.corpus import Corpus, ViewOptions
    from pyg_peft.training.corpus_sources import open_corpus
    from pyg_peft.training.data import ShapeDataModule
    from pyg_peft.training.metrics import MacroAccuracy, classification_metrics
    from pyg_peft.training.module import PeftModule
    from pyg_peft.training.preprocessing import Preprocessing
    from pyg_peft.training.pretrain import PretrainReport, pretrain
    from pyg_peft.training.pretrain_options import PretrainOptions
    from pyg_peft.training.sampler import KeyedSampler
    from pyg_peft.training.scene import score_scene
    from pyg_peft.training.schedule import warmup_cosine
    from pyg_peft.training.segmentation import SegmentationDataModule, SegmentationModule
    from pyg_peft.training.segmentation_evaluation import PartEvaluation, evaluate_parts
    from pyg_peft.training.segmentation_metrics import (
        ClassMeanIoU,
        InstanceMeanIoU,
        PointAccuracy,
        segmentation_metrics,
    )
    from pyg_peft.training.sources import Splits, open_parts, open_source

# Loaded on use: pre-training and plain loops need neither Lightning nor torchmetrics.
_HOME = {
    "ClassMeanIoU": "segmentation_metrics",
    "Corpus": "corpus",
    "EvenBatches": "batches",
    "FeatureCache": "cache",
    "KeyedSampler": "sampler",
    "InstanceMeanIoU": "segmentation_metrics",
    "MacroAccuracy": "metrics",
    "PartEvaluation": "segmentation_evaluation",
    "PeftModule": "module",
    "Preprocessing": "preprocessing",
    "PointAccuracy": "segmentation_metrics",
    "PretrainOptions": "pretrain_options",
    "PretrainReport": "pretrain",
    "SegmentationDataModule": "segmentation",
    "SegmentationModule": "segmentation",
    "ShapeDataModule": "data",
    "Splits": "sources",
    "ViewOptions": "corpus",
    "classification_metrics": "metrics",
    "evaluate_parts": "segmentation_evaluation",
    "open_corpus": "corpus_sources",
    "open_parts": "sources",
    "open_source": "sources",
    "pretrain": "pretrain",
    "score_scene": "scene",
    "segmentation_metrics": "segmentation_metrics",
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
    "ClassMeanIoU",
    "Corpus",
    "EvenBatches",
    "FeatureCache",
    "InstanceMeanIoU",
    "KeyedSampler",
    "MacroAccuracy",
    "PartEvaluation",
    "PeftModule",
    "PointAccuracy",
    "Preprocessing",
    "PretrainOptions",
    "PretrainReport",
    "SegmentationDataModule",
    "SegmentationModule",
    "ShapeDataModule",
    "Splits",
    "ViewOptions",
    "classification_metrics",
    "evaluate_parts",
    "open_corpus",
    "open_parts",
    "open_source",
    "pretrain",
    "score_scene",
    "segmentation_metrics",
    "warmup_cosine",
]
