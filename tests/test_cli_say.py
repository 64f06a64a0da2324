"""What the command line prints of names that come from files, and what it reads of YAML."""

import json
import logging
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from commands import fit, write_set

from pyg_peft.cli import _check_arguments, main, make_parser
from pyg_peft.cli.say import PrintableFormatter, printable, say

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ESCAPES = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e\u2028"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("say")
    assert main(fit(write_set(folder / "set.npz", 24), folder / "adapter", epochs=1)) == 0
    return folder / "adapter"


def test_no_character_that_a_terminal_acts_on():
    text = printable(ESCAPES + "\udcff é 椅子\n")
    assert text.isprintable() and text.startswith("\\x1b[2J") and text.endswith(" é 椅子\\n")
    assert printable("a\nb", keep="\n") == "a\nb"


def test_predict_prints_no_escapes_out_of_file_names(adapter, tmp_path, capfd):
    names = [f"a{ESCAPES}.npy", "new\nline.npy", os.fsdecode(b"no\xff\xfeutf8.npy")]
    for name in names:
        np.save(tmp_path / name, np.random.default_rng(0).random((60, 3)))
    assert main(["predict", str(adapter), str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert len(out.splitlines()) == 3 and all(line.isprintable() for line in out.splitlines())
    (tmp_path / names[0]).write_bytes(b"")
    assert main(["predict", str(adapter), str(tmp_path)]) == 2
    err = capfd.readouterr().err
    assert "\\x1b[2J" in err and not any(c in err for c in "\x1b\x07\r\x9b\u202e\u2028")


def test_strings_out_of_an_adapter_print_no_escapes(adapter, tmp_path, capfd):
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    result = json.loads((copy / "result.json").read_text())
    result["run"]["data"] = f"{ESCAPES}/nowhere"
    (copy / "result.json").write_text(json.dumps(result))
    assert main(["evaluate", str(copy)]) == 2
    err = capfd.readouterr().err
    assert "nowhere" in err and not any(c in err for c in "\x1b\x07\r\x9b\u202e\u2028")


def test_messages_of_the_library_print_no_escapes(capfd):
    record = logging.LogRecord("pyg_peft", logging.INFO, "", 0, "read %s\nb", (ESCAPES,), None)
    assert PrintableFormatter("%(message)s").format(record) == f"read {printable(ESCAPES)}\nb"
    say(f"a\n{ESCAPES}")
    assert capfd.readouterr().out == f"a\n{printable(ESCAPES)}\n"


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "at most 100,000 values"),
        (f"data_args: {{{BOMB.strip().replace(chr(10), ', ')}}}", "at most 100,000 values"),
        ("data_args: &a {x: *a}", "no alias within its own value"),
        (f"data_args: {'[' * 5000}", "of less depth"),
    ],
    ids=["bomb", "inner", "cycle", "deep"],
)
def test_a_configuration_that_grows_is_refused_at_once(text, message, tmp_path, capsys):
    (tmp_path / "bomb.yaml").write_text(text)
    began = time.monotonic()
    assert main(["inspect", "--config", str(tmp_path / "bomb.yaml")]) == 2
    assert time.monotonic() - began < 30
    assert message in capsys.readouterr().err


def test_nor_does_a_text_that_is_read_as_yaml_grow(tmp_path, capsys):
    inner = f"{{{BOMB.strip().replace(chr(10), ', ')}}}"
    (tmp_path / "text.yaml").write_text(f"method_args: {json.dumps(inner)}\n")
    for arguments in (["--config", str(tmp_path / "text.yaml")], ["--method_args", inner]):
        assert main(["inspect", *arguments]) == 2
        assert "at most 100,000 values" in capsys.readouterr().err
    assert main(["inspect", f"--method_args={inner}"]) == 2


def test_aliases_of_a_usual_file_are_read(tmp_path):
    from pyg_peft.cli.bounded_yaml import check_size

    text = "method: lora\nmethod_args: &a {rank: 2}\nbackbone_args: {}\n"
    check_size(text)
    (tmp_path / "usual.yaml").write_text(text)
    parser, _ = make_parser("inspect")
    assert parser.parse_args(["--config", str(tmp_path / "usual.yaml")]).method_args == {"rank": 2}


@pytest.mark.parametrize("target", ["blocks.**", "**", "*", "a*: b*", "blocks.*.attn.qkv", "'*'"])
def test_globs_are_texts_and_no_aliases(target, tmp_path):
    """A text that holds a star is read as YAML to see whether it grows, and only once."""
    wanted = {"target_modules": [target]}
    (tmp_path / "glob.yaml").write_text(f"method_args: {json.dumps(wanted)}\n")
    parser, _ = make_parser("inspect")
    for arguments in (
        ["--config", str(tmp_path / "glob.yaml")],
        ["--method_args", json.dumps(wanted)],
        [f"--method_args.target_modules=[{json.dumps(target)}]"],
    ):
        _check_arguments(arguments)
        assert parser.parse_args(arguments).method_args == wanted
