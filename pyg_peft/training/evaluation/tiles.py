"""Label every point of a tile with a model that was trained on scenes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_peft.datasets import SceneSettings
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.data.scene_tiles import BlockFrame, sample_cloud
from pyg_peft.training.evaluation.forward import check_precision, device_of
from pyg_peft.training.evaluation.scene import score_scene


class TileLabels(NamedTuple):
    """The class of every point of a tile.

    Attributes:
        classes: Class of each point ``[N]``, long, in the order of the file.
        confidence: Probability of that class ``[N]``, averaged over overlapping blocks.
    """

    classes: Tensor
    confidence: Tensor

    def raw_labels(self, settings: SceneSettings) -> Tensor:
        """Return the labels as files hold them ``[N]``: for each class, the first of its labels."""
        return torch.tensor(settings.raw_labels)[self.classes]


def label_tile(
    model: nn.Module,
    settings: SceneSettings,
    cloud: Data,
    *,
    preprocessing: Preprocessing | None = None,
    batch_size: int = 8,
    precision: str = "32-true",
) -> TileLabels:
    """Label every original point of a tile, in the order of its file.

    The tile is sampled and cut as in training. The probabilities of overlapping blocks are
    averaged, and all points of a cube of the grid get the label of the one that was kept. The model
    gets at most ``batch_size * num_points`` points at once; see ``score_scene`` for the rest.

    Args:
        model: The model, for example a ``PeftModel``. It is put into eval mode.
        settings: The settings that the adapter records, see ``SceneSettings.recorded_in``.
        cloud: A tile, as ``read_tile(path, settings, labels=False)`` returns it.
        preprocessing: The preprocessing that the adapter records.
        batch_size: Number of blocks per batch.
        precision: 32-true, bf16-mixed or 16-mixed.

    Raises:
        TypeError, ValueError: If an argument has another type, the tile lacks the features of the
            settings, or the model gives another number of scores.

    Example:
        >>> from pyg_peft.backbones import PointNetSegmentation
        >>> settings = SceneSettings(classes={2: "ground", 5: "tree"}, grid_size=0.5, block_size=4)
        >>> cloud = Data(pos=10 * torch.rand(300, 3))
        >>> found = label_tile(PointNetSegmentation(2), settings, cloud)
        >>> found.classes.shape, set(found.raw_labels(settings).tolist()) <= {2, 5}
        (torch.Size([300]), True)
    """
    check_kind(model, "model", nn.Module)
    check_kind(settings, "settings", SceneSettings)
    check_kind(cloud, "cloud", Data)
    preprocessing = Preprocessing() if preprocessing is None else preprocessing
    dtype = check_precision(precision)
    pos: Any = cloud.pos
    x: Any = cloud.x if settings.features else None
    if settings.features and (x is None or x.size(-1) != settings.num_features):
        raise ValueError(
            f"Expected 'cloud' to have the features {list(settings.features)} in 'x' "
            f"(got {None if x is None else list(x.shape)})"
        )
    index, inverse = sample_cloud(cloud, settings)
    device = device_of(model)
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        probabilities = score_scene(
            model,
            pos[index],
            None if x is None else x[index],
            size=settings.block_size,
            stride=settings.stride,
            max_points=preprocessing.num_points or max(1, index.numel()),
            batch_size=batch_size,
            transform=BlockFrame(settings, preprocessing),
            floor=0.0,
        )
    if probabilities.size(1) != len(settings.class_names):
        raise ValueError(
            f"Expected 'model' to give a score for each of the classes {settings.class_names} "
            f"(got {probabilities.size(1)})"
        )
    confidence, classes = probabilities.max(dim=1)
    return TileLabels(classes[inverse], confidence[inverse])


__all__ = ["TileLabels", "label_tile"]
