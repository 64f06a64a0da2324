"""Train with Lightning (extra ``train``): data, module, metrics, cache, and masked pre-training.

None of it is needed for your own training loop; see ``examples/train_loop.py``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pyg_peft.errors import MissingExtraError

if TYPE_CHECKING:
    from pyg_peft.datasets.preprocessing import Preprocessing
    from pyg_peft.training.data.batches import EvenBatches
    from pyg_peft.training.data.cache import FeatureCache
    from pyg_peft.training.data.sampler import KeyedSampler
    from pyg_peft.training.data.sources import Splits, open_parts, open_source, register_source
    from pyg_peft.training.data.target_sources import open_targets
    from pyg_peft.training.evaluation.cloud import score_cloud
    from pyg_peft.training.evaluation.metrics import MacroAccuracy, classification_metrics
    from pyg_peft.training.evaluation.multi_label_metrics import multi_label_metrics
    from pyg_peft.training.evaluation.regression_metrics import regression_metrics
    from pyg_peft.training.evaluation.scene import score_scene
    from pyg_peft.training.evaluation.segmentation_metrics import (
        ClassMeanIoU,
        InstanceMeanIoU,
        PointAccuracy,
        segmentation_metrics,
    )
    from pyg_peft.training.evaluation.tiles import TileLabels, label_tile
    from pyg_peft.training.fitting.data_module import ShapeDataModule
    from pyg_peft.training.fitting.options import FitOptions
    from pyg_peft.training.fitting.peft_module import PeftModule
    from pyg_peft.training.fitting.run import FitReport, fit
    from pyg_peft.training.fitting.scenes import SceneDataModule
    from pyg_peft.training.fitting.segmentation import SegmentationDataModule, SegmentationModule
    from pyg_peft.training.fitting.targets import (
        MultiLabelDataModule,
        RegressionDataModule,
        TargetDataModule,
    )
    from pyg_peft.training.fitting.tasks import register_task
    from pyg_peft.training.pretraining.corpus import Corpus, ViewOptions
    from pyg_peft.training.pretraining.corpus_sources import open_corpus
    from pyg_peft.training.pretraining.options import PretrainOptions
    from pyg_peft.training.pretraining.run import PretrainReport, pretrain
    from pyg_peft.training.runs.batch_norms import average_batch_norms
    from pyg_peft.training.runs.schedule import warmup_cosine
    from pyg_peft.training.tasks.classification import ClassificationTask, Evaluation, evaluate
    from pyg_peft.training.tasks.contract import Scored, Task
    from pyg_peft.training.tasks.multi_label import MultiLabelEvaluation, MultiLabelTask
    from pyg_peft.training.tasks.registry import list_tasks
    from pyg_peft.training.tasks.regression import RegressionEvaluation, RegressionTask
    from pyg_peft.training.tasks.scene import SceneEvaluation, SceneTask
    from pyg_peft.training.tasks.segmentation import (
        PartEvaluation,
        SegmentationTask,
        evaluate_parts,
    )

# Imported on first use: pre-training and plain loops need neither Lightning nor torchmetrics.
_HOME = {
    "MultiLabelDataModule": "fitting.targets",
    "MultiLabelEvaluation": "tasks.multi_label",
    "MultiLabelTask": "tasks.multi_label",
    "RegressionDataModule": "fitting.targets",
    "TargetDataModule": "fitting.targets",
    "RegressionEvaluation": "tasks.regression",
    "RegressionTask": "tasks.regression",
    "multi_label_metrics": "evaluation.multi_label_metrics",
    "open_targets": "data.target_sources",
    "regression_metrics": "evaluation.regression_metrics",
    "ClassificationTask": "tasks.classification",
    "SegmentationTask": "tasks.segmentation",
    "SceneDataModule": "fitting.scenes",
    "SceneEvaluation": "tasks.scene",
    "SceneTask": "tasks.scene",
    "TileLabels": "evaluation.tiles",
    "label_tile": "evaluation.tiles",
    "Scored": "tasks.contract",
    "Task": "tasks.contract",
    "list_tasks": "tasks.registry",
    "register_task": "fitting.tasks",
    "ClassMeanIoU": "evaluation.segmentation_metrics",
    "Corpus": "pretraining.corpus",
    "EvenBatches": "data.batches",
    "Evaluation": "tasks.classification",
    "FeatureCache": "data.cache",
    "FitOptions": "fitting.options",
    "FitReport": "fitting.run",
    "KeyedSampler": "data.sampler",
    "InstanceMeanIoU": "evaluation.segmentation_metrics",
    "MacroAccuracy": "evaluation.metrics",
    "PartEvaluation": "tasks.segmentation",
    "PeftModule": "fitting.peft_module",
    "Preprocessing": ".datasets.preprocessing",
    "PointAccuracy": "evaluation.segmentation_metrics",
    "PretrainOptions": "pretraining.options",
    "PretrainReport": "pretraining.run",
    "SegmentationDataModule": "fitting.segmentation",
    "SegmentationModule": "fitting.segmentation",
    "ShapeDataModule": "fitting.data_module",
    "Splits": "data.sources",
    "ViewOptions": "pretraining.corpus",
    "average_batch_norms": "runs.batch_norms",
    "classification_metrics": "evaluation.metrics",
    "evaluate": "tasks.classification",
    "evaluate_parts": "tasks.segmentation",
    "fit": "fitting.run",
    "open_corpus": "pretraining.corpus_sources",
    "open_parts": "data.sources",
    "open_source": "data.sources",
    "register_source": "data.sources",
    "pretrain": "pretraining.run",
    "score_cloud": "evaluation.cloud",
    "score_scene": "evaluation.scene",
    "segmentation_metrics": "evaluation.segmentation_metrics",
    "warmup_cosine": "runs.schedule",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'pyg_peft.training' has no attribute '{name}'")
    try:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("lightning", "torchmetrics"):
            raise
        raise MissingExtraError(error.name, "train") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))


__all__ = [
    "ClassMeanIoU",
    "ClassificationTask",
    "Corpus",
    "Evaluation",
    "EvenBatches",
    "FeatureCache",
    "FitOptions",
    "FitReport",
    "InstanceMeanIoU",
    "KeyedSampler",
    "MacroAccuracy",
    "MultiLabelDataModule",
    "MultiLabelEvaluation",
    "MultiLabelTask",
    "PartEvaluation",
    "PeftModule",
    "PointAccuracy",
    "Preprocessing",
    "PretrainOptions",
    "PretrainReport",
    "RegressionDataModule",
    "RegressionEvaluation",
    "RegressionTask",
    "SceneDataModule",
    "SceneEvaluation",
    "SceneTask",
    "Scored",
    "SegmentationDataModule",
    "SegmentationModule",
    "SegmentationTask",
    "ShapeDataModule",
    "Splits",
    "TargetDataModule",
    "Task",
    "TileLabels",
    "ViewOptions",
    "average_batch_norms",
    "classification_metrics",
    "evaluate",
    "evaluate_parts",
    "fit",
    "label_tile",
    "list_tasks",
    "multi_label_metrics",
    "open_corpus",
    "open_parts",
    "open_source",
    "open_targets",
    "pretrain",
    "register_source",
    "register_task",
    "regression_metrics",
    "score_cloud",
    "score_scene",
    "segmentation_metrics",
    "warmup_cosine",
]
