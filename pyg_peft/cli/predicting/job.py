"""The loop over the files: read some, predict them, and remember which could not be read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from pyg_peft.cli.predicting.results import Results
from pyg_peft.cli.say import complain

Item = TypeVar("Item")


class Predictions(list[tuple[Path, Tensor]]):
    """Predictions of files: for each, its path and the probabilities of its classes ``[K]``.

    If the adapter labels points, the tensor has the number of points of each class instead.

    Attributes:
        failures: Why files have no prediction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[str] = []

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 1 if a file has no prediction."""
        return 1 if self.failures else 0


class Job(ABC, Generic[Item]):
    """What is done with each file.

    Attributes:
        batch_size: Number of files that are read before they are predicted.
        results: Where the results go.
        excused: Errors of :meth:`predict` that are a matter of the file.
    """

    batch_size: int
    results: Results
    excused: ClassVar[tuple[type[Exception], ...]] = ()

    @abstractmethod
    def read(self, path: Path) -> Item:
        """Read a file.

        Raises:
            ValueError, OSError: If it cannot be read.
        """

    @abstractmethod
    def predict(self, files: Sequence[tuple[Path, Item]]) -> list[Tensor]:
        """Predict files that were read, and give their results to ``results``."""


def predict_all(paths: Sequence[Path], job: Job[Item], *, skip_errors: bool) -> Predictions:
    """Predict files, some at a time, and write the results.

    Args:
        paths: The files.
        job: What is done with each.
        skip_errors: Whether files that cannot be read are left out, and named at the end.
            Otherwise nothing is predicted after such a file. The rest is only read, so that the
            error names all of them.

    Raises:
        ValueError: If files cannot be read and ``skip_errors`` is off.
    """
    found = Predictions()
    with tqdm(total=len(paths), unit="file", disable=None, leave=False) as bar:
        for begin in range(0, len(paths), job.batch_size):
            files: list[tuple[Path, Item]] = []
            for path in paths[begin : begin + job.batch_size]:
                try:
                    files.append((path, job.read(path)))
                except (ValueError, OSError) as error:
                    found.failures.append(str(error))
                bar.update()
            if not files or (found.failures and not skip_errors):
                continue
            try:
                rows = job.predict(files)
            except job.excused as error:
                text = str(error)
                named = [str(path) for path, _ in files]
                known = any(name in text for name in named)
                found.failures.append(text if known else f"{', '.join(named)}: {text}")
            else:
                found.extend(zip((path for path, _ in files), rows, strict=True))
    if found.failures and not skip_errors:
        raise _unreadable(found.failures, len(paths))
    job.results.finish()
    if found.failures:
        named = "".join(f"\n  {failure}" for failure in found.failures)
        complain(f"{len(found.failures)} of {len(paths)} files have no prediction:{named}")
    return found


def _unreadable(failures: Sequence[str], count: int) -> ValueError:
    if len(failures) == 1:
        return ValueError(failures[0])
    return ValueError(
        f"Expected the {count} files to be readable (got {len(failures)} that are not):"
        + "".join(f"\n  {failure}" for failure in failures)
    )


__all__ = ["Job", "Predictions", "predict_all"]
