"""The output of a masked autoencoder for one batch."""

from dataclasses import dataclass

from torch import Tensor

from pyg_peft.geometry import Patches


@dataclass(frozen=True)
class Reconstruction:
    """Rebuilt patches together with the true ones.

    Args:
        points: Rebuilt points relative to their center, ``[B, M, K, 3]``; meaningless where
            ``masked.mask`` is false.
        masked: The ``M`` patches of each cloud that were hidden.
        visible: The ``V`` patches of each cloud that the encoder saw.
    """

    points: Tensor
    masked: Patches
    visible: Patches


__all__ = ["Reconstruction"]
