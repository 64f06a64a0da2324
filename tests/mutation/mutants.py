"""Mutation testing: does a test fail when the code is wrong?

cosmic-ray makes the mutants (a comparison the other way round, a number off by one, a loop that
never runs), keeps them in a session, and reports on it. This script draws a sample of them, chooses
the tests of each, and runs these in a fork of a process that has imported torch and the like, so
that a mutant costs seconds, not minutes. It is run by hand, for hours; ``tox run`` alone does not::

    tox run -e mutation -- sample /tmp/mutation            # copy the tree, draw 300 mutants
    tox run -e mutation -- map    /tmp/mutation --jobs 2   # which test runs which line
    tox run -e mutation -- run    /tmp/mutation --jobs 2   # again after an interruption: goes on
    tox run -e mutation -- report /tmp/mutation            # report.json, and what survived
    tox run -e mutation -- renew  /tmp/mutation            # today's tests, for survivors: map, run

**sample** copies what git tracks in this checkout to ``/tmp/mutation/original``. Each job works in
a copy of that, made anew when it begins (``../shared`` is linked beside them): nobody else's files
are ever changed, and a run that was interrupted leaves nothing behind. Of each place in the code at
most one mutant is drawn, from a seed. Left out is what no test of the code's behavior can see: type
annotations, ``__all__``, code under ``TYPE_CHECKING``, and mutants that do not compile or are the
same program.

**map** runs the tests of ``TESTS`` once under coverage.py, which notes the tests that run each
line, and how long each takes. Tests that fail in the copy are left out later.

**run** gives a mutant the tests that run its lines: those of the file named after the module first,
then those of its folder, then others, the shortest first, up to ``--budget`` seconds. The first
failure ends it. A mutant that no test runs survives. A timeout, a crash and memory without end
count as killed, as in cosmic-ray. Results are kept in ``session.sqlite`` at once; ``cr-report`` and
``cr-html`` read it.

**renew** takes the tests of this checkout and forgets the results of survivors. Then map the tests
that are new (``map /tmp/mutation --tests tests/nn/test_borders.py``), and run again.

**report** writes ``report.json``: numbers, by folder too, and each survivor with its diff and the
tests that it was given. Look at each survivor: write the test that kills it, or say why it is the
same program for every caller.
"""

import argparse
import ast
import compileall
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from warm_tests import TIMEOUT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What may run the mutated code; each entry is one run of pytest, so that two jobs share them.
TESTS = (
    *("tests/tuners", "tests/geometry", "tests/nn", "tests/backbones", "tests/datasets"),
    *("tests/testing", "tests/training", "tests/test_model.py", "tests/test_checkpoint.py"),
)
OPTIONS = (
    *("-q", "-p", "no:cacheprovider", "--no-header", "--tb=short"),
    # pytest would rewrite the assertions of plugins, which are imported before the fork.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
SPARE = 30.0  # seconds that every mutant gets beyond three times what its tests take


# ---- sample ------------------------------------------------------------------------------------


def configured() -> dict[str, Any]:
    """What cosmic-ray is told, of ``cosmic-ray.toml``."""
    return tomllib.loads((HERE / "cosmic-ray.toml").read_text())["cosmic-ray"]


def modules(root: Path) -> list[Path]:
    """The files to mutate, relative to the tree."""
    settings = configured()
    found = {path for folder in settings["module-path"] for path in (root / folder).rglob("*.py")}
    for pattern in settings["excluded-modules"]:
        found -= set(root.glob(pattern))
    return sorted(path.relative_to(root) for path in found)


def unseen_spans(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end, as (line, column), of code that no test of behavior can see."""
    spans: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for node in ast.walk(ast.parse(source)):
        hidden: ast.expr | ast.stmt | None = None
        match node:
            case ast.FunctionDef(returns=hidden) | ast.AsyncFunctionDef(returns=hidden):
                pass
            case ast.arg(annotation=hidden) | ast.AnnAssign(annotation=hidden):
                pass
            case ast.If(test=ast.Name("TYPE_CHECKING")) | ast.Assign(targets=[ast.Name("__all__")]):
                hidden = node
            case _:
                pass
        if hidden is not None:
            last = hidden.end_lineno or hidden.lineno, hidden.end_col_offset or hidden.col_offset
            spans.append(((hidden.lineno, hidden.col_offset), last))
    return spans


def same_program(source: str, mutated: str | None) -> bool:
    """Whether a mutant is none: there is nothing to mutate, it does not compile, or is equal."""
    if mutated is None:
        return True
    try:
        return ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source))
    except SyntaxError:
        return True


def positions(root: Path) -> dict[tuple[str, int, int], list[tuple[str, int, Any, Any]]]:
    """All mutants, by module and place: operator, occurrence, start and end."""
    from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import (  # pyright: ignore[reportMissingImports]
        get_operator,
        operator_names,
    )

    found: dict[tuple[str, int, int], list[tuple[str, int, Any, Any]]] = {}
    for module in modules(root):
        source = (root / module).read_text()
        hidden, nodes = unseen_spans(source), list(ast_nodes(get_ast(source)))
        for name in sorted(operator_names()):
            if get_operator(name).arguments():
                continue
            operator = get_operator(name)()
            places = [place for node in nodes for place in operator.mutation_positions(node)]
            for occurrence, (start, end) in enumerate(places):
                if not any(first <= start and end <= last for first, last in hidden):
                    key = (module.as_posix(), *start)
                    found.setdefault(key, []).append((name, occurrence, start, end))
    return found


def sample(work: Path, number: int, seed: int) -> None:
    """Copy the tree, and begin a session with so many mutants."""
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]
    from cosmic_ray.work_db import use_db  # pyright: ignore[reportMissingImports]
    from cosmic_ray.work_item import MutationSpec, WorkItem  # pyright: ignore[reportMissingImports]

    if (work / "session.sqlite").exists():
        raise SystemExit(f"Expected '{work}' to hold no session (got one): choose another folder")
    root = original(work)
    found, draw = positions(root), random.Random(seed)
    places, items = sorted(found), list[Any]()
    draw.shuffle(places)
    for place in places:
        if len(items) == number:
            break
        name, occurrence, start, end = draw.choice(found[place])
        source = (root / place[0]).read_text()
        if same_program(source, mutate_code(source, get_operator(name)(), occurrence)):
            continue
        spec = MutationSpec(place[0], name, occurrence, start, end)
        items.append(WorkItem.single(f"{place[0]}:{place[1]}:{place[2]}:{name}", spec))
    with use_db(work / "session.sqlite") as session:
        session.add_work_items(items)
    total = sum(map(len, found.values()))
    print(f"{len(items)} mutants, of {total:,} in {len(places):,} places, from seed {seed}")


def original(work: Path) -> Path:
    """A copy of what git tracks here, made if it is not there yet."""
    root = work / "original"
    if not root.exists():
        half = work / "original.half"
        command = ["git", "ls-files", "-z"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, half / name)
        # Compiled once; a pyc with a hash is not used for a source that was changed since.
        compileall.compile_dir(
            half / "pyg_peft", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
        shared = ROOT.parent / "shared"
        if shared.is_dir() and not (work / "shared").exists():
            (work / "shared").symlink_to(shared.resolve())
        half.rename(root)
    return root


# ---- tests -------------------------------------------------------------------------------------


class Warm:
    """A process of :mod:`warm_tests` that works in one copy of the tree."""

    def __init__(self, work: Path, number: int) -> None:
        self.work, self.number, self.root = work, number, work / f"tree-{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(original(work), self.root)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COVERAGE_FILE": str(work / "coverage" / f"data-{number}"),
        }
        environment.pop("PYG_PEFT_REQUIRE", None)
        command = [sys.executable, "-W", "ignore", str(HERE / "warm_tests.py")]
        self.process = subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Iterable[str], timeout: float, durations: Path | None = None) -> Any:
        """Run pytest with these arguments; see :func:`warm_tests.answer`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        output = self.work / f"output-{self.number}.txt"
        request: dict[str, Any] = {
            "arguments": [*OPTIONS, *arguments],
            "timeout": timeout,
            "output": str(output),
            "durations": None if durations is None else str(durations),
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("Expected the process that runs tests to answer (got its end)")
        return {**json.loads(line), "output": output.read_text(errors="replace")[-6000:]}

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def share_out(work: Path, jobs: int, tasks: Iterable[Any], do: Any) -> None:
    """Let so many warm processes, each with a tree of its own, work off the tasks."""
    todo, lock, failures = iter(tasks), threading.Lock(), list[BaseException]()

    def work_off(number: int) -> None:
        warm = Warm(work, number)
        try:
            while not failures:
                with lock:
                    task = next(todo, None)
                if task is None:
                    return
                do(warm, task, lock)
        except BaseException as error:
            failures.append(error)
        finally:
            warm.close()

    threads = [threading.Thread(target=work_off, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def map_tests(work: Path, jobs: int, tests: Iterable[str]) -> None:
    """Note which test runs which line, and how long each takes; what is noted is not run again."""
    (work / "coverage").mkdir(exist_ok=True)

    def run(warm: Warm, test: str, lock: threading.Lock) -> None:
        name = test.replace("/", ".")
        found = warm.run(
            [test, "--cov", "--cov-context=test", "--cov-report="],
            timeout=6 * 3600,
            durations=work / "coverage" / f"{name}.half",
        )
        if found["code"] not in (0, 1):
            raise SystemExit(f"{test} ended with {found['code']}:\n{found['output']}")
        data = work / "coverage" / f"data-{warm.number}"
        print(f"{test}: {found['seconds']:.0f} s", flush=True)
        with lock:
            data.replace(work / "coverage" / f"{name}.sqlite")
            (work / "coverage" / f"{name}.half").replace(work / "coverage" / f"{name}.json")

    left = [t for t in tests if not (work / "coverage" / f"{t.replace('/', '.')}.json").exists()]
    share_out(work, jobs, left, run)


class TestsOf:
    """Chooses the tests of a mutant by what ``map`` noted.

    Args:
        work: The folder of the session.
        budget: Seconds of tests that a mutant gets, as long as they took under coverage.
    """

    def __init__(self, work: Path, budget: float) -> None:
        from coverage import CoverageData

        self.root, self.budget = original(work), budget
        self.seconds: dict[str, float] = {}
        self.failing = list[str]()
        self.lines: dict[str, dict[int, set[str]]] = {}
        maps = sorted((work / "coverage").glob("*.json"))
        # A file that was mapped again, by itself, has other tests than the map of its folder says.
        again = {path.stem.removesuffix(".py"): path for path in maps if path.stem.endswith(".py")}
        for path in maps:
            for test, entry in json.loads(path.read_text()).items():
                file = test.partition("::")[0].removesuffix(".py").replace("/", ".")
                if again.get(file, path) != path:
                    continue
                if entry["passed"]:
                    self.seconds[test] = entry["seconds"]
                else:
                    self.failing.append(test)
            data = CoverageData(str(path.with_suffix(".sqlite")))
            data.read()
            for file in data.measured_files():
                if "tree-" not in file:  # code that PyG renders to a temporary file
                    continue
                name = file[file.index("pyg_peft/", file.rindex("tree-")) :]
                found = self.lines.setdefault(name, {})
                for line, contexts in data.contexts_by_lineno(file).items():
                    found.setdefault(line, set()).update(contexts)
        if not self.seconds:
            raise SystemExit(f"Expected '{work}' to have a map of the tests (got none): run 'map'")

    def choose(self, module: str, start: int, end: int) -> list[str]:
        """The tests of a mutant on these lines, in the order in which they are to run."""
        found = self.lines.get(module, {})
        contexts = {c for n in self._statement(module, start, end) for c in found.get(n, ())}
        tests = {context.partition("|")[0] for context in contexts} - {""}
        # A fixture of a module runs in the first test that asks for it; others use it too.
        shared = {c.partition("::")[0] for c in contexts if c.endswith("|setup")}
        tests |= {test for test in self.seconds if test.partition("::")[0] in shared}
        own = f"tests/{Path(module).parent.relative_to('pyg_peft')}/test_{Path(module).stem}"
        folder = "/".join(Path(module).parts[1:-1])

        def rank(test: str) -> tuple[int, float]:
            near = 0 if test.startswith(own) else 1 if test.startswith(f"tests/{folder}/") else 2
            return near, self.seconds[test]

        chosen, left = list[str](), self.budget
        for test in sorted(tests & self.seconds.keys(), key=rank):
            if self.seconds[test] <= left:
                chosen.append(test)
                left -= self.seconds[test]
        return chosen

    def _statement(self, module: str, start: int, end: int) -> set[int]:
        """Lines that run if the mutated ones matter: those of the statement, or of the function."""
        source = ast.parse((self.root / module).read_text())
        around = [
            node
            for node in ast.walk(source)
            if isinstance(node, ast.stmt) and node.lineno <= start and end <= (node.end_lineno or 0)
        ]
        found = self.lines.get(module, {})
        # What runs at import (constants, fields of classes, defaults of arguments) is noted for the
        # test that happened to import it; all that use the module or the function may depend on it.
        functions = [n for n in around if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        if not functions:
            return set(found)
        inner = max(functions, key=lambda node: node.lineno)
        if start < inner.body[0].lineno:
            return set(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
        for node in sorted(around, key=lambda node: -node.lineno):
            is_block = hasattr(node, "body")
            last = (node.end_lineno or node.lineno) if not is_block or start == node.lineno else end
            lines = set(range(node.lineno, last + 1))
            if any(found.get(line, set()) - {""} for line in lines):
                return lines
        return set(found)


# ---- run and report ----------------------------------------------------------------------------


def renew(work: Path) -> None:
    """Forget the results of survivors, and copy the tests of this checkout."""
    from cosmic_ray.work_db import use_db  # pyright: ignore[reportMissingImports]

    with use_db(work / "session.sqlite") as session:
        items = list(session.work_items)
        kept = [(i.job_id, r) for i, r in session.completed_work_items if r.is_killed]
        session.clear()
        session.add_work_items(items)
        for job, result in kept:
            session.set_result(job, result)
    shutil.rmtree(work / "original" / "tests")
    shutil.copytree(ROOT / "tests", work / "original" / "tests")


def run(work: Path, jobs: int, budget: float, limit: int | None, only: str) -> None:
    """Run the tests of each mutant that has no result yet."""
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]
    from cosmic_ray.work_db import use_db  # pyright: ignore[reportMissingImports]
    from cosmic_ray.work_item import (  # pyright: ignore[reportMissingImports]
        TestOutcome,
        WorkerOutcome,
        WorkResult,
    )

    tests = TestsOf(work, budget)
    if tests.failing:
        print(f"{len(tests.failing)} tests fail without a mutant and are left out", flush=True)

    def judge(warm: Warm, item: Any, lock: threading.Lock) -> None:
        (mutation,) = item.mutations
        path, module = warm.root / mutation.module_path, mutation.module_path.as_posix()
        source = path.read_text()
        operator = get_operator(mutation.operator_name)()
        mutated = mutate_code(source, operator, mutation.occurrence)
        chosen = tests.choose(module, mutation.start_pos[0], mutation.end_pos[0])
        taken = sum(tests.seconds[test] for test in chosen)
        found: dict[str, Any] = {"code": 0, "seconds": 0.0, "cpu": 0.0, "output": "no test runs it"}
        path.write_text(mutated)
        try:
            if chosen:
                found = warm.run(["-x", *chosen], timeout=3 * taken + SPARE)
        finally:
            path.write_text(source)
        is_unknown = found["code"] not in (0, 1, 2, 3, 4, TIMEOUT) and found["code"] >= 0
        # Code 4 is a mutant that cannot be imported, or a test that is not there.
        if is_unknown or (found["code"] == 4 and "ERROR: not found" in found["output"]):
            raise RuntimeError(f"Expected pytest to judge {item.job_id} (got {found})")
        survived = found["code"] == 0
        lines = difflib.unified_diff(source.split("\n"), mutated.split("\n"), lineterm="", n=2)
        given = {key: found[key] for key in ("code", "seconds", "cpu")} | {"tests": len(chosen)}
        result = WorkResult(
            WorkerOutcome.NORMAL,
            json.dumps(given) + "\n" + found["output"],
            TestOutcome.SURVIVED if survived else TestOutcome.KILLED,
            "\n".join(lines),
        )
        with lock:
            with use_db(work / "session.sqlite") as session:
                session.set_result(item.job_id, result)
            word = "SURVIVED" if survived else "killed"
            print(f"{word:8s} {found['seconds']:6.1f} s  {item.job_id}", flush=True)

    with use_db(work / "session.sqlite") as session:
        pending = sorted(session.pending_work_items, key=lambda item: item.job_id)
    pending = [item for item in pending if item.job_id.startswith(only)]
    random.Random(0).shuffle(pending)  # so that a part tells about the whole
    share_out(work, jobs, pending[:limit], judge)


def report(work: Path) -> None:
    """Write ``report.json`` and print its numbers and survivors."""
    from cosmic_ray.work_db import use_db  # pyright: ignore[reportMissingImports]

    with use_db(work / "session.sqlite") as session:
        done, total = list(session.completed_work_items), session.num_work_items
    if not done:
        raise SystemExit(f"Expected '{work}' to hold results (got none): run 'run'")
    folders: dict[str, dict[str, int]] = {}
    survivors = list[dict[str, Any]]()
    spent = {"seconds": 0.0, "cpu": 0.0}
    for item, result in sorted(done, key=lambda pair: pair[0].job_id):
        (mutation,) = item.mutations
        counts = folders.setdefault(
            mutation.module_path.parent.as_posix(), {"killed": 0, "survived": 0}
        )
        first, _, _ = (result.output or "").partition("\n")
        given = json.loads(first)
        spent = {key: value + given[key] for key, value in spent.items()}
        counts["killed" if result.is_killed else "survived"] += 1
        if not result.is_killed:
            survivors.append({"mutant": item.job_id, "tests": given["tests"], "diff": result.diff})
    killed = sum(counts["killed"] for counts in folders.values())
    content = {
        "mutants": total,
        "judged": len(done),
        "killed": killed,
        "killed_percent": round(100 * killed / len(done), 1),
        "spent_on_each": {key: round(value / len(done), 1) for key, value in spent.items()},
        "folders": folders,
        "survivors": survivors,
    }
    (work / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    for survivor in survivors:
        print(f"\n{survivor['mutant']}: survived {survivor['tests']} tests\n{survivor['diff']}")
    print(json.dumps({key: value for key, value in content.items() if key != "survivors"}))


def main() -> None:
    """Run one step, see the top of this file."""
    parser = argparse.ArgumentParser(description="mutation testing; see the top of this file")
    parser.add_argument("step", choices=["sample", "map", "renew", "run", "report"])
    parser.add_argument("work", type=Path, help="folder of the session, outside of any checkout")
    parser.add_argument("--number", type=int, default=300, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tests", nargs="+", default=TESTS, help="what to map")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests a mutant")
    parser.add_argument("--limit", type=int, help="mutants to judge now")
    parser.add_argument("--only", default="", help="of modules that begin so, as pyg_peft/nn")
    given = parser.parse_args()
    work = given.work.resolve()
    if work.is_relative_to(ROOT):
        raise SystemExit(f"Expected 'work' to lie outside of '{ROOT}' (got '{work}')")
    work.mkdir(parents=True, exist_ok=True)
    if given.step == "sample":
        sample(work, given.number, given.seed)
    elif given.step == "map":
        map_tests(work, given.jobs, given.tests)
    elif given.step == "renew":
        renew(work)
    elif given.step == "run":
        run(work, given.jobs, given.budget, given.limit, given.only)
    else:
        report(work)


if __name__ == "__main__":
    main()
