"""Numbers and tables as markdown."""

from collections.abc import Sequence

from pyg_peft.training.comparing.statistics import Difference, mean_and_spread

# What the page says of the cells of gap_cell.
GAP = (
    "paired by seed and carry a standard error: the corrected one of *The claim* where there are "
    "folds or each seed divides the clouds anew"
)


def spread_cell(scores: dict[int, float]) -> str:
    return number(*mean_and_spread(list(scores.values())))


def number(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def gap_cell(gap: Difference | None) -> str:
    return "" if gap is None else f"{100 * gap.mean:+.1f} ± {100 * gap.wide:.1f}"


def rate_cell(rates: Sequence[float], grid: Sequence[float]) -> str:
    """Learning rates that were chosen; one at an end of the grid may not be the best."""
    ends = min(grid), max(grid)
    return ", ".join(f"{rate:g}{' (end)' if rate in ends else ''}" for rate in rates)


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
