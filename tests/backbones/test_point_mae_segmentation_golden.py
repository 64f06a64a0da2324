"""Parity with the authors' network for parts: their weights, their clouds, their numbers.

Their weights are 27 million random signs, too many for ``tests/golden``: the case is read from
``../shared``. What fits is in ``tests/golden/pointmae_seg_category``.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.backbones.layers.segmentation_head import CategoryEmbedding
from pyg_peft.backbones.point_mae.segmentation_files import map_segmentation_keys
from pyg_peft.backbones.weights import map_point_mae_keys

CASE = "pointmae_seg"
STORED = 1e-6  # reference tensors are rounded to float32


def relative_error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.detach() - expected).abs().max() / expected.abs().max()).item()


def model_of(case, dtype=torch.float64) -> PointMAESegmentation:
    return PointMAESegmentation.from_checkpoint(case / "weights.npz").to(dtype).eval()


def call(model: PointMAESegmentation, case) -> Tensor:
    """Log-probabilities ``[B, N, K]``, as the authors' network returns them."""
    points = case.inputs["points"].to(model.norm.weight.dtype)
    pos, batch = points.flatten(0, 1), torch.arange(3).repeat_interleave(points.size(1))
    category = case.inputs["cls_label_onehot"].argmax(dim=1)
    scores = model(pos=pos, batch=batch, category=category)
    return scores.log_softmax(dim=-1).unflatten(0, (3, -1))


def joint_key(weights: dict[str, Tensor], key: str) -> list[str]:
    """Our names of one of their tensors; the layer on the concatenation needs its neighbor."""
    encoder, rest = map_point_mae_keys({key: weights[key]})
    if key == "convs1.weight":
        rest["propagation_0.mlp_convs.1.bias"] = weights["propagation_0.mlp_convs.1.bias"]
    head, leftovers = map_segmentation_keys(rest)
    assert not leftovers
    return [*encoder, *(name for name in head if key != "convs1.weight" or "_proj" in name)]


def test_every_tensor_and_the_gradients(golden):
    case = golden(CASE)
    model = model_of(case)
    sizes = [model.config[name] for name in ("depth", "num_levels", "num_categories")]
    assert [*sizes, model.num_classes] == [12, 3, 16, 50]
    assert sum(p.numel() for p in model.parameters()) == 27_063_730
    seen: dict[str, Tensor] = {}
    for name in ("blocks.3", "blocks.11", "head.norm2", "head.category"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda *args, name=name: seen.update({name: args[2]}))
    log_probs = call(model, case)

    assert relative_error(seen["blocks.3"][..., ::8], case.ref["block03_s8"]) < STORED
    assert relative_error(seen["blocks.11"][..., ::8], case.ref["block11_s8"]) < STORED
    per_point = seen["head.norm2"].relu().unflatten(0, (3, -1)).transpose(1, 2)
    assert relative_error(per_point[:, ::16, ::4], case.ref["propagated_s16"]) < STORED
    assert relative_error(seen["head.category"].unsqueeze(-1), case.ref["label_feature"]) < STORED
    assert relative_error(log_probs, case.ref["log_probs"]) < STORED

    labels = case.inputs["seg_labels"].long()
    loss = F.nll_loss(log_probs.flatten(0, 1), labels.flatten())
    (loss * float(case.grad_probes["nll"])).backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    compared: list[str] = []
    for key, expected in case.grad_norms["grad_l2_norm"].items():
        names = joint_key(case.weights, key)
        gradients = [gradient for name in names if (gradient := ours[name]) is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert norm.item() == pytest.approx(expected, rel=1e-7), key
        compared += names
    assert sorted(compared) == sorted(ours)


def test_single_precision(golden):
    case = golden(CASE)
    with torch.no_grad():
        log_probs = call(model_of(case, torch.float32), case)
    assert relative_error(log_probs, case.ref["log_probs"]) < 5e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, STORED), (torch.float32, 2e-5)])
def test_category_alone(golden, dtype, tolerance):
    case = golden("pointmae_seg_category")
    module = CategoryEmbedding(16, 64)
    state = {f"label_conv.{key}": value for key, value in case.weights.items()}
    mapped, leftovers = map_segmentation_keys(state)
    assert not leftovers
    prefix = "head.category."
    module.load_state_dict({key.removeprefix(prefix): value for key, value in mapped.items()})
    feature = module.to(dtype).eval()(case.inputs["cls_label_onehot"].argmax(dim=1))
    assert relative_error(feature.unsqueeze(-1), case.ref["label_feature"]) < tolerance
