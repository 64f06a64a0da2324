"""The former place of ``evaluate_parts``: use ``from pyg_peft.training import evaluate_parts``."""

import warnings

from pyg_peft.training.tasks.segmentation import PartEvaluation, evaluate_parts

warnings.warn(
    "pyg_peft.training.segmentation_evaluation is deprecated: import evaluate_parts and "
    "PartEvaluation from pyg_peft.training",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["PartEvaluation", "evaluate_parts"]
