"""Every reader on damaged files: what is read is right, or an error names the file."""

import contextlib

import pytest
from fuzz.files import READERS, FileCase, draw_file, whole
from fuzz.runner import CASES, Finding, fuzz
from fuzz.sandbox import Sandbox

pytest.importorskip("plyfile")
pytest.importorskip("laspy")
pytest.importorskip("h5py")
pytest.importorskip("lightning")

#: Fewer cases, where each costs most: a model and a data set are opened for each ``result.json``,
#: and the backbones below read their weights by the same code as the others.
SLOW = {
    "result.json": CASES // 4,
    "weights, PointTransformer": CASES // 8,
    "weights, PointTransformerSegmentation": CASES // 8,
    "weights, PointNetPlusPlusSegmentation": CASES // 4,
    "weights, DGCNNSegmentation": CASES // 4,
}


@pytest.mark.parametrize("name", READERS)
def test_reader(name: str, record_property):
    fuzz(
        lambda draw: draw_file(draw, name),
        record_property,
        name=name,
        cases=SLOW.get(name, CASES),
        warm=lambda: whole(name),
    )


@pytest.mark.parametrize(
    "name", [name for name, reader in READERS.items() if reader.crafted is not dict]
)
def test_crafted_files(name: str, record_property):
    findings: list[str] = []
    count = {"right": 0, "refused": 0, "found": 0}
    with contextlib.closing(Sandbox(warm=lambda: whole(name))) as sandbox:
        for what, content in READERS[name].crafted().items():
            case = FileCase(name, content, what)
            verdict = sandbox(case)
            count[verdict.outcome if verdict.good else "found"] += 1
            if not verdict.good:
                findings.append(f"{verdict.outcome}: {verdict.detail}\n  in {case}")
    record_property("fuzz", list(count.items()))
    if findings:
        raise Finding("\n".join(findings))
