"""Sections of the page beside accuracies: probes, costs, checks, and what is missing."""

import json
from pathlib import Path
from typing import Any

from backbones import RANDOM
from cells import markdown, number
from finished import Results
from plan import Plan, Row, Slot, weights_hash
from sections import FULL, Summaries
from summary import missing

from pyg_peft.training.comparing.statistics import mean_and_spread

PROBED = "modelnet10/modelnet10.npz"
AIM = 12  # points that the shipped weights should be better than random ones


def cost(folder: Path, plan: Plan) -> str:
    """Of one sitting, so that methods are compared on the same machine."""
    path = folder / "step_cost.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    fresh: dict[str, Any] = {}
    for method, step in record["methods"].items():
        row = Row(Slot(record["task"], method, 0, None), step["config"]["lr"])
        if method in plan.methods and step["config"] == plan.config(row):
            fresh[method] = step
    if FULL not in fresh:
        return ""
    base, rows = fresh[FULL], []
    for method, step in fresh.items():
        each = 1000 * step["cpu_seconds"] / step["clouds"]
        share = step["cpu_seconds"] / base["cpu_seconds"]
        memory = step["peak_mebibytes"] / base["peak_mebibytes"]
        kind = "frozen tokens are kept" if step["cached"] else "from points"
        cells = (f"{each:.1f}", f"{share:.2f}", f"{step['peak_mebibytes']:.0f}", f"{memory:.2f}")
        rows.append([method, *cells, kind])
    text = (
        f"## Cost of a training step\n\nCPU time and peak memory above the level before, on "
        f"{record['task']}, in batches of {base['clouds']}, one thread; all methods in one "
        f"sitting, {record['rounds']} rounds interleaved: the least time, the largest memory. "
        "The time to make frozen tokens is left out: a run makes them in its first "
        f"{plan.training['num_views']} epochs, once for each view. "
        "`python benchmarks/accuracy/step_cost.py`"
    )
    heading = ["method", "ms a cloud", "of full", "MiB", "of full", "input"]
    return f"{text}\n\n{markdown(heading, rows)}"


def checks(results: Results) -> str:
    pairs = [record["batch_of_one"] for record in results]
    clouds, most = (total(pair["clouds"] for pair in pairs) for total in (sum, max))
    return (
        f"## Batches of one\n\n{clouds:,} test clouds, up to {most} for each of {len(pairs)} rows, "
        "were also evaluated one at a time. The predicted class changed for "
        f"{sum(pair['other_classes'] for pair in pairs)} of them (for segmentation, of their "
        "points). No probability changed by more than "
        f"{max(pair['largest_difference'] for pair in pairs):.0e}."
    )


def probes(folder: Path, plan: Plan) -> str:
    paths = sorted((folder / "linear_probe").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    # Those of other weights than the ones that are shipped now are left out.
    records = [
        record
        for record in records
        if record["file"] == PROBED
        and record["weights_hash"] == weights_hash(record["backbone"], plan.sizes)
    ]
    if not records:
        return ""
    sizes = list(records[0]["probes"]["head"])
    rows, heads = [], dict[str, list[float]]()  # means of the first kind, by weights
    for name in dict.fromkeys(record["backbone"] for record in records):
        own = [record for record in records if record["backbone"] == name]
        for kind in ("head", "all"):
            columns = [[r["probes"][kind][size]["test"] for r in own] for size in sizes]
            found = [mean_and_spread(column) for column in columns]
            if kind == "head":
                heads[name] = [mean for mean, _ in found]
            cells = [number(*pair) for pair in found]
            rows.append([Path(name).stem, kind, *cells, str(len(own))])
    heading = ["weights", "features", *(f"{size} a class" for size in sizes[:-1]), "all", "seeds"]
    ceiling, chance, shipped = "", heads.get(RANDOM), heads.get(plan.weights or "")
    if chance is not None and shipped is not None:
        gaps = [100 * (ours - theirs) for ours, theirs in zip(shipped, chance, strict=True)]
        left = 100 * (1 - chance[-1])
        reached = [size for size, gap in zip(sizes, gaps, strict=True) if gap >= AIM]
        ceiling = (
            "\n\nThe shipped weights (*head*) are better than random ones by "
            f"{', '.join(f'{gap:.1f}' for gap in gaps)} points, from left to right: by the {AIM} "
            f"that are aimed at with {' and '.join(reached) or 'no number of'} shapes a class. "
            f"With all shapes a probe of random weights misses {left:.1f} % of the test shapes, so "
            "no weights could be better by more."
        )
    return (
        "## Linear probes on ModelNet10\n\nTest accuracy in per cent of a linear layer on frozen "
        "features, by training shapes a class; its penalty is chosen on validation shapes. *head*: "
        "what the model's head is given; *all*: with the mean of the tokens and the bank's query."
        f"{ceiling}\n\n{markdown(heading, rows)}"
    )


def again(results: Results, found: Summaries) -> str:
    """Rows that were run a second time from their configuration, if they are still in the table."""
    rows, current = [], {row.file: results[row] for row in results.rows()}
    for path in sorted((results.folder / "again").rglob("*.json")):
        record = json.loads(path.read_text())
        scores = [record[when]["test"]["accuracy"] for when in ("before", "now")]
        row = current.get(record["row"])
        if row is None or row["test"]["accuracy"] != scores[0]:
            continue
        task, method = Path(record["row"]).parts[:2]
        summary = found.get(task, {}).get(method)
        spread = None if summary is None else mean_and_spread(list(summary.overall.values()))[1]
        cells = [f"{100 * score:.2f}" for score in scores]
        if spread is None:
            cells += ["", ""]
        else:
            within = abs(scores[0] - scores[1]) <= spread
            cells += [f"{100 * spread:.2f}", "yes" if within else "no"]
        rows.append([record["row"], *cells])
    if not rows:
        return ""
    heading = ["row", "test accuracy", "again", "standard deviation over seeds", "within it"]
    text = (
        "## Rows run again\n\nFrom their committed configuration, later: `run.py --again ROW`. The "
        "files below `results/again` hold both records. Where the first of them names no processor "
        "and no commit, it is not known whether these or another cause made the difference."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def origins(results: Results) -> str:
    """How many rows say all of where they come from."""
    named = sum("resolved" in record for record in results)
    before = sum("training" not in record.get("resolved", {}) for record in results)
    return (
        f"## Origin of the rows\n\n{named} of {len(results)} rows record the commit, the hash of "
        "the data, the processor and all settings of the method, including those that the plan "
        "does not set. The other rows are older. They record the configuration, the versions and "
        "the kind of machine. We assume that the defaults of the library have not changed since."
        f"\n\n{before} of {len(results)} rows were made before every training cloud was used in "
        "every epoch. Each epoch left out a last batch that was not full. Among epochs of equal "
        "validation accuracy, the first was kept. Later rows use all clouds, and keep the epoch "
        "with the lower validation loss."
    )


def absent(results: Results, plan: Plan) -> str:
    counts: dict[tuple[str, str], int] = {}
    for slot in missing(results, plan):
        counts[slot.task, slot.method] = counts.get((slot.task, slot.method), 0) + 1
    if not counts:
        return ""
    lines = []
    for task in dict.fromkeys(task for task, _ in counts):
        names = [f"{m} ({n})" for (t, m), n in counts.items() if t == task]
        lines.append(f"- {task}: {', '.join(names)}")
    return (
        f"## Missing\n\n{sum(counts.values())} of {len(plan.slots())} runs of the plan have not "
        "been made with the plan's weights and settings:\n\n" + "\n".join(lines)
    )
