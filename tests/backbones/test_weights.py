"""Files of weights: what is understood, and what each kind of misfit says."""

import argparse
import collections
import datetime
import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pyg_peft.backbones import (
    PointMAE,
    PointMAECompletion,
    PointMAEPretraining,
    PointMAESegmentation,
)
from pyg_peft.backbones.weights import map_point_mae_keys, read_state_dict, strip_prefix
from pyg_peft.backbones.weights.shipped import PretrainedFile, find_pretrained
from pyg_peft.errors import CheckpointError

SIZES = {"num_heads": 6, "num_centers": 32, "patch_size": 16}


@pytest.fixture
def weights(golden):
    return dict(golden("pointmae_cls").weights)


@pytest.fixture
def pretrained_weights(golden):
    return dict(golden("pointmae_pretrain").weights)


def authors_file(weights) -> dict[str, Any]:
    """What the authors' training script saves, metrics and wrapper prefixes included."""
    return {
        "base_model": {f"module.{key}": value for key, value in weights.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4}]},
        "epoch": 299,
        "metrics": {"acc": np.float64(85.2)},
        "best_metrics": {"acc": np.float32(85.2), "count": np.int64(3)},
    }


def assert_holds(state, weights):
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)


def test_every_kind_of_file_holds_the_same(weights, tmp_path):
    torch.save(authors_file(weights), tmp_path / "a.pth")
    torch.save(weights, tmp_path / "b.pt")
    save_file(weights, tmp_path / "c.safetensors")
    np.savez(tmp_path / "d.npz", **{key: value.numpy() for key, value in weights.items()})
    for name in ("a.pth", "b.pt", "c.safetensors", "d.npz"):
        assert_holds(read_state_dict(tmp_path / name), weights)
        assert_holds(read_state_dict(str(tmp_path / name)), weights)
    assert_holds(read_state_dict(authors_file(weights)), weights)
    assert_holds(read_state_dict({f"base_model.{k}": v for k, v in weights.items()}), weights)
    frozen = {key: value.numpy().copy() for key, value in weights.items()}
    for array in frozen.values():
        array.flags.writeable = False
    assert_holds(read_state_dict(frozen), weights)


def test_sizes_come_from_the_weights(weights, pretrained_weights):
    model = PointMAE.from_checkpoint(weights, **SIZES)
    assert (model.embed_dim, model.depth, model.num_classes) == (96, 4, 10)
    model = PointMAE.from_checkpoint(pretrained_weights, 3, **SIZES)
    assert (model.embed_dim, model.depth, model.num_classes) == (96, 4, 3)
    model = PointMAEPretraining.from_checkpoint(pretrained_weights)
    assert (model.embed_dim, model.depth, model.patch_size, model.decoder_depth) == (96, 4, 16, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_precision_does_not_change_the_models(weights, dtype):
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    model = PointMAE.from_checkpoint(stored, **SIZES)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_own_state_dicts_load_back(weights, pretrained_weights, tmp_path):
    model = PointMAE.from_checkpoint(weights, **SIZES)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    again = PointMAE.from_checkpoint(tmp_path / "own.safetensors", **SIZES)
    assert_holds(again.state_dict(), model.state_dict())

    autoencoder = PointMAEPretraining.from_checkpoint(pretrained_weights)
    torch.save(autoencoder.state_dict(), tmp_path / "own.pth")
    again = PointMAEPretraining.from_checkpoint(tmp_path / "own.pth")
    assert_holds(again.state_dict(), autoencoder.state_dict())
    classifier = PointMAE.from_checkpoint(tmp_path / "own.pth", 4, **SIZES)
    name = "blocks.3.mlp.fc1.weight"
    assert torch.equal(classifier.get_parameter(name), autoencoder.get_parameter(name))


def test_pretraining_files_leave_head_and_summary_token_fresh(pretrained_weights):
    torch.manual_seed(0)
    first = PointMAE.from_checkpoint(pretrained_weights, 3, **SIZES)
    torch.manual_seed(1)
    second = PointMAE.from_checkpoint(pretrained_weights, 3, **SIZES)
    torch.manual_seed(0)
    third = PointMAE.from_checkpoint(pretrained_weights, 3, **SIZES)
    differing = {
        key.split(".")[0]
        for key, value in first.state_dict().items()
        if not torch.equal(value, second.state_dict()[key])
    }
    assert differing == {"head"}  # the token is the same for everyone, an adapter may rely on it
    assert_holds(third.state_dict(), first.state_dict())
    assert 0 < first.cls_token.abs().max() < 0.1
    assert not torch.equal(first.cls_token, first.cls_pos)


def test_point_peft_layout_splits_into_base_and_leftovers(weights):
    extra = {"prompt_cor": torch.zeros(10, 96), "blocks.blocks.0.adapter.ln1.bias": torch.zeros(8)}
    mapped, leftovers = map_point_mae_keys({**weights, **extra})
    assert_holds(leftovers, extra)
    model = PointMAE.from_checkpoint(weights, **SIZES)
    assert_holds(mapped, model.state_dict())


def test_leftover_missing_and_wrong_are_all_named(weights):
    with pytest.raises(
        CheckpointError, match=r"belong to PointMAE \(got leftover: 'bonus\.weight'\)"
    ):
        PointMAE.from_checkpoint({**weights, "bonus.weight": torch.zeros(3)}, **SIZES)

    broken = dict(weights)
    del broken["blocks.blocks.2.mlp.fc1.bias"]
    broken["pos_embed.0.weight"] = torch.zeros(128, 4)
    broken["blocks.blocks.0.attn.qkv.bias"] = torch.zeros(288)
    with pytest.raises(CheckpointError) as caught:
        PointMAE.from_checkpoint(broken, **SIZES)
    assert str(caught.value) == (
        "Expected 'source' to fit PointMAE (got leftover: 'blocks.0.attn.qkv.bias'; "
        "missing: 'blocks.2.mlp.fc1.bias'; "
        "wrong shape: 'pos_embed.0.weight [128, 4] instead of [128, 3]')"
    )


def test_a_gap_in_the_blocks_is_named(weights):
    gap = {key: value for key, value in weights.items() if not key.startswith("blocks.blocks.1.")}
    with pytest.raises(
        CheckpointError, match=r"missing: 'blocks\.1\.attn\.proj\.bias'.* and 3 more"
    ):
        PointMAE.from_checkpoint(gap, **SIZES)


def test_a_malformed_joint_layer_is_named(weights):
    weights["encoder.second_conv.0.weight"] = torch.zeros(512, 511, 1)
    with pytest.raises(CheckpointError, match=r"leftover: 'encoder\.second_conv\.0\.weight'"):
        PointMAE.from_checkpoint(weights, **SIZES)


def test_the_same_tensor_under_two_names_is_an_error(weights):
    twice = {**weights, "MAE_encoder.norm.bias": weights["norm.bias"]}
    with pytest.raises(CheckpointError, match=r"with and without the prefix 'MAE_encoder\.'"):
        PointMAE.from_checkpoint(twice, **SIZES)
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.norm1\.bias' once"):
        map_point_mae_keys({**weights, "blocks.0.norm1.bias": torch.zeros(96)})
    assert strip_prefix({"a.b": torch.ones(1), "c": torch.ones(1)}, "a.").keys() == {"b", "c"}


def test_number_of_classes(weights, pretrained_weights):
    with pytest.raises(ValueError, match=r"'num_classes' to be 10.*got 15.*reset_head\(15\)"):
        PointMAE.from_checkpoint(weights, 15, **SIZES)
    assert PointMAE.from_checkpoint(weights, 10, **SIZES).num_classes == 10
    with pytest.raises(ValueError, match=r"'num_classes' to be given.*got None"):
        PointMAE.from_checkpoint(pretrained_weights, **SIZES)


def test_files_of_another_model(weights, pretrained_weights, tmp_path):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"Point-MAE family.*'norm\.weight'.*'layer\.weight'"):
        PointMAE.from_checkpoint(tmp_path / "other.pth", 3)
    with pytest.raises(CheckpointError, match=r"'decoder\.reconstruction\.bias'"):
        PointMAEPretraining.from_checkpoint(weights)
    pretrained_weights["cls_token"] = torch.zeros(1, 1, 96)
    with pytest.raises(CheckpointError, match=r"fit PointMAEPretraining.*leftover: 'cls_token'"):
        PointMAEPretraining.from_checkpoint(pretrained_weights)


def test_content_that_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match=r"named tensors .got Tensor"):
        read_state_dict(tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match=r"named tensors .got int under 'epoch'"):
        read_state_dict({"weight": torch.zeros(3), "epoch": 3})
    with pytest.raises(CheckpointError, match=r"named tensors .got dict in a mapping"):
        read_state_dict({})


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "a.npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files(weights, tmp_path, name, damage):
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in weights.items()})
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(authors_file(weights), path)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(CheckpointError, match=rf"intact \{path.suffix} file of tensors .got "):
        PointMAE.from_checkpoint(path, **SIZES)


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.safetensors", "a.npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a Git LFS pointer; run 'git lfs pull' in its repository",
        ),
        (b"\n <!DOCTYPE html>\n<html><body>404</body></html>", "a web page; download the file"),
        (b"\xef\xbb\xbf<HTML><head>", "a web page; download the file itself"),
    ],
)
def test_what_was_stored_instead_of_weights_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"of tensors \(got {message}.*{name}'\)"):
        read_state_dict(path)


def test_code_in_a_file_does_not_run(tmp_path):
    class Foreign:
        def __reduce__(self):
            return (pytest.fail, ("the file's code ran",))

    torch.save({"base_model": Foreign()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Foreign(), protocol=2))
    np.savez(tmp_path / "object.npz", weight=np.array([Foreign()], dtype=object))
    for name in ("zip.pth", "plain.pth", "object.npz"):
        with pytest.raises(CheckpointError, match=r"intact|plain values \(got an object of"):
            read_state_dict(tmp_path / name)


def test_a_member_that_is_no_array(weights, tmp_path):
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in weights.items()})
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("norm2.npy", b"no array")
    with pytest.raises(CheckpointError, match=r"named tensors .got bytes under 'norm2'"):
        read_state_dict(tmp_path / "a.npz")


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'source' to be a file .got .*absent\.pth"):
        PointMAE.from_checkpoint(tmp_path / "absent.pth")
    for name in ("weights.onnx", "weights.tar", "pth"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match=rf"end in \.pth, .*got '{name}'"):
            PointMAE.from_checkpoint(tmp_path / name)


def test_shipped_weights(weights, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Expected 'name' to be .*got 'point-mae-huge'"):
        PointMAE.from_pretrained("point-mae-huge")

    save_file(weights, tmp_path / "small.safetensors")
    digest = hashlib.sha256((tmp_path / "small.safetensors").read_bytes()).hexdigest()
    files = {"small": PretrainedFile("small.safetensors", digest, SIZES)}
    path, sizes = find_pretrained("small", files, tmp_path)
    assert PointMAE.from_checkpoint(path, **sizes).num_classes == 10
    with pytest.raises(ValueError, match=r"one of 'small' .got 'big'"):
        find_pretrained("big", files, tmp_path)
    damaged = {"small": PretrainedFile("small.safetensors", "0" * 64, SIZES)}
    with pytest.raises(CheckpointError, match="to have the hash 0000"):
        find_pretrained("small", damaged, tmp_path)

    monkeypatch.setattr("pyg_peft.backbones.weights.shipped.SHIPPED", files)
    monkeypatch.setattr("pyg_peft.backbones.weights.shipped._FOLDER", tmp_path)
    model = PointMAE.from_pretrained("small", num_centers=20)
    assert (model.num_centers, model.patch_size) == (20, 16)


@pytest.mark.parametrize(
    "kind", [PointMAE, PointMAESegmentation, PointMAEPretraining, PointMAECompletion]
)
def test_a_size_that_the_weights_tell_must_agree(kind):
    more = {"decoder_num_heads": 3} if issubclass(kind, PointMAEPretraining) else {"num_classes": 4}
    small = {"embed_dim": 24, "depth": 3, "num_heads": 3, **more}
    state = kind(**small).state_dict()
    given = {k: v for k, v in small.items() if k != "num_classes"}
    assert kind.from_checkpoint(state, **given).depth == 3
    with pytest.raises(ValueError, match=r"'depth' to be left out or 3, .* the weights \(got 2\)"):
        kind.from_checkpoint(state, **{**given, "depth": 2})
    with pytest.raises(ValueError, match=r"'embed_dim' to be left out or 24, .* \(got 48\)"):
        kind.from_checkpoint(state, **{**given, "embed_dim": 48})


@pytest.mark.parametrize("kind", [PointMAE, PointMAESegmentation])
def test_a_size_of_shipped_weights_must_agree(kind):
    with pytest.raises(ValueError, match=r"'depth' to be left out or 6, .* the weights \(got 2\)"):
        kind.from_pretrained("point-mae-tiny", num_classes=4, depth=2)


# ---- files as training frameworks write them --------------------------------------------------

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.zeros(1)}
BESIDE = {
    "args": argparse.Namespace(lr=np.float64(1e-3), out=Path("runs"), on=np.bool_(True)),
    "config": {"when": datetime.datetime(2024, 1, 2), "win": PureWindowsPath("a")},
    "metrics": {"acc": np.float32(1.0), "name": np.str_("x"), "curve": np.ones((3, 2))},
    "seen": {1, 2},
    "rng": np.random.RandomState(0).get_state(),
    "counts": collections.Counter("aab"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "name", ["a.pth", "a.PTH", "a.pt", "a.pth.tar", "a.Pt.Tar", "a.bin", "a.CKPT"]
)
def test_files_with_arguments_and_metrics_beside_the_weights(name, zipped, tmp_path):
    torch.save(
        {"state_dict": WEIGHTS, **BESIDE},
        tmp_path / name,
        _use_new_zipfile_serialization=zipped,
    )
    assert_holds(read_state_dict(tmp_path / name), WEIGHTS)


PREFIXES = [
    *("_orig_mod.", "model.", "module.", "module._orig_mod.", "_orig_mod.module.model."),
    *("model.model.", "model.base_model._orig_mod.module.", "model._fsdp_wrapped_module."),
    *("_forward_module.", "_forward_module.module.model.", "model._forward_module."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_nesting(prefix):
    assert_holds(read_state_dict({f"{prefix}{k}": v for k, v in WEIGHTS.items()}), WEIGHTS)


@pytest.mark.parametrize(
    "prefix", ["", "model.", "module.", "_forward_module.", "_forward_module.model."]
)
def test_averaged_weights(prefix):
    """As torch's AveragedModel has them, plain and inside other wrappers."""
    layers = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(2, 2)})
    averaged = torch.optim.swa_utils.AveragedModel(layers)
    averaged.update_parameters(layers)
    state = {f"{prefix}{key}": value for key, value in averaged.state_dict().items()}
    assert f"{prefix}n_averaged" in state
    assert_holds(read_state_dict(state), layers.state_dict())
    # Beside other weights it is no number of this wrapper, and is not dropped.
    assert "n_averaged" in read_state_dict({**WEIGHTS, "n_averaged": torch.tensor(3)})


def test_names_that_a_compiler_puts_into_a_key():
    named = {"a._orig_mod.weight": WEIGHTS["a.weight"], "b.bias": WEIGHTS["b.bias"]}
    assert_holds(read_state_dict(named), WEIGHTS)
    with pytest.raises(CheckpointError, match="each tensor once"):
        read_state_dict({**named, "a.weight": WEIGHTS["a.weight"]})


@pytest.mark.parametrize(
    "folders", [("state_dict", "model"), ("model", "state_dict"), ("model", "base_model", "model")]
)
def test_dictionaries_in_any_nesting(folders):
    content: dict[str, Any] = WEIGHTS
    for folder in folders:
        content = {folder: content, "epoch": 3}
    assert_holds(read_state_dict(content), WEIGHTS)


def test_a_dictionary_that_holds_itself():
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(CheckpointError, match="named tensors"):
        read_state_dict(content)


def test_arrays_in_a_pickled_file(tmp_path):
    arrays = {k: np.asfortranarray(v.numpy()) for k, v in WEIGHTS.items()}
    arrays["c"] = np.arange(4, dtype=">i4")
    torch.save(arrays, tmp_path / "a.pth")
    found = read_state_dict(tmp_path / "a.pth")
    assert found.pop("c").tolist() == [0, 1, 2, 3]
    assert_holds(found, WEIGHTS)
    torch.save({"a": np.array([{}, 1], dtype=object)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"something else than numbers.*under 'a'"):
        read_state_dict(tmp_path / "b.pth")


class Runs:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_refused_type_is_named_with_the_remedy(zipped, tmp_path):
    cases = {"torch.nn.modules.linear.Linear": torch.nn.Linear(2, 2)}
    cases |= {f"{os.mkdir.__module__}.mkdir": Runs(tmp_path / "made")}
    for name, value in cases.items():
        torch.save(
            {"state_dict": WEIGHTS, "extra": value},
            tmp_path / "a.pth",
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(CheckpointError) as caught:
            read_state_dict(tmp_path / "a.pth")
        message = str(caught.value)
        assert f"an object of '{name}'" in message and "torch.save(model.state_dict(), " in message
        assert "\x1b" not in message and "\n" not in message and "intact" not in message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.empty(2, device="meta"), "on the meta device"),
        (torch.eye(2).to_sparse(), "a sparse one"),
        (3.0, "got float"),
    ],
)
def test_weights_without_values(value, message):
    with pytest.raises(CheckpointError, match=f"{message}.*under 'a'"):
        read_state_dict({"a": value})


# ---- what a file claims is not built before it is checked --------------------------------------


def test_an_archive_that_grows(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(40_000_000, np.float32))
    with pytest.raises(CheckpointError, match="to unpack to at most 100 times"):
        read_state_dict(tmp_path / "bomb.npz")


def test_an_array_that_claims_more_than_its_file_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
        )
        file.write(bytes(12))
    with pytest.raises(CheckpointError, match=r"'a\.npy' .*of shape \[1125899906842624\]"):
        read_state_dict(tmp_path / "a.npz")


@pytest.mark.parametrize("number", ["999999999", "9" * 5000])
def test_a_block_far_beyond_the_others_builds_nothing(weights, number):
    huge = {**weights, f"blocks.blocks.{number}.norm1.weight": torch.zeros(96)}
    with pytest.raises(CheckpointError, match="to number the blocks of 'blocks' from 0 on"):
        PointMAE.from_checkpoint(huge, **SIZES)
    with pytest.raises(CheckpointError, match="to number the blocks of 'blocks' from 0 on"):
        PointMAESegmentation.from_checkpoint(huge, 3, **SIZES)


@pytest.mark.parametrize("width", [10**8, 10**12])
def test_a_width_that_the_tensors_do_not_have_builds_nothing(weights, width):
    wide = {**weights, "norm.weight": torch.zeros(1).expand(width)}
    with pytest.raises(CheckpointError, match="'source'"):
        PointMAE.from_checkpoint(wide, **{**SIZES, "num_heads": 1})


def test_a_decoder_far_beyond_the_others_builds_nothing(pretrained_weights):
    huge = {**pretrained_weights, "MAE_decoder.blocks.999999999.norm1.weight": torch.zeros(96)}
    with pytest.raises(CheckpointError, match=r"to number the blocks of 'decoder\.blocks'"):
        PointMAEPretraining.from_checkpoint(huge)


def test_a_negative_variance_is_refused(weights):
    key = next(key for key in weights if key.endswith("running_var"))
    weights[key] = weights[key].clone()
    weights[key][1] = -1e38
    with pytest.raises(CheckpointError, match=r"running_var' of 'source' to hold variances"):
        PointMAE.from_checkpoint(weights, **SIZES)


def test_a_damaged_pickle_gives_no_warning(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"\x80P" + bytes(60))
    with warnings.catch_warnings(), pytest.raises(CheckpointError, match=r"damaged\.pth"):
        warnings.simplefilter("error")
        read_state_dict(tmp_path / "damaged.pth")
