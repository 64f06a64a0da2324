"""Adapters on the Hub: from a local cache and a stub, never over a network."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tuned import Way, logits, tiny_base

import pyg_peft
from pyg_peft.backbones import PointMAE
from pyg_peft.cli import main
from pyg_peft.errors import MissingExtraError
from pyg_peft.tuners.engine.hub import upload

hub: Any = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model whose adapter is in a cache as 'org/name', read offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cache = tmp_path / "cache"
    original = hub.snapshot_download
    monkeypatch.setattr(
        hub, "snapshot_download", lambda *args, **more: original(*args, **more, cache_dir=cache)
    )
    model = Way("point_peft", has_bank=True).awake()
    repo = cache / "models--org--name"
    model.save_pretrained(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.chdir(tmp_path)
    return model


def test_loading_by_name(cached: Any):
    loaded = pyg_peft.PeftModel.from_pretrained(tiny_base(), "org/name")
    assert torch.equal(logits(loaded), logits(cached))
    exact = pyg_peft.PeftModel.from_pretrained(tiny_base(), "org/name", revision=COMMIT)
    assert torch.equal(logits(exact), logits(cached))
    with pytest.raises(FileNotFoundError, match="adapter on the Hub that can be read"):
        pyg_peft.PeftModel.from_pretrained(tiny_base(), "org/other")
    with pytest.raises(FileNotFoundError, match="adapter on the Hub that can be read"):
        pyg_peft.load("org/name", revision="no_such_tag")


def test_a_local_folder_wins(cached: Any):
    other = Way("lora").awake()
    other.save_pretrained(Path("org", "name"))
    loaded = pyg_peft.PeftModel.from_pretrained(tiny_base(), os.path.join("org", "name"))
    assert torch.equal(logits(loaded), logits(other))


class Uploads(NamedTuple):
    """What the stub of the Hub was called with."""

    calls: list[tuple[str, Any]]
    sent: list[str]
    cards: list[str]


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    calls, sent, cards = found = Uploads([], [], [])

    class Api:
        def __init__(self, token: str | None = None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo_id: str, **more: Any) -> None:
            calls.append((repo_id, more))

        def upload_folder(self, *, folder_path: str, allow_patterns: list[str], **more: Any) -> str:
            names = [p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*.*")]
            cards.extend(path.read_text() for path in Path(folder_path).glob("README.md"))
            sent.extend(sorted(hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns)))
            return "commit"

    monkeypatch.setattr(hub, "HfApi", Api)
    return found


def test_push_uploads_the_files_of_the_adapter(uploads: Uploads, tmp_path: Path):
    calls, sent, cards = uploads
    model = Way("point_peft", has_bank=True).awake()
    assert model.push_to_hub("org/name", class_names=list("abcd"), private=True) == "commit"
    assert calls == [("token", None), ("org/name", {"private": True, "exist_ok": True})]
    assert 'pyg_peft.load("org/name")' in cards[0]
    assert sent[:3] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert len(sent) == 4 and sent[3].startswith("memory_bank.")
    for name in ("checkpoints/last.ckpt", "logs/metrics.csv", "adapter_config.json", "result.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    sent.clear()
    upload(tmp_path, "org/name", private=None, message="", token=None)
    assert sent == ["adapter_config.json"]
    with pytest.raises(ValueError, match="'repo_id' to be of the form 'org/name'"):
        model.push_to_hub("name")


def test_push_from_the_command_line(uploads: Uploads, tmp_path: Path, capsys: Any):
    pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
    adapter = tmp_path / "adapter"
    Way("point_peft", has_bank=True).awake().save_pretrained(adapter)
    own = (adapter / "README.md").read_text() + "\nMeasured in our hall.\n"
    (adapter / "README.md").write_text(own)
    (adapter / "result.json").write_text("{}")
    assert main(["push", str(adapter), "--repo", "org/name", "--private", "true"]) == 0
    assert "uploaded: commit" in capsys.readouterr().out
    assert uploads.calls[1] == ("org/name", {"private": True, "exist_ok": True})
    assert len(uploads.sent) == 4 and "result.json" not in uploads.sent
    assert uploads.cards == [own.replace('load("adapter")', 'load("org/name")')] != [own]
    assert (adapter / "README.md").read_text() == own


def test_push_refuses_what_cannot_be_loaded(uploads: Uploads, tmp_path: Path, capsys: Any):
    pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
    adapter = tmp_path / "adapter"
    Way("point_peft", has_bank=True).awake().save_pretrained(adapter)
    assert main(["push", str(adapter), "--repo", "name"]) == 2
    assert "'repo' to be of the form 'org/name' (got 'name')" in capsys.readouterr().err
    next(adapter.glob("memory_bank.*")).unlink()
    assert main(["push", str(adapter), "--repo", "org/name"]) == 2
    assert "memory_bank." in capsys.readouterr().err
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert main(["push", str(adapter), "--repo", "org/name"]) == 2
    assert main(["push", str(tmp_path / "nowhere"), "--repo", "org/name"]) == 2
    assert not uploads.calls


def test_commands_take_a_name(cached: Any, tmp_path: Path, capsys: Any):
    for package in ("jsonargparse", "lightning", "torchmetrics"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    base = PointMAE.from_pretrained("point-mae-tiny", num_classes=2)
    repo = next((tmp_path / "cache").glob("models--*")) / "snapshots" / COMMIT
    model = pyg_peft.get_peft_model(base, pyg_peft.LinearProbeConfig())
    model.save_pretrained(repo, class_names=["ball", "rod"], preprocessing={"num_points": 32})
    for kind in ("ball", "rod"):
        (tmp_path / "shapes" / kind).mkdir(parents=True)
        np.save(tmp_path / "shapes" / kind / "0.npy", np.random.default_rng(0).random((40, 3)))
    assert main(["inspect", "org/name"]) == 0
    assert "linear_probe" in capsys.readouterr().out
    assert main(["predict", "org/name", "shapes/ball/0.npy"]) == 0
    assert "0.npy" in capsys.readouterr().out
    assert main(["evaluate", "org/name", "--data", "shapes"]) == 0
    assert "(2 clouds)" in capsys.readouterr().out
    assert main(["predict", "org/other", "shapes/ball/0.npy"]) == 2
    assert "adapter on the Hub that can be read" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="hub"):
        pyg_peft.load("org/name")
    with pytest.raises(MissingExtraError, match="hub"):
        Way("lora").awake().push_to_hub("org/name")
