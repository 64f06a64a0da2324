"""Means, spreads, paired differences and ranks of repeated runs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean over the runs that both methods have, and its standard error.

    Args:
        mean: Mean difference.
        error: Standard error over the runs.
        corrected: Standard error for resamplings whose training sets overlap (`Nadeau and Bengio
            2003 <https://doi.org/10.1023/A:1024068626366>`_), for which ``error`` is too small.
            ``None`` without resampling: ``error`` then covers the seeds, and not the choice of the
            test clouds.
        count: Number of differences.
        degrees: Degrees of freedom of the wider error.
    """

    mean: float
    error: float
    corrected: float | None
    count: int
    degrees: int

    @property
    def wide(self) -> float:
        """The corrected error if there is one, otherwise the plain one."""
        return self.error if self.corrected is None else self.corrected

    @property
    def p_value(self) -> float:
        """Two-sided p-value of a t-test with :attr:`wide`; 1 if all differences are 0."""
        from scipy.stats import t

        if self.wide == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * t.sf(abs(self.mean) / self.wide, self.degrees))


def paired_difference(
    gaps: Sequence[float],
    *,
    resampled: Sequence[float] = (),
    ratio: float | None = None,
) -> Difference:
    """Return mean and standard error of paired differences.

    Args:
        gaps: The differences, one per run; two or more.
        resampled: The differences of the resamplings, if each divides the clouds anew.
        ratio: Mean ratio of the numbers of test and training clouds; needed with ``resampled``.

    Raises:
        ValueError: If there are fewer than two differences, or ``ratio`` is missing.

    Example:
        >>> found = paired_difference([0.01, 0.02, 0.03])
        >>> round(found.mean, 4), round(found.error, 4), round(found.p_value, 3)
        (0.02, 0.0058, 0.074)
    """
    if len(gaps) < 2:
        raise ValueError(f"Expected 'gaps' to be two differences or more (got {len(gaps)})")
    corrected, degrees = None, len(gaps) - 1
    if len(resampled) > 1:
        if ratio is None:
            raise ValueError("Expected 'ratio' to be given with 'resampled' (got None)")
        corrected = statistics.stdev(resampled) * math.sqrt(1 / len(resampled) + ratio)
        degrees = len(resampled) - 1
    mean = round(statistics.mean(gaps), 12) + 0.0  # equal means differ by zero, and not by -0.0
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(mean, error, corrected, len(gaps), degrees)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation if there are two values or more."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over several data sets, by `Demšar 2006
    <https://www.jmlr.org/papers/v7/demsar06a.html>`_.

    Args:
        ranks: Mean rank of each method; 1 is the best.
        statistic: Statistic of Friedman's test.
        p_value: Its p-value; small if the methods differ.
        critical_difference: Nemenyi's: mean ranks that differ by more differ significantly.
        num_sets: Number of data sets.
        alpha: Level of the critical difference.
    """

    ranks: dict[str, float]
    statistic: float
    p_value: float
    critical_difference: float
    num_sets: int
    alpha: float


def rank_methods(scores: Mapping[str, Sequence[float]], *, alpha: float = 0.05) -> Ranks:
    """Rank methods on each data set, and test whether their mean ranks differ.

    Args:
        scores: For each method, its score on each data set. Larger scores are better; equal scores
            share their mean rank.
        alpha: Level of the critical difference.

    Raises:
        ValueError: If there are fewer than three methods or two data sets, or numbers of scores
            differ.

    Example:
        >>> found = rank_methods({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.7, 0.6], "c": [0.7, 0.9, 0.5]})
        >>> found.ranks["c"], round(found.critical_difference, 3)
        (2.3333333333333335, 1.914)
    """
    import numpy as np
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    lengths = {len(values) for values in scores.values()}
    if len(scores) < 3 or len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            "Expected 'scores' to hold three methods or more on the same two data sets or more "
            f"(got {len(scores)} methods with {sorted(lengths)} scores)"
        )
    table = np.array(list(scores.values()), dtype=np.float64)  # [methods, sets]
    ranks = rankdata(-table, axis=0).mean(axis=1)
    if (table == table[0]).all():
        statistic, p_value = 0.0, 1.0
    else:
        statistic, p_value = (float(value) for value in friedmanchisquare(*table))
    methods, sets = table.shape
    quantile = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return Ranks(
        ranks=dict(zip(scores, ranks.tolist(), strict=True)),
        statistic=statistic,
        p_value=p_value,
        critical_difference=quantile * math.sqrt(methods * (methods + 1) / (6 * sets)),
        num_sets=sets,
        alpha=alpha,
    )


__all__ = ["Difference", "Ranks", "mean_and_spread", "paired_difference", "rank_methods"]
