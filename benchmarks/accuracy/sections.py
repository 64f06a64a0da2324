"""The sections of the page: markdown from summaries."""

import json
from pathlib import Path

from finished import Results
from plan import Plan, weights_hash
from summary import Summary, compare, mean_and_spread, missing

FIGURES = "figures"
FULL, PEFT, SCRATCH = "full_fine_tuning", "point_peft", "from_scratch"
CLAIM = ("modelnet10_50", "modelnet10", "sydney", "bimnet10", "psb")

Summaries = dict[str, dict[str, Summary]]


def overview(found: Summaries, plan: Plan) -> str:
    methods = [name for name in plan.methods if any(name in row for row in found.values())]
    rows = []
    for method in methods:
        cells = [summary_cell(found[task].get(method)) for task in found]
        rows.append([method, *cells])
    text = "## Accuracy, all sets\n\nOverall test accuracy in per cent, mean ± standard deviation."
    return f"{text}\n\n{markdown(['method', *found], rows)}"


def one_set(task: str, methods: dict[str, Summary], plan: Plan) -> str:
    heading = [
        *("method", "trained", "without head", "% of full", "file kB", "bank kB"),
        *("accuracy", "macro accuracy", "less full fine-tuning", "learning rate", "seeds"),
    ]
    full, rows = methods.get(FULL), []
    for method, summary in methods.items():
        first = summary.records[0]
        counts = first["parameters"]
        body = counts["without_head"]
        share = ""
        if full is not None:
            share = f"{100 * body / full.records[0]['parameters']['without_head']:.1f}"
        gap = compare(summary, full) if full is not None and method != FULL else None
        rates = sorted({record["config"]["lr"] for record in summary.records})
        rows.append(
            [
                method,
                f"{counts['trainable']:,}",
                f"{body:,}",
                share,
                f"{first['adapter_bytes'] / 1024:,.0f}",
                f"{first['bank_bytes'] / 1024:,.0f}",
                spread_cell(summary.overall),
                spread_cell(summary.macro),
                "" if gap is None else f"{100 * gap.mean:+.1f} ± {100 * gap.error:.1f}",
                ", ".join(f"{rate:g}" for rate in rates),
                str(len(summary.overall)),
            ]
        )
    record = next(iter(methods.values())).records[0]
    config, clouds = record["config"], record["clouds"]
    folds = plan.tasks[task].folds
    where = f" (in fold {config['fold']} of {len(folds)})" if folds else ""
    text = (
        f"## {task}\n\n{len(record['classes'])} classes; {clouds['train']} clouds train, "
        f"{clouds['val']} validate, {clouds['test']} test"
        f"{where}; "
        f"{config['epochs']} epochs of batches of {config['training']['batch_size']}. "
        "The difference is paired by seed and carries its standard error."
    )
    return f"{text}\n\n{markdown(heading, rows)}\n\n![]({FIGURES}/accuracy_{task}.png)"


def claim(found: Summaries) -> str:
    rows = []
    for task in (task for task in CLAIM if {FULL, PEFT} <= found.get(task, {}).keys()):
        full, peft = found[task][FULL], found[task][PEFT]
        gap = compare(peft, full)
        if gap is None:
            continue
        body = [one.records[0]["parameters"]["without_head"] for one in (peft, full)]
        all_of_it = [one.records[0]["parameters"]["trainable"] for one in (peft, full)]
        rows.append(
            [
                task,
                spread_cell(full.overall),
                spread_cell(peft.overall),
                f"{100 * gap.mean:+.2f}",
                f"{100 * gap.error:.2f}",
                "" if gap.corrected is None else f"{100 * gap.corrected:.2f}",
                str(gap.count),
                f"{100 * body[0] / body[1]:.1f} %",
                f"{100 * all_of_it[0] / all_of_it[1]:.1f} %",
                "yes" if gap.mean >= 0 else "no",
            ]
        )
    if not rows:
        return ""
    heading = [
        *("set", "full fine-tuning", "Point-PEFT", "difference", "standard error", "corrected"),
        *("seeds", "parameters without head", "with head", "mean at least as good"),
    ]
    text = (
        "## The claim\n\nPoint-PEFT against full fine-tuning, paired by seed. Where the test set "
        "is the same for all seeds, the standard error says how much seeds matter, and nothing of "
        "other test clouds. The corrected one (Nadeau and Bengio 2003) allows for training sets "
        "that overlap, where each seed divides the clouds anew."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def scratch(found: Summaries) -> str:
    rows = []
    for task, methods in found.items():
        gap = (
            compare(methods[FULL], methods[SCRATCH]) if {FULL, SCRATCH} <= methods.keys() else None
        )
        if gap is not None:
            cells = [spread_cell(methods[name].overall) for name in (SCRATCH, FULL)]
            rows.append([task, *cells, f"{100 * gap.mean:+.1f} ± {100 * gap.error:.1f}"])
    if not rows:
        return ""
    heading = ["set", "from random weights", "from the shipped weights", "difference"]
    text = (
        "## What pre-training gives\n\nFull fine-tuning from either start, same budget and search."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def cost(found: Summaries) -> str:
    rows = []
    for method in dict.fromkeys(name for methods in found.values() for name in methods):
        steps = [
            record["step"]
            for methods in found.values()
            if method in methods
            for record in methods[method].records
            if record["step"] is not None
        ]
        if steps:
            step = steps[0]
            each = 1000 * step["cpu_seconds"] / step["clouds"]
            kind = "frozen tokens are kept" if step["cached"] else "from points"
            rows.append([method, f"{each:.1f}", f"{step['peak_megabytes']:.0f}", kind])
    text = (
        "## Cost of a training step\n\nCPU milliseconds a cloud and peak memory of five steps "
        "above the level before them, on the first set, one thread."
    )
    return f"{text}\n\n{markdown(['method', 'ms a cloud', 'MB', 'input'], rows)}"


def checks(results: Results) -> str:
    pairs = [record["batch_of_one"] for record in results]
    clouds = sum(pair["clouds"] for pair in pairs)
    return (
        f"## Batches of one\n\n{clouds:,} test clouds of {len(pairs)} rows were classified one by "
        f"one too: {sum(pair['other_classes'] for pair in pairs)} got another class, and no "
        f"probability moved by more than {max(pair['largest_difference'] for pair in pairs):.0e}."
    )


def probes(folder: Path, plan: Plan) -> str:
    paths = sorted((folder / "linear_probe").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    # Those of other weights than the ones that are shipped now are left out.
    records = [r for r in records if r["weights_hash"] == weights_hash(r["backbone"], plan.sizes)]
    if not records:
        return ""
    sizes = list(records[0]["probes"]["head"])
    rows = []
    for name in dict.fromkeys(record["backbone"] for record in records):
        own = [record for record in records if record["backbone"] == name]
        for kind in ("head", "all"):
            columns = [[r["probes"][kind][size]["test"] for r in own] for size in sizes]
            cells = [number(*mean_and_spread(column)) for column in columns]
            rows.append([Path(name).stem, kind, *cells, str(len(own))])
    heading = ["weights", "features", *(f"{size} a class" for size in sizes[:-1]), "all", "seeds"]
    best = [
        mean_and_spread(
            [r["probes"][kind]["all"]["test"] for r in records if r["backbone"] == "random"]
        )
        for kind in ("head", "all")
        if any(r["backbone"] == "random" for r in records)
    ]
    ceiling = ""
    if best:
        top = 100 * max(mean for mean, _ in best)
        ceiling = (
            f"\n\nWith all training shapes a probe of *random* weights is right on {top:.1f} % of "
            f"the test shapes already, so no backbone can be better by 12 points than that: "
            f"{100 - top:.1f} are left. Where labels are few the weights make the difference."
        )
    return (
        "## Linear probes on ModelNet10\n\nTest accuracy in per cent of a linear layer on frozen "
        "features, by training shapes a class; its penalty is chosen on validation shapes. *head*: "
        "what the model's head is given; *all*: with the mean of the tokens and the bank's query."
        f"{ceiling}\n\n{markdown(heading, rows)}"
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


def summary_cell(summary: Summary | None) -> str:
    return "" if summary is None else spread_cell(summary.overall)


def spread_cell(scores: dict[int, float]) -> str:
    return number(*mean_and_spread(list(scores.values())))


def number(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
