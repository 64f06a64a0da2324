"""Compare methods on your own data, by the protocol of the library's accuracy table.

Every method has the same budget and the same search of learning rates, chosen on validation clouds.
Test clouds are classified once per method and seed, and choose nothing. The folder given by
--output receives report.html, results.csv, table.tex, and the adapters. The same command continues
an interrupted comparison, with the same numbers.
"""

import json
import os
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.cli import IMPORTED
from pyg_peft.cli.comparing.experiment import Experiment, Job, Results, name_data
from pyg_peft.cli.comparing.summary import Table, rank, summarize
from pyg_peft.cli.comparing.tables import (
    WIDTH,
    as_csv,
    as_latex,
    blocks,
    cells,
    heading,
    notes,
    rank_lines,
)
from pyg_peft.cli.comparing.work import open_base, open_data
from pyg_peft.cli.comparing.workers import do_all
from pyg_peft.cli.device import find_device
from pyg_peft.cli.fit import AUGMENTATIONS, groups_of
from pyg_peft.cli.method import make_config, make_model
from pyg_peft.cli.report.comparison import write_comparison
from pyg_peft.cli.say import say
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import MissingExtraError, check_count, check_number
from pyg_peft.loading import backbone_class as find_class
from pyg_peft.loading import default_weights
from pyg_peft.storage import claim_folder, remove_leftovers, write_atomic
from pyg_peft.training.comparing.draws import draw
from pyg_peft.training.data.fingerprint import data_fingerprint
from pyg_peft.training.data.sources import shorthands
from pyg_peft.tuners import METHODS
from pyg_peft.viz.figure import style

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DEFAULT = "point_peft,lora,linear_probe,full_fine_tuning"
REFERENCE = "full_fine_tuning"
CSV, LATEX, REPORT = "results.csv", "table.tex", "report.html"
_MOST_JOBS = 4  # by default; each process needs memory of its own


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`."""
    parser.add_function_arguments(run)
    parser.epilog = f"--data is one of\n{shorthands()}"


def rewrite(arguments: list[str]) -> list[str]:
    """Join several ``--data`` options into one with a list.

    Example:
        >>> rewrite(["--data", "a.npz", "--seeds=2", "--data=b.npz"])
        ['--seeds=2', '--data=["a.npz", "b.npz"]']
    """
    given: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--data":
            others.append(argument)
            continue
        given.append(value if equals else next(rest, ""))
    if len(given) < 2:
        return arguments
    return [*others, f"--data={json.dumps(given)}"]


def run(  # noqa: PLR0913, since each argument is an option of the command
    data: str | list[str],
    output: str,
    preprocessing: Preprocessing,
    methods: str | list[str] = DEFAULT,
    seeds: int = 3,
    rates: list[float] = [1e-3, 3e-3, 1e-2],  # noqa: B006, which is only read
    epochs: int = 10,
    reference: str | None = None,
    method_args: dict[str, dict[str, Any]] | None = None,
    backbone: str | None = None,
    backbone_class: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    data_args: dict[str, Any] | None = None,
    bank: bool = True,
    augmentation: str = "scale_translate",
    num_views: int = 4,
    batch_size: int = 16,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    shots: int | None = None,
    group_field: str | None = None,
    jobs: int | None = None,
    device: str = "auto",
) -> Table:
    """Compare methods.

    Args:
        data: Labeled clouds, as in fit; the help of this command ends with the shorthands. Repeat
            the option for several data sets.
        output: Folder of the results.
        preprocessing: Number of points, normalization and up axis.
        methods: Names of the methods, separated by commas.
        seeds: Number of repetitions. A seed changes the validation split, the order of the clouds,
            the views and the new weights; without a test split, also the test clouds.
        rates: Learning rates of the search. All are tried with the first seed, and the one that is
            best on validation clouds is used for the others.
        epochs: Number of epochs of each run.
        reference: Method to which the others are compared; by default full_fine_tuning, or the
            first method.
        method_args: Settings of methods, for example {"lora": {"rank": 4}}.
        backbone: Name of shipped weights, a file, or "random". The default are the shipped weights
            for the backbone_class.
        backbone_class: Name of the model; PointMAE by default.
        backbone_args: Constructor arguments, for example {"num_centers": 128}.
        data_args: Arguments of all data sets.
        bank: Whether methods that use a memory bank get one of the training clouds.
        augmentation: "scale_translate", "rotate" or "none".
        num_views: Number of versions of each training cloud. Frozen features are computed once for
            each version.
        batch_size: Maximum number of clouds per step.
        val_fraction: Share of the training clouds for validation, unless there is such a split.
        test_fraction: Share of all clouds for testing, unless there is a test split.
        shots: Few-shot protocol: number of training clouds per class. As many others are used for
            validation, and the test split, or the rest, for testing.
        group_field: Per-cloud field of an .npz file; clouds of the same group are kept in the same
            split.
        jobs: Number of processes, each with one thread; by default one per CPU, at most 4, or 1 on
            a GPU. The numbers do not depend on it.
        device: "cpu", "cuda", "cuda:1" and so on; "auto" is a GPU if there is one.
    """
    names = _names(methods)
    compared = reference or (REFERENCE if REFERENCE in names else names[0])
    if compared not in names:
        raise ValueError(f"Expected 'reference' to be one of {', '.join(names)} (got {compared!r})")
    place = find_device(device)
    kind = find_class(backbone_class, "classification")
    experiment = Experiment(
        data=name_data([data] if isinstance(data, str) else data),
        methods=names,
        seeds=seeds,
        rates=tuple(rates),
        method_args=method_args or {},
        training={
            "backbone": default_weights(kind) if backbone is None else backbone,
            "backbone_class": backbone_class,
            "backbone_args": backbone_args or {},
            "data_args": data_args or {},
            "bank": bank,
            "augmentation": augmentation,
            "num_views": num_views,
            "epochs": epochs,
            "batch_size": batch_size,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "shots": shots,
            "group_field": group_field,
        },
        preprocessing=preprocessing,
        device=str(place),
        modules=tuple(IMPORTED),
    )
    _check(experiment)
    count = _check_jobs(jobs, place.type)
    experiment = _opened(experiment)
    folder = Path(output)
    results = Results(folder, experiment)
    results.check()
    folder.mkdir(parents=True, exist_ok=True)
    with claim_folder(folder, "output") as held:
        results.check()
        if held:
            _remove_parts(folder)
        results.begin()
        _work(results, count)
        table = summarize(results, compared)
        _write_tables(table, folder, compared)
        _write_report(table, results, compared)
        shutil.rmtree(folder / "features", ignore_errors=True)
    _show(table, results, compared)
    return table


def _names(methods: str | list[str]) -> tuple[str, ...]:
    given = methods.split(",") if isinstance(methods, str) else methods
    names = tuple(dict.fromkeys(name.strip() for name in given if name.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ValueError(
            f"Expected 'methods' to be of {', '.join(METHODS)} (got {', '.join(unknown) or 'none'})"
        )
    return names


def _check(experiment: Experiment) -> None:
    """Raise for settings that no data set can meet."""
    training = experiment.training
    check_count(experiment.seeds, "seeds", least=1)
    for name in ("epochs", "num_views", "batch_size"):
        check_count(training[name], name, least=1)
    if training["shots"] is not None:
        check_count(training["shots"], "shots", least=1)
        if training["group_field"] is not None:
            raise ValueError(
                "Expected 'group_field' to be None with 'shots', which draws single clouds "
                f"(got {training['group_field']!r})"
            )
    for name in ("val_fraction", "test_fraction"):
        check_number(training[name], name, above=0, below=1)
    if not experiment.rates or len(set(experiment.rates)) != len(experiment.rates):
        raise ValueError(
            f"Expected 'rates' to be different learning rates (got {list(experiment.rates)})"
        )
    for rate in experiment.rates:
        check_number(rate, "rates", above=0)
    if training["augmentation"] not in AUGMENTATIONS:
        raise ValueError(
            f"Expected 'augmentation' to be one of {', '.join(AUGMENTATIONS)} "
            f"(got {training['augmentation']!r})"
        )
    unknown = sorted(set(experiment.method_args) - set(experiment.methods))
    if unknown:
        raise ValueError(
            f"Expected 'method_args' to be settings of {', '.join(experiment.methods)}, by name "
            f"(got {', '.join(unknown)})"
        )
    for method in experiment.methods:
        make_config(method, experiment.method_args.get(method, {}))


def _check_jobs(jobs: int | None, device: str) -> int:
    if jobs is not None:
        return check_count(jobs, "jobs", least=1)
    if device != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(_MOST_JOBS, count)


def _opened(experiment: Experiment) -> Experiment:
    """Open all data sets, and try whether every method fits; return the settings with hashes."""
    training, found = experiment.training, dict[str, str]()
    for name, spec in experiment.data.items():
        splits = open_data(spec, json.dumps(training["data_args"]))
        drawn = draw(
            splits,
            0,
            val_fraction=training["val_fraction"],
            test_fraction=training["test_fraction"],
            shots=training["shots"],
            groups=groups_of(splits.train, training["group_field"]),
        )
        classes = len(splits.class_names)
        if classes < 2:
            raise ValueError(
                f"Expected '{spec}' to have two classes or more (got {splits.class_names})"
            )
        found[name] = data_fingerprint(splits, spec)[:16]
        sizes = [f"{len(part):,}" for part in (drawn.train, drawn.val, drawn.test)]
        anew = ", each seed anew" if drawn.resampled else ""
        say(
            f"{name}: {sizes[0]} clouds train, {sizes[1]} validate, {sizes[2]} test{anew}; "
            f"{classes} classes"
        )
    for method in experiment.methods:
        make_model(
            open_base(experiment, 2, 0), method, experiment.method_args.get(method, {}), None, 0
        )
    return replace(experiment, fingerprints=found)


def _remove_parts(folder: Path) -> None:
    """Remove what a killed comparison left half done; its cells begin again."""
    for path in folder.glob(".part_*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in [folder, *folder.glob("cells/*/*"), folder / "features"]:
        if path.is_dir():
            remove_leftovers(path, "*")


def _work(results: Results, jobs: int) -> None:
    done, total = results.count()
    if done:
        say(f"{done} of {total} runs are there")

    def tell(job: Job) -> None:
        record = results.get(job)
        if job.tests or record is None:
            return
        count, every = results.count()
        say(
            f"[{count}/{every}] {job.cell}: validation "
            f"{100 * record['val']['accuracy']:.1f} %, {record['seconds']:.0f} s"
        )

    do_all(results, jobs, tell)


def _write_tables(table: Table, folder: Path, reference: str) -> None:
    for name, text in ((CSV, as_csv(table)), (LATEX, as_latex(table, reference))):
        write_atomic(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))


def _write_report(table: Table, results: Results, reference: str) -> None:
    try:
        style()
    except MissingExtraError as error:
        say(f"no {REPORT} is written: {error}")
        return
    write_comparison(results.folder / REPORT, table, results, reference)


def _show(table: Table, results: Results, reference: str) -> None:
    for name, own in table.items():
        say(f"\n{name}\n")
        for line in blocks([heading(reference), *(cells(one) for one in own.values())]):
            say(line)
    ranks = rank(table)
    if ranks is not None:
        say("\nall data sets\n")
        for line in rank_lines(ranks):
            say(line)
    ends = [one for own in table.values() for one in own.values() if one.at_end]
    say()
    lines = notes(results, table)
    if ends:
        lines.append("(end): a rate at an end of --rates; a better one may lie outside.")
    for line in lines:
        say(textwrap.fill(line, WIDTH))
    files = [name for name in (REPORT, CSV, LATEX) if (results.folder / name).exists()]
    say(f"\n{results.folder}: {', '.join(files)}, adapters/")
