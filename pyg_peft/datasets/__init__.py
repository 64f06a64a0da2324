"""Data sets of point clouds, readers and writers of files, splits, and transforms of single clouds.

Items are PyG ``Data`` with ``pos`` float32 ``[n, 3]``, and ``y`` and ``sample_id`` long ``[1]``.
They have ``x`` float32 ``[n, C]`` if there are features. Clouds may differ in size. Data sets have
``labels``, ``class_names`` and ``num_classes``.
"""

from pyg_peft.datasets.augmented import Augmented
from pyg_peft.datasets.few_shot import Episode, FewShotSubset, few_shot_episode
from pyg_peft.datasets.files import read_points
from pyg_peft.datasets.folders.shape_folder import ShapeFolder
from pyg_peft.datasets.formats.labeled_files import write_labeled_points
from pyg_peft.datasets.keyed import keyed_generator, keyed_globals, keyed_seed
from pyg_peft.datasets.npz.shapes import NpzShapes
from pyg_peft.datasets.part_labels import PartLabels
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.datasets.procedural import (
    ProceduralShapes,
    ProceduralStream,
    ScanEffects,
    procedural_stream,
)
from pyg_peft.datasets.sample_ids import SampleIds
from pyg_peft.datasets.scanobjectnn import ScanObjectNN
from pyg_peft.datasets.scenes.outdoor import OutdoorAugment
from pyg_peft.datasets.scenes.reading import read_tile
from pyg_peft.datasets.scenes.scene_folder import SceneFolder
from pyg_peft.datasets.scenes.settings import SceneSettings
from pyg_peft.datasets.split import train_val_split
from pyg_peft.datasets.transforms import Normalize, Resample, ScaleTranslate, UpRotate

__all__ = [
    "Augmented",
    "Episode",
    "FewShotSubset",
    "Normalize",
    "NpzShapes",
    "OutdoorAugment",
    "PartLabels",
    "Preprocessing",
    "ProceduralShapes",
    "ProceduralStream",
    "Resample",
    "SampleIds",
    "ScaleTranslate",
    "ScanEffects",
    "ScanObjectNN",
    "SceneFolder",
    "SceneSettings",
    "ShapeFolder",
    "UpRotate",
    "few_shot_episode",
    "keyed_generator",
    "keyed_globals",
    "keyed_seed",
    "procedural_stream",
    "read_points",
    "read_tile",
    "train_val_split",
    "write_labeled_points",
]
