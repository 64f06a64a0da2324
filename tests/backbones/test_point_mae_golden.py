"""Parity with the authors' Point-MAE: their weights, their clouds, their numbers."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyg_peft.backbones import PointMAE, PointMAEPretraining
from pyg_peft.backbones.weights import map_point_mae_decoder_keys, map_point_mae_keys

CLASSIFIER, PRETRAINING, QUERY = "pointmae_cls", "pointmae_pretrain", "pointpeft_mae_bankfeature"
# Reference tensors are rounded to float32; scalars and outputs are kept in float64.
STORED, EXACT, SINGLE, SINGLE_OUT = 1e-6, 1e-10, 2e-5, 5e-5


def flat(points: Tensor, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    return points.flatten(0, 1).to(dtype), torch.arange(len(points)).repeat_interleave(
        points.size(1)
    )


def relative_error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.detach() - expected).abs().max() / expected.abs().max()).item()


def record(modules, call) -> list[Tensor]:
    """Outputs of ``modules`` during ``call``."""
    outputs: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda *args: outputs.append(args[2])) for m in modules]
    call()
    for hook in hooks:
        hook.remove()
    return outputs


def classifier(case, dtype=torch.float64, **kwargs) -> PointMAE:
    model = PointMAE.from_checkpoint(
        case / "weights.npz", num_heads=6, num_centers=32, patch_size=16, **kwargs
    )
    return model.to(dtype).eval()


def pretraining(case, dtype=torch.float64) -> PointMAEPretraining:
    model = PointMAEPretraining.from_checkpoint(
        case / "weights.npz", num_heads=6, num_centers=32, decoder_num_heads=6
    )
    return model.to(dtype).eval()


def assert_gradient_norms(model, mapping: dict[str, list[str]], expected: dict[str, float]):
    """Compare gradient norms; a published tensor may be split into several of ours."""
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert sorted(name for names in mapping.values() for name in names) == sorted(ours)
    assert mapping.keys() == expected.keys()
    for key, names in mapping.items():
        gradients = [ours[name] for name in names]
        assert all(gradient is not None for gradient in gradients), key
        norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
        assert norm.item() == pytest.approx(expected[key], rel=1e-7), key


def published_to_ours(weights: dict[str, Tensor], norms: dict[str, float]) -> dict[str, list[str]]:
    mapping = {}
    for key in norms:
        encoder, rest = map_point_mae_keys({key: weights[key]})
        decoder, leftovers = map_point_mae_decoder_keys(rest)
        assert not leftovers
        mapping[key] = [*encoder, *decoder]
    return mapping


@pytest.mark.parametrize("case_name", [CLASSIFIER, PRETRAINING, QUERY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patches(golden, case_name, dtype):
    case = golden(case_name)
    pos, batch = flat(case.inputs["points"], dtype)
    model = PointMAE(2, 12, 1, 3, num_centers=32, patch_size=16)
    patches = model.make_patches(pos, batch)
    first = 512 * torch.arange(3)
    assert patches.mask is None
    assert torch.equal(patches.center_index - first[:, None], case.ref["fps_idx.0"].long())
    assert torch.equal(patches.index - first[:, None, None], case.ref["knn_idx"].long())
    assert relative_error(patches.points, case.ref["group.0"]) < STORED
    assert torch.equal(patches.center.float(), case.ref["group.1"])


@pytest.mark.parametrize(
    ("dtype", "inner", "outer", "logits"),
    [(torch.float64, STORED, EXACT, "logits"), (torch.float32, SINGLE, SINGLE_OUT, "logits__fp32")],
)
def test_classifier(golden, dtype, inner, outer, logits):
    case = golden(CLASSIFIER)
    model = classifier(case, dtype)
    pos, batch = flat(case.inputs["points"], dtype)
    patches = model.make_patches(pos, batch)
    blocks = record(model.blocks, lambda: model(pos=pos, batch=batch))

    assert relative_error(model.embed(patches), case.ref["patch_tokens"]) < inner
    assert relative_error(model.pos_embed(patches.center), case.ref["pos_embed"]) < inner
    for number, output in enumerate(blocks):
        assert relative_error(output, case.ref[f"block{number:02d}"]) < inner
    features = model.forward_features(patches)
    assert relative_error(features, case.ref["norm"]) < inner
    pooled = torch.cat([features[:, 0], features[:, 1:].amax(1)], dim=1)
    assert relative_error(pooled, case.ref["pooled"]) < inner
    assert relative_error(model(pos=pos, batch=batch), case.ref[logits]) < outer
    assert (
        relative_error(model(patches=patches, tokens=model.embed(patches)), case.ref[logits])
        < outer
    )


def test_classifier_gradients(golden):
    case = golden(CLASSIFIER)
    model = classifier(case)
    pos, batch = flat(case.inputs["points"])
    (model(pos=pos, batch=batch) * case.grad_probes["logits"]).sum().backward()
    norms = case.grad_norms["grad_l2_norm"]
    assert_gradient_norms(model, published_to_ours(case.weights, norms), norms)


@pytest.mark.parametrize(
    ("dtype", "inner", "outer", "suffix"),
    [(torch.float64, STORED, EXACT, ""), (torch.float32, SINGLE, SINGLE_OUT, "__fp32")],
)
def test_pretraining(golden, dtype, inner, outer, suffix):
    case = golden(PRETRAINING)
    model = pretraining(case, dtype)
    pos, batch = flat(case.inputs["points"], dtype)
    mask = case.inputs["mask"]
    encoder = record(model.blocks, lambda: model(pos, batch, mask=mask))
    decoder = record(model.decoder.blocks, lambda: model(pos, batch, mask=mask))
    norms = record([model.norm, model.decoder.norm], lambda: model(pos, batch, mask=mask))
    for number, output in enumerate(encoder):
        assert relative_error(output, case.ref[f"enc_block{number:02d}"]) < inner
    for number, output in enumerate(decoder):
        assert relative_error(output, case.ref[f"dec_block{number:02d}"]) < inner
    assert relative_error(norms[0], case.ref["enc_norm"]) < inner
    assert relative_error(norms[1], case.ref["dec_norm"]) < inner

    result = model.reconstruct(pos, batch, mask=mask)
    assert result.masked.mask is None
    assert result.visible.mask is None
    assert relative_error(result.points.flatten(0, 1), case.ref["rebuild_points"]) < inner
    assert relative_error(result.masked.points.flatten(0, 1), case.ref["gt_points"]) < inner
    loss = model(pos, batch, mask=mask)
    assert relative_error(loss[None], case.ref[f"loss_cdl2{suffix}"]) < outer


def test_pretraining_gradients(golden):
    case = golden(PRETRAINING)
    model = pretraining(case)
    pos, batch = flat(case.inputs["points"])
    loss = model(pos, batch, mask=case.inputs["mask"])
    (loss * case.grad_probes["loss_cdl2"]).sum().backward()
    norms = case.grad_norms["grad_l2_norm"]
    assert_gradient_norms(model, published_to_ours(case.weights, norms), norms)


def test_query_feature(golden):
    case = golden(QUERY)
    for dtype, limit, key in [
        (torch.float64, EXACT, "feature"),
        (torch.float32, SINGLE, "feature__fp32"),
    ]:
        model = classifier(case, dtype, num_classes=7)
        patches = model.make_patches(*flat(case.inputs["points"], dtype))
        assert relative_error(model.forward_query(patches), case.ref[key]) < limit
        tokens = model.embed(patches)
        assert relative_error(model.forward_query(patches, tokens=tokens), case.ref[key]) < limit


def test_pretraining_file_makes_the_same_classifier_either_way(golden):
    case = golden(PRETRAINING)
    direct = classifier(case, num_classes=4)
    turned = pretraining(case).to_classifier(4).eval()
    assert turned.config == direct.config
    pos, batch = flat(case.inputs["points"])
    patches = direct.make_patches(pos, batch)
    assert torch.equal(direct.forward_query(patches), turned.forward_query(patches))


def test_published_parameter_counts():
    with torch.device("meta"):
        model = PointMAE(num_classes=15)
    head = sum(parameter.numel() for parameter in model.head.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert head == 267_535
    assert total == 22_093_327  # published: 22.1 M


def test_key_manifest():
    """Names and shapes of saved weights are an interface: a change needs a migration."""
    with torch.device("meta"):
        models = {
            "PointMAE": PointMAE(15, 384, 1, in_channels=3),
            "PointMAEPretraining": PointMAEPretraining(384, 1, decoder_depth=1),
        }
    ours = {
        name: {key: list(value.shape) for key, value in model.state_dict().items()}
        for name, model in models.items()
    }
    manifest = Path(__file__).parent / "point_mae_keys.json"
    assert ours == json.loads(manifest.read_text())
