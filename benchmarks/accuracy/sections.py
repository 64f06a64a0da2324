"""The sections of the page: markdown from summaries."""

from cells import GAP, gap_cell, markdown, rate_cell, spread_cell
from plan import Plan
from summary import Summary, compare, of_shared_seeds

FIGURES = "figures"
FULL, PEFT, SCRATCH = "full_fine_tuning", "point_peft", "from_scratch"
CLAIM = ("modelnet10", "sydney", "bimnet10", "psb")
LIMIT = 0.05  # of the trained parameters of full fine-tuning
BESIDE = ("modelnet10_50", "psb_3x")  # less of the first, longer on the last

Summaries = dict[str, dict[str, Summary]]


def overview(found: Summaries, plan: Plan) -> str:
    methods = [name for name in plan.methods if any(name in row for row in found.values())]
    shared = {task: of_shared_seeds(row) for task, row in found.items()}
    rows = []
    for method in methods:
        cells = [summary_cell(shared[task].get(method)) for task in found]
        rows.append([method, *cells])
    text = (
        "## Accuracy, all sets\n\nOverall test accuracy in per cent, mean ± standard deviation, "
        "over the seeds that all methods of a set have. The tables below have all seeds."
    )
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
                f"{first['adapter_bytes'] / 1000:,.0f}",
                f"{first['bank_bytes'] / 1000:,.0f}",
                spread_cell(summary.overall),
                spread_cell(summary.macro),
                gap_cell(gap),
                rate_cell(rates, plan.rates_of(task, method)),
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
        f"Differences are {GAP}."
    )
    return f"{text}\n\n{markdown(heading, rows)}\n\n![]({FIGURES}/accuracy_{task}.png)"


def claim(found: Summaries) -> str:
    """Whether it holds, and by how much; nothing before its methods have rows."""
    rows, held = [], list[str]()
    for task in (task for task in (*CLAIM, *BESIDE) if {FULL, PEFT} <= found.get(task, {}).keys()):
        full, peft = found[task][FULL], found[task][PEFT]
        gap = compare(peft, full)
        if gap is None:
            continue
        body = [one.records[0]["parameters"]["without_head"] for one in (peft, full)]
        all_of_it = [one.records[0]["parameters"]["trainable"] for one in (peft, full)]
        holds = gap.mean >= 0 and body[0] <= LIMIT * body[1]
        held += [task] if holds and task in CLAIM else []
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
                "yes" if holds else "no",
            ]
        )
    if not rows:
        return ""
    heading = [
        *("set", "full fine-tuning", "Point-PEFT", "difference", "standard error", "corrected"),
        *("seeds", "parameters without head", "with head", "holds"),
    ]
    text = (
        "## The claim\n\nThe mean of Point-PEFT is at least that of full fine-tuning, with at most "
        f"{100 * LIMIT:.0f} % of its trained parameters, heads left out. The goal is at least "
        f"three of {', '.join(CLAIM)}. The claim holds on {len(held)} of them "
        f"({', '.join(held) or 'none'}). {' and '.join(BESIDE)} are shown for comparison.\n\n"
        "The differences are paired by seed. If the test set is the same for all seeds, the "
        "standard error covers the seeds only, not the choice of test clouds. The corrected "
        "standard error (Nadeau and Bengio 2003) allows for training sets that overlap: those of "
        "the seeds if each seed splits the clouds anew, or those of the folds."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def scratch(found: Summaries) -> str:
    rows = []
    for task, methods in found.items():
        gap = (
            compare(methods[FULL], methods[SCRATCH]) if {FULL, SCRATCH} <= methods.keys() else None
        )
        if gap is not None:
            both = of_shared_seeds({name: methods[name] for name in (SCRATCH, FULL)})
            cells = [spread_cell(one.overall) for one in both.values()]
            rows.append([task, *cells, gap_cell(gap)])
    if not rows:
        return ""
    heading = ["set", "from random weights", "from the shipped weights", "difference"]
    text = (
        "## What pre-training gives\n\nFull fine-tuning from either start, by the same protocol "
        f"and seeds. Differences are {GAP}."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def summary_cell(summary: Summary | None) -> str:
    return "" if summary is None else spread_cell(summary.overall)
