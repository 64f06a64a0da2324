"""Classes of whole files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_peft.cli.predicting.inputs import read_file
from pyg_peft.cli.predicting.job import Job
from pyg_peft.cli.predicting.results import Results, result_of
from pyg_peft.cli.saved import Saved
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.training.tasks.classification import ClassificationTask


class CloudJob(Job[Data]):
    """Classifies files.

    Args:
        saved: The adapter.
        task: Its task.
        settings: How to read files.
        num_points: Number of points of a cloud before the preprocessing, as in training.
        batch_size: Number of clouds per batch.
        precision: 32-true, bf16-mixed or 16-mixed.
        results: Where the results go.
        top: Number of classes in a line of text.
    """

    def __init__(
        self,
        saved: Saved,
        task: ClassificationTask,
        settings: Mapping[str, Any],
        *,
        num_points: int | None,
        batch_size: int,
        precision: str,
        results: Results,
        top: int,
    ) -> None:
        self.saved = saved
        self.task = task
        # Before the model's preprocessing, meshes and clouds get as many points as in training.
        self.settings = {"mesh_points": num_points or 2048, **settings}
        self.cut = Preprocessing(num_points, normalize=False).evaluation()
        self.prepare = saved.preprocessing.evaluation()
        self.batch_size = batch_size
        self.precision = precision
        self.results = results
        self.top = top

    def read(self, path: Path) -> Data:
        return self.prepare(self.cut(read_file(path, self.settings)))

    def predict(self, files: Sequence[tuple[Path, Data]]) -> list[Tensor]:
        clouds: list[Any] = [cloud for _, cloud in files]
        batch = Batch.from_data_list(clouds)
        ((_, rows),) = self.task.predict(self.saved.model, [batch], precision=self.precision)
        for (path, _), row in zip(files, rows, strict=True):
            self.results.add(result_of(path, row, self.saved.class_names, self.top))
        return list(rows)


__all__ = ["CloudJob"]
