"""The part of the page about backbones that are no Point-MAE."""

from cells import GAP, gap_cell, markdown, rate_cell, spread_cell
from finished import Results
from measured import checks
from plan import Plan
from sections import FULL, Summaries
from summary import Summary, compare, missing


def other_backbones(found: Summaries, results: Results, plan: Plan) -> str:
    """A table for each set that has rows; nothing without any."""
    if not found:
        return ""
    text = (
        "## Other backbones\n\nThese backbones are not transformers. The protocol is the same. *in "
        "the encoder* leaves out the head and, for segmentation, the decoder. Both are new, and "
        "all methods train them, except the linear probe. It trains one layer: for segmentation "
        "on the output of a random, frozen decoder, and for classification on the frozen "
        "features, in place of the head of two or three layers. `frozen_encoder` trains only the "
        "decoder and the head. `from_scratch` trains everything, from random weights. Point-PEFT "
        "has only its adapters here, without prompts and without a memory bank. In the instance "
        "mIoU, a part that is in neither the labels nor the prediction of a cloud counts as 1. "
        f"Differences to full fine-tuning are {GAP}. Plan: `benchmarks/accuracy/graphs.yaml`."
    )
    tables = [one_set(task, methods, plan) for task, methods in found.items()]
    ones = checks(results).partition("\n\n")[2]
    left, planned = len(missing(results, plan)), len(plan.slots())
    rest = f"{left} of {planned} runs of this plan are missing." if left else ""
    return "\n\n".join(part for part in (text, *tables, ones, rest) if part)


def one_set(task: str, methods: dict[str, Summary], plan: Plan) -> str:
    """What was trained and what came out, method by method."""
    record = next(iter(methods.values())).records[0]
    config, clouds, labels = record["config"], record["clouds"], len(record["classes"])
    parts = "instance_iou" in record["test"]
    names = ("instance mIoU", "mIoU of parts") if parts else ("accuracy", "macro accuracy")
    heading = ["method", "trained", "in the encoder", "% of full", *names]
    heading += ["less full fine-tuning", "learning rate", "seeds"]
    full, rows = methods.get(FULL), []
    for method, summary in methods.items():
        inside = in_encoder(summary)
        gap = None if full is None or method == FULL else compare(summary, full)
        rates = sorted({one["config"]["lr"] for one in summary.records})
        rows.append(
            [
                method,
                f"{summary.records[0]['parameters']['trainable']:,}",
                f"{inside:,}",
                "" if full is None else f"{100 * inside / in_encoder(full):.1f}",
                spread_cell(summary.overall),
                spread_cell(summary.macro),
                gap_cell(gap),
                rate_cell(rates, plan.rates_of(task, method)),
                str(len(summary.overall)),
            ]
        )
    folds = plan.tasks[task].folds
    where = f" (in fold {config['fold']} of {len(folds)})" if folds else ""
    backbone = plan.backbone(task)
    text = (
        f"### {task}\n\n{'' if backbone is None else backbone.kind}; {labels} "
        f"{'parts' if parts else 'classes'}; {clouds['train']} clouds train, {clouds['val']} "
        f"validate, {clouds['test']} test{where}; {config['training']['num_points']} points, "
        f"{config['epochs']} epochs of batches of {config['training']['batch_size']}."
    )
    return f"{text}\n\n{markdown(heading, rows)}"


def in_encoder(summary: Summary) -> int:
    """Trained parameters outside head and decoder."""
    counts = summary.records[0]["parameters"]
    return counts["trainable"] - counts["head"] - counts["decoder"]
