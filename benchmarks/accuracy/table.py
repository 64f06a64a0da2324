"""Write the tables and figures of docs/accuracy.md from the committed results, from nothing else.

    python benchmarks/accuracy/table.py

What stands between the two marks on the page is generated; the text around it is written by hand.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finished import Results
from graph_sections import other_backbones
from measured import absent, again, checks, cost, origins, probes
from plan import Plan
from plan_file import load_plan
from sections import FIGURES, Summaries, claim, one_set, overview, scratch
from summary import of_shared_seeds, summarize

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "accuracy.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def collect(results: Results, plan: Plan) -> Summaries:
    """Set to method to summary, for what is finished."""
    found: Summaries = {}
    for task in plan.tasks:
        for method in plan.methods:
            summary = summarize(results, plan, task, method)
            if summary is not None:
                found.setdefault(task, {})[method] = summary
    return found


def generate(results: Results, plan: Plan, graphs: tuple[Results, Plan] | None = None) -> str:
    """The page's generated part; ``graphs`` are the rows on other backbones."""
    found = collect(results, plan)
    parts = [probes(results.folder, plan)]
    if found:
        parts += [overview(found, plan), claim(found), scratch(found)]
        parts += [one_set(task, methods, plan) for task, methods in found.items()]
        parts += [cost(results.folder, plan), checks(results), origins(results)]
        parts.append(again(results, found))
    if graphs is not None:
        parts.append(other_backbones(collect(*graphs), *graphs))
    parts.append(absent(results, plan))
    return "\n\n".join(part for part in parts if part)


def replace(page: str, generated: str) -> str:
    """The page with its generated part exchanged."""
    before, mark, rest = page.partition(BEGIN)
    _, other, after = rest.partition(END)
    if not mark or not other:
        raise ValueError(f"Expected the page to hold {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


def figures(found: Summaries) -> Iterator[tuple[str, Any]]:
    """A figure a set: accuracy, of the seeds that all methods have, against trained parameters."""
    from pyg_peft.viz import plot_tradeoff

    for task, methods in found.items():
        points = {
            name: (one.records[0]["parameters"]["without_head"], list(one.overall.values()))
            for name, one in of_shared_seeds(methods).items()
        }
        yield f"accuracy_{task}.png", plot_tradeoff(points, title=task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml")
    parser.add_argument("--graphs", type=Path, default=HERE / "graphs.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    plan = load_plan(options.plan)
    results = Results(options.results, plan)
    others = load_plan(options.graphs)
    written = generate(results, plan, (Results(options.results, others), others))
    options.page.write_text(replace(options.page.read_text(), written))
    folder = options.page.parent / FIGURES
    for name, figure in figures(collect(results, plan)):
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / name)


if __name__ == "__main__":
    main()
