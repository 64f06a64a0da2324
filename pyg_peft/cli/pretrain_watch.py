"""Progress of `pyg-peft pretrain`: reconstructions, and a linear probe of labeled shapes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch_geometric.loader import DataLoader

from pyg_peft.backbones import PointMAEPretraining
from pyg_peft.cli.say import say
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.errors import check_count
from pyg_peft.storage import remove_leftovers, write_atomic
from pyg_peft.training.evaluation.probe import fit_probe, frozen_features
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.pretraining.corpus import Corpus, ViewOptions
from pyg_peft.training.pretraining.run import LOG
from pyg_peft.viz.curves import plot_curves
from pyg_peft.viz.figure import style
from pyg_peft.viz.reconstruction import plot_reconstruction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE = "learning_curve.png"
# Views without rotation or scaling.
_PLAIN = {"turn_degrees": 0.0, "tip_probability": 0.0, "tilt_degrees": 0.0}
_STILL = {"scale_low": 1.0, "scale_high": 1.0, "shift": 0.0}


class PretrainWatch:
    """Draw reconstructions and fit a linear probe every few epochs.

    Args:
        folder: Folder of the run; receives ``reconstruction_EPOCH.png`` and ``learning_curve.png``.
        corpus: Pre-training clouds; the same four are drawn each time.
        num_points: Number of points of a cloud.
        every: Number of epochs between two reports.
        probe: Labeled data as in ``fit``; no probe if ``None``. Their test split is never read: the
            layer is fitted to training samples, and its accuracy is measured on validation samples.
        per_class: Number of training samples per class for the layer.
        seed: Random seed of the choice of clouds, the masks, and the validation split.
    """

    def __init__(
        self,
        folder: Path,
        corpus: Corpus,
        *,
        num_points: int,
        every: int,
        probe: str | None,
        per_class: int = 40,
        seed: int = 0,
    ) -> None:
        check_count(every, "look_every")
        style()  # raises now, not after some epochs, if matplotlib is missing
        self.folder, self.corpus, self.every, self.seed = folder, corpus, every, seed
        self.views = ViewOptions(num_points=num_points, **_PLAIN, **_STILL)
        self._is_tidy = False
        self.loaders: tuple[DataLoader, DataLoader] | None = None
        if probe is not None:
            data = ShapeDataModule.from_source(
                probe, data_args={}, preprocessing=Preprocessing(num_points), seed=seed
            )
            whole: Any = data.bank_dataloader().dataset
            rows = _first_of_each(labels_of(data.plain_train_set).tolist(), per_class)
            kept = [whole[row] for row in rows]
            self.loaders = DataLoader(kept, batch_size=64), data.val_dataloader()
            self.num_classes = data.num_classes

    def __call__(self, model: PointMAEPretraining, epochs: int) -> dict[str, float]:
        """Draw and probe ``model`` if a report is due after ``epochs`` epochs."""
        if not self._is_tidy:  # only now does pretrain hold the folder alone
            for picture in (CURVE, "reconstruction_*.png"):
                remove_leftovers(self.folder, picture)
            self._is_tidy = True
        if epochs % self.every != 0:
            return {}
        self._draw(model, epochs)
        draw_curve(self.folder)
        if self.loaders is None:
            return {}
        backbone = model.to_classifier(self.num_classes)
        train, val = (frozen_features(backbone, loader) for loader in self.loaders)
        accuracy = fit_probe(train, val, self.num_classes).val_accuracy
        say(f"epoch {epochs}: a linear probe reads {100 * accuracy:.1f} % of the validation set")
        return {"probe_val_accuracy": accuracy}

    def _draw(self, model: PointMAEPretraining, epochs: int) -> None:
        number = min(4, len(self.corpus))
        rows = torch.randperm(len(self.corpus), generator=keyed_generator(self.seed, "pictures"))
        pos, batch = self.corpus.batch(rows[:number].tolist(), self.views, self.seed, 0)
        generator = keyed_generator(self.seed, "picture masks")
        device = next(model.parameters()).device
        pos, batch = pos.to(device), batch.to(device)
        result = model.reconstruct(pos, batch, number, generator=generator)
        figure = plot_reconstruction(result)
        _save(figure, self.folder / f"reconstruction_{epochs:03d}.png")


def draw_curve(folder: Path) -> None:
    """Draw the mean of each epoch's logged losses to ``learning_curve.png``."""
    losses: dict[int, list[float]] = {}
    for line in (folder / LOG).read_text().splitlines():
        entry = json.loads(line)
        if "loss" in entry:
            losses.setdefault(entry["epoch"], []).append(entry["loss"])
    if losses:
        means = [sum(values) / len(values) for _, values in sorted(losses.items())]
        _save(plot_curves({"loss": means}, epochs=sorted(losses), ylabel="loss"), folder / CURVE)


def _save(figure: "Figure", path: Path) -> None:
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png"))


def _first_of_each(labels: Sequence[int], number: int) -> list[int]:
    """Return the rows of the first ``number`` samples of each class, in order."""
    seen: dict[int, int] = {}
    rows: list[int] = []
    for row, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= number:
            rows.append(row)
    return rows


__all__ = ["PretrainWatch"]
