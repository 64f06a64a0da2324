"""The demo's backbone: the shipped one, or one that is pre-trained for a minute."""

from pathlib import Path

import torch

from pyg_peft.backbones import PointMAEPretraining
from pyg_peft.backbones.pretrained import POINT_MAE_FILES
from pyg_peft.cli.say import say
from pyg_peft.training.corpus import ViewOptions, open_corpus
from pyg_peft.training.pretrain import CHECKPOINT, PretrainOptions, pretrain

SIZES = {"embed_dim": 96, "depth": 4, "num_heads": 4, "num_centers": 32, "patch_size": 16}


def find_weights(
    folder: Path, minutes: float, num_unlabelled: int, num_points: int, seed: int
) -> str:
    """The weights to tune: shipped ones, or those of a short pre-training.

    Args:
        folder: of the pre-training.
        minutes: its length.
        num_unlabelled: shapes that it sees.
        num_points: points of a shape.
        seed: of everything random.

    Returns:
        A name or a file for ``open_backbone``.
    """
    if POINT_MAE_FILES:
        name = next(iter(POINT_MAE_FILES))
        say(f"The backbone is '{name}', which ships with the package.")
        return name
    say(
        "The package ships no pre-trained weights yet. So a small Point-MAE is pre-trained first,\n"
        f"for {minutes:g} minutes, on unlabelled shapes. It shows the walk, not the accuracy of a "
        "large one."
    )
    corpus = open_corpus([f"procedural:{num_unlabelled}"])
    options = PretrainOptions(
        epochs=8,
        seed=seed,
        max_minutes=minutes,
        bf16=False,
        views=ViewOptions(num_points=num_points),
    )
    torch.manual_seed(seed)
    network = PointMAEPretraining(
        **SIZES, decoder_depth=1, decoder_num_heads=4, mask_ratio=0.7, drop_path=0.0
    )
    report = pretrain(network, corpus, folder, options)
    say(f"{report.step} steps in {60 * report.minutes:.0f} seconds, loss {report.loss:.4f}")
    return str(folder / CHECKPOINT)


__all__ = ["find_weights"]
