"""Every reader on damaged files: what is read is right, or an error names the file."""

import contextlib

import pytest
from fuzz.files import READERS, FileCase, draw_file, whole
from fuzz.runner import CASES, Finding, fuzz
from fuzz.sandbox import Sandbox

#: Packages that readers need beside the core.
EXTRAS = {"ply": "plyfile", "las": "laspy", "laz": "lazrs", "ScanObjectNN": "h5py"}
EXTRAS["result.json"] = "lightning"

#: Fewer cases, where each costs most: a model and a data set are opened for each ``result.json``,
#: files of a Point-MAE are large, and most backbones read their weights by the same code.
SLOW = {
    name: CASES // (8 if name in ("weights, PointTransformer", "weights, safetensors") else 4)
    for name in READERS
    if name == "result.json" or (name.startswith("weights, ") and "DGCNN" not in name)
}


def skip_without_extra(name: str) -> None:
    needed = EXTRAS.get(name.partition(",")[0])
    if needed is not None:
        pytest.importorskip(needed)


@pytest.mark.parametrize("name", READERS)
def test_reader(name: str, record_property):
    skip_without_extra(name)
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
    skip_without_extra(name)
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
