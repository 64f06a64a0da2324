"""The accuracy table: its plan, what it chooses, what it computes, and the page that it writes."""

import dataclasses
import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import environment

pytest.importorskip("yaml", reason="yaml is not installed")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "accuracy"
PLAN = """
data: {data}
weights: random
sizes: {{embed_dim: 24, depth: 2, num_heads: 3, num_centers: 8, patch_size: 8}}
rates: [1.0e-3, 3.0e-3]
training: {{batch_size: 16, num_views: 2, num_points: 64, val_fraction: 0.2, augmentation: rotate}}
main: &main [full_fine_tuning, linear_probe, point_peft]
claim: [full_fine_tuning, point_peft]
sets:
  small: {{file: tiny/tiny_modelnet10.npz, per_class: 4, seeds: 2, claim_seeds: 5, epochs: 1}}
  folded: {{file: some.npz, folds: [0, 1], seeds: 2, epochs: 1, methods: *main}}
"""


@pytest.fixture
def plan(modules: dict[str, Any], tmp_path: Path) -> Any:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(data=ROOT.parent / "shared" / "data"))
    return modules["plan_file"].load_plan(path)


def write(plan: Any, row: Any, folder: Path, val: float, test: int) -> None:
    """A finished row with a validation accuracy and ``test`` of 10 right in either class."""
    record = {
        "config": plan.config(row),
        "clouds": {"train": 30, "val": 10, "test": 20},
        "classes": ["a", "b"],
        "val": {"accuracy": val, "macro_accuracy": val, "loss": 1.0},
        "test": {"confusion": [[test, 10 - test], [0, 10]]},
        "batch_of_one": {"clouds": 4, "other_classes": 0, "largest_difference": 1e-7},
        "parameters": {"trainable": 9, "without_head": 5, "frozen": 7},
        "adapter_bytes": 2048,
        "bank_bytes": 0,
    }
    path = folder / row.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_the_page_is_what_the_results_say(modules: dict[str, Any]):
    table, plan = modules["table"], modules["plan_file"].load_plan(FOLDER / "plan.yaml")
    results = modules["finished"].Results(FOLDER / "results", plan)
    page = table.PAGE.read_text()
    graphs = modules["plan_file"].load_plan(FOLDER / "graphs.yaml")
    others = modules["finished"].Results(FOLDER / "results", graphs)
    written = table.replace(page, table.generate(results, plan, (others, graphs)))
    # What is missing also depends on the methods that the library has meanwhile.
    page, written = (text.partition("## Missing")[0] for text in (page, written))
    assert page == written, "run python benchmarks/accuracy/table.py"
    assert not results.stale + others.stale, (
        "rows of another configuration than the plan's are committed"
    )
    for task in table.collect(results, plan):
        assert (table.PAGE.parent / table.FIGURES / f"accuracy_{task}.png").is_file()


def test_every_method_is_planned_and_main_ones_come_first(modules: dict[str, Any], plan: Any):
    from pyg_peft.tuners import METHODS

    slots = plan.slots()
    assert {slot.method for slot in slots if slot.task == "small"} == set(METHODS)
    assert {slot.method for slot in slots if slot.task == "folded"} == set(plan.main)
    assert len(slots) == len(set(slots))
    first = slots[: 3 + 2 + 3 + 3 * 2 * 2]
    assert all(slot.method in plan.main for slot in first)
    chosen = list(modules["plan"].choose(slots, "small:point_peft,folded"))
    assert len(chosen) == 5 + 3 * 2 * 2
    assert sum(slot.method == "linear_probe" and slot.task == "small" for slot in slots) == 2
    with pytest.raises(ValueError, match=r"Expected 'rows' .* \(got nothing\)"):
        list(modules["plan"].choose(slots, "nothing"))


def test_the_rate_is_chosen_on_validation(modules: dict[str, Any], plan: Any, tmp_path: Path):
    Results, Slot, Row = (
        modules["finished"].Results,
        modules["plan"].Slot,
        modules["plan"].Row,
    )
    first, second = (Slot("folded", "point_peft", seed, 1) for seed in (0, 1))
    assert Results(tmp_path, plan).wanted(first) == [Row(first, 1e-3), Row(first, 3e-3)]
    assert Results(tmp_path, plan).wanted(second) == []
    write(plan, Row(first, 1e-3), tmp_path, val=0.6, test=1)
    write(plan, Row(first, 3e-3), tmp_path, val=0.5, test=9)
    results = Results(tmp_path, plan)
    assert results.wanted(first) == []
    assert results.wanted(second) == [Row(second, 1e-3)]
    assert results.record(first)["test"]["confusion"][0] == [1, 9]
    path = tmp_path / Row(first, 1e-3).file
    record = json.loads(path.read_text())
    record["config"]["epochs"] = 7
    path.write_text(json.dumps(record))
    assert Results(tmp_path, plan).stale == [Row(first, 1e-3)]
    assert Results(tmp_path, plan).record(first) is None


def test_a_row_of_other_defaults_is_stale(modules: dict[str, Any], plan: Any, tmp_path: Path):
    row = modules["plan"].Row(modules["plan"].Slot("small", "point_peft", 0, None), 1e-3)
    write(plan, row, tmp_path, val=0.6, test=1)
    path = tmp_path / row.file
    record = json.loads(path.read_text())
    record["resolved"] = modules["provenance"].resolve(plan, row)
    assert record["resolved"]["fit"]["lr"] == 1e-3
    path.write_text(json.dumps(record))
    assert row in modules["finished"].Results(tmp_path, plan)
    record["resolved"]["method"]["num_prompts"] = 5
    path.write_text(json.dumps(record))
    assert modules["finished"].Results(tmp_path, plan).stale == [row]
    # A setting that the library did not have then, or has no longer, says nothing.
    record["resolved"] = {"method": {"gone": 1}, "fit": {"lr": 1e-3}}
    path.write_text(json.dumps(record))
    assert row in modules["finished"].Results(tmp_path, plan)


def test_a_row_of_other_data_is_stale(modules: dict[str, Any], plan: Any, tmp_path: Path):
    plan = dataclasses.replace(plan, data=tmp_path / "data")
    row = modules["plan"].Row(modules["plan"].Slot("small", "point_peft", 0, None), 1e-3)
    write(plan, row, tmp_path, val=0.6, test=1)
    path, data = tmp_path / row.file, modules["provenance"].data_file(plan, row)
    record = {**json.loads(path.read_text()), "data_sha256": hashlib.sha256(b"old").hexdigest()}
    path.write_text(json.dumps(record))
    assert row in modules["finished"].Results(tmp_path, plan), "nothing here to compare it with"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"new")
    assert modules["finished"].Results(tmp_path, plan).stale == [row]


def test_summary_by_hand(modules: dict[str, Any], plan: Any, tmp_path: Path):
    Slot, Row, summary = modules["plan"].Slot, modules["plan"].Row, modules["summary"]
    right = {"full_fine_tuning": [(4, 6), (8, 8)], "point_peft": [(6, 8), (8, 10)]}
    sizes = {"train": 24, "val": 6, "test": 15}
    for method, seeds in right.items():
        for seed, folds in enumerate(seeds):
            for fold, hits in enumerate(folds):
                for lr in plan.rates:
                    row = Row(Slot("folded", method, seed, fold), lr)
                    write(plan, row, tmp_path, val=lr, test=hits)
    results = modules["finished"].Results(tmp_path, plan)
    full, peft = (summary.summarize(results, plan, "folded", name) for name in right)
    assert full.overall == pytest.approx({0: 0.75, 1: 0.9})
    assert peft.overall == pytest.approx({0: 0.85, 1: 0.95})
    gap = summary.compare(peft, full)
    assert (gap.mean, gap.error, gap.count) == pytest.approx((0.075, 0.025, 2))
    for record in [*peft.records, *full.records]:
        record["clouds"] = sizes
    # Folds are the same for all seeds: 0.05 and 0.1 over both, trained on overlapping sets.
    expected = 0.05 / 2**0.5 * (1 / 2 + 15 / 24) ** 0.5
    assert summary.compare(peft, full).corrected == pytest.approx(expected)
    for record in [*peft.records, *full.records]:
        record["config"]["fold"] = None
    assert summary.compare(peft, full).corrected is None, "the test set is always the same"
    for record in peft.records:
        record["config"]["test_fraction"] = 1 / 3
    corrected = summary.compare(peft, full).corrected
    assert corrected == pytest.approx(0.025 * 2**0.5 * (1 / 2 + 15 / 24) ** 0.5)
    text = modules["table"].generate(results, plan)
    assert "| folded | 82.5 ± 10.6 | 90.0 ± 7.1 |" not in text  # not one of the claim's sets
    assert "| full_fine_tuning | 9 | 5 | 100.0 | 2 | 0 | 82.5 ± 10.6 |" in text
    # The table has the corrected error of folds with 20 clouds of 30: 0.05 / sqrt(2), times 1.08.
    assert "| +7.5 ± 3.8 | 0.003 (end) | 2 |" in text and "linear_probe (4)" in text


def test_equal_rates_are_decided_by_the_loss(modules: dict[str, Any], plan: Any, tmp_path: Path):
    slot, Row = modules["plan"].Slot("small", "lora", 0, None), modules["plan"].Row
    for lr in plan.rates:
        write(plan, Row(slot, lr), tmp_path, val=0.5, test=1)
    path = tmp_path / Row(slot, plan.rates[1]).file
    record = json.loads(path.read_text())
    record["val"]["loss"] = 0.9
    path.write_text(json.dumps(record))
    assert modules["finished"].Results(tmp_path, plan).chosen(slot) == Row(slot, plan.rates[1])


def test_an_old_row_without_a_loss_counts_until_it_ties(
    modules: dict[str, Any], plan: Any, tmp_path: Path
):
    slot, Row = modules["plan"].Slot("small", "lora", 0, None), modules["plan"].Row
    for lr, val in zip(plan.rates, (0.5, 0.6), strict=True):
        write(plan, Row(slot, lr), tmp_path, val=val, test=1)
    path = tmp_path / Row(slot, plan.rates[0]).file
    record = json.loads(path.read_text())
    del record["val"]["loss"]
    path.write_text(json.dumps(record))
    assert modules["finished"].Results(tmp_path, plan).chosen(slot) == Row(slot, plan.rates[1])
    record["val"]["accuracy"] = 0.6
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"to record 'loss' on validation.*seed0_lr0.001.json"):
        modules["finished"].Results(tmp_path, plan).chosen(slot)


def test_rows_record_how_they_were_trained(modules: dict[str, Any], plan: Any, tmp_path: Path):
    row = modules["plan"].Row(modules["plan"].Slot("small", "point_peft", 0, None), 1e-3)
    resolved = modules["provenance"].resolve(plan, row)
    assert resolved["training"]["every_cloud"] is True
    older = {part: resolved[part] for part in ("method", "fit")}
    assert modules["provenance"].agrees(older, resolved), "older rows stay as they are"
    other = {**resolved, "training": {**resolved["training"], "every_cloud": False}}
    assert not modules["provenance"].agrees(other, resolved)


def test_the_claim_by_hand(modules: dict[str, Any], tmp_path: Path):
    sections, Summary = modules["sections"], modules["summary"].Summary

    def summary(scores: list[float], body: int) -> Any:
        counts = {"without_head": body, "trainable": body + 50}
        config = {"seed": 0, "fold": None}
        record = {"parameters": counts, "config": config, "clouds": {"train": 3, "test": 1}}
        return Summary(dict(enumerate(scores)), {}, [record])

    full = summary([0.80, 0.84], 1000)
    found = {
        "psb": {"full_fine_tuning": full, "point_peft": summary([0.82, 0.82], 50)},
        "sydney": {"full_fine_tuning": full, "point_peft": summary([0.79, 0.82], 50)},
        "bimnet10": {"full_fine_tuning": full, "point_peft": summary([0.9, 0.9], 51)},
        "psb_3x": {"full_fine_tuning": full, "point_peft": summary([0.9, 0.9], 50)},
        "lsood": {"full_fine_tuning": full, "point_peft": summary([0.9, 0.9], 50)},
    }
    text = sections.claim(found)
    assert "The claim holds on 1 of them (psb)" in text and "lsood" not in text
    row = "| psb | 82.0 ± 2.8 | 82.0 ± 0.0 | +0.00 | 2.00 |  | 2 | 5.0 % | 9.5 % | yes |"
    assert row in text
    assert "| sydney |" in text and "| -1.50 | 0.50 |  | 2 | 5.0 % | 9.5 % | no |" in text
    assert "5.1 % | 9.6 % | no |" in text, "too many parameters"


def test_only_seeds_that_all_have_are_compared(modules: dict[str, Any]):
    Summary, shared = modules["summary"].Summary, modules["summary"].of_shared_seeds
    records = [{"config": {"seed": seed}} for seed in range(3)]
    many = Summary({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.1, 1: 0.2, 2: 0.3}, records)
    few = Summary({1: 0.6}, {1: 0.6}, records[1:2])
    found = shared({"many": many, "few": few})
    assert found["many"].overall == {1: 0.7} and found["many"].macro == {1: 0.2}
    assert found["many"].records == records[1:2] and found["few"].overall == {1: 0.6}
    assert shared({"many": many, "none": Summary({5: 0.1}, {5: 0.1}, [])}) == {}


@pytest.mark.slow
def test_rows_from_end_to_end(plan: Any, shared_dir: Path, tmp_path: Path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft.tuners import METHODS

    command = [sys.executable, str(FOLDER / "run.py"), "--plan", str(tmp_path / "plan.yaml")]
    command += ["--results", str(tmp_path / "results"), "--rows", "small:point_peft"]

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], env=environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("--max_rows", "2")
    path, second = sorted((tmp_path / "results").rglob("*.json"))
    record = json.loads(path.read_text())
    assert record["features_found"] == {"train": 0, "val": 0, "test": 0}
    assert record["clouds"] == {"train": 30, "val": 10, "test": 100}
    assert sum(map(sum, record["test"]["confusion"])) == 100
    assert record["batch_of_one"]["other_classes"] == 0
    assert record["batch_of_one"]["largest_difference"] < 1e-5
    assert record["bank_bytes"] > 0
    assert 0 < record["parameters"]["without_head"] < record["parameters"]["trainable"]
    listed = run("--list")
    assert "2 rows are there" in listed and path.name not in listed
    # The second row read the features of the first, and alone it finds the same numbers.
    record = json.loads(second.read_text())
    assert record["features_found"] == {"train": 30, "val": 10, "test": 100}
    val, test = (f"{100 * record[split]['accuracy']:.2f} %" for split in ("val", "test"))
    again = run("--again", str(second.relative_to(tmp_path / "results")))
    assert f"val   {val} and now {val}" in again and f"test  {test} and now {test}" in again
    written = tmp_path / "results" / "again" / second.relative_to(tmp_path / "results")
    twice = json.loads(written.read_text())
    assert twice["before"]["test"] == twice["now"]["test"] and twice["now"]["commit"]
    command[1] = str(FOLDER / "step_cost.py")
    del command[4:]
    run("--rounds", "1", "--output", str(tmp_path / "step_cost.json"))
    costs = json.loads((tmp_path / "step_cost.json").read_text())["methods"]
    assert set(costs) == set(METHODS) and all(cost["cpu_seconds"] > 0 for cost in costs.values())
    assert costs["linear_probe"]["cached"] and not costs["full_fine_tuning"]["cached"]


def test_costs_and_repeated_rows_on_the_page(modules: dict[str, Any], plan: Any, tmp_path: Path):
    Results, Slot, Row = modules["finished"].Results, modules["plan"].Slot, modules["plan"].Row
    measured = modules["measured"]
    rows = [Row(Slot("small", name, 0, None), 1e-3) for name in ("full_fine_tuning", "lora")]
    steps: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        times = {"clouds": 16, "cpu_seconds": 0.32 / (1 + number), "peak_mebibytes": 100.0}
        origin = {"cached": number == 1, "config": plan.config(row)}
        steps[row.slot.method] = {**times, **origin}
    record = {"task": "small", "rounds": 2, "methods": steps}
    (tmp_path / "step_cost.json").write_text(json.dumps(record))
    text = measured.cost(tmp_path, plan)
    assert "| full_fine_tuning | 20.0 | 1.00 | 100 | 1.00 | from points |" in text
    assert "| lora | 10.0 | 0.50 | 100 | 1.00 | frozen tokens are kept |" in text
    steps["lora"]["config"] = {**steps["lora"]["config"], "epochs": 99}
    (tmp_path / "step_cost.json").write_text(json.dumps(record))
    assert "lora" not in measured.cost(tmp_path, plan)

    write(plan, rows[1], tmp_path, val=0.5, test=4)
    path = tmp_path / rows[1].file
    done = json.loads(path.read_text())
    done["test"]["accuracy"] = 0.7
    path.write_text(json.dumps(done))
    twice: dict[str, Any] = {"row": rows[1].file, "before": {"test": {"accuracy": 0.7}}}
    (tmp_path / "again").mkdir()
    file = tmp_path / "again" / "one.json"
    file.write_text(json.dumps({**twice, "now": {"test": {"accuracy": 0.65}}}))
    assert "lr0.001.json | 70.00 | 65.00 |  |" in measured.again(Results(tmp_path, plan), {})
    twice["before"]["test"]["accuracy"] = 0.6
    file.write_text(json.dumps({**twice, "now": {"test": {"accuracy": 0.65}}}))
    assert measured.again(Results(tmp_path, plan), {}) == "", "the row was replaced since"


def test_mistakes_in_a_plan_are_named(modules: dict[str, Any], tmp_path: Path):
    path, load = tmp_path / "plan.yaml", modules["plan_file"].load_plan
    text = PLAN.format(data=tmp_path)
    for wrong, match in (
        (text + "claims: [lora]\n", r"Expected keys of .* \(got claims\)"),
        (text.replace("claim_seeds", "main_seeds"), r"'small' to have keys .*main_seeds"),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=match):
            load(path)


def test_rates_of_a_set_of_its_own_or_of_another(modules: dict[str, Any], tmp_path: Path):
    Results, Slot, Row = (
        modules["finished"].Results,
        modules["plan"].Slot,
        modules["plan"].Row,
    )
    path = tmp_path / "plan.yaml"
    own = "  own: {file: some.npz, seeds: 1, epochs: 1, rates: [0.5, 0.25]}\n"
    other = "  other: {file: some.npz, folds: [0, 1], seeds: 1, epochs: 1, rates_of: own}\n"
    path.write_text(PLAN.format(data=tmp_path) + own + other)
    plan = modules["plan_file"].load_plan(path)
    searched, slot = Slot("own", "point_peft", 0, None), Slot("other", "point_peft", 0, 1)
    assert Results(tmp_path, plan).wanted(searched) == [Row(searched, 0.5), Row(searched, 0.25)]
    assert Results(tmp_path, plan).wanted(slot) == []
    write(plan, Row(searched, 0.5), tmp_path, val=0.4, test=1)
    write(plan, Row(searched, 0.25), tmp_path, val=0.5, test=1)
    assert Results(tmp_path, plan).wanted(slot) == [Row(slot, 0.25)]
    write(plan, Row(slot, 0.25), tmp_path, val=0.5, test=3)
    assert Results(tmp_path, plan).record(slot)["test"]["confusion"][0] == [3, 7]


def test_shapes_of_some_categories(modules: dict[str, Any], tmp_path: Path):
    from pyg_peft.datasets import ProceduralShapes

    pytest.importorskip("lightning", reason="lightning is not installed")
    cases: Any = importlib.import_module("cases")
    del sys.modules["cases"]
    shapes = ProceduralShapes(num_shapes=24)
    names = shapes.class_names[3], shapes.class_names[1]
    chosen = cases.of_categories(shapes, names)
    assert sorted(chosen.labels.tolist()) == [1, 1, 3, 3]
    with pytest.raises(ValueError, match=r"Expected 'categories' of the data \(got nothing\)"):
        cases.of_categories(shapes, ("nothing",))
    path = tmp_path / "plan.yaml"
    wrong = "  wrong: {file: some.npz, seeds: 1, epochs: 1, categories: [a]}\n"
    path.write_text(PLAN.format(data=tmp_path) + wrong)
    with pytest.raises(ValueError, match=r"'categories' of shapes with 'parts' \(got .*wrong"):
        modules["plan_file"].load_plan(path)
