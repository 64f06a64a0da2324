"""Numbers and tables as markdown."""

from summary import mean_and_spread


def spread_cell(scores: dict[int, float]) -> str:
    return number(*mean_and_spread(list(scores.values())))


def number(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
