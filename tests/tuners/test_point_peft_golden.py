"""Parity of the whole network with the released Point-PEFT, faults included where asked for."""

import pytest
import torch
from torch import Tensor

from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.contract import TokenStructures
from pyg_peft.backbones.weights import read_state_dict
from pyg_peft.errors import CheckpointError
from pyg_peft.geometry import Structure
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.nn import MemoryBank
from pyg_peft.tuners import PointPEFTConfig
from pyg_peft.tuners.methods.point_peft.released import split_point_peft

CASES = ["pointpeft_mae_nobank", "pointpeft_mae_full"]
NUM_PROMPTS, NUM_PATCHES, SIZES = 10, 32, {"num_heads": 6, "num_centers": 32, "patch_size": 16}


def released_model(case, dtype=torch.float64) -> PeftModel:
    state, has_bank = read_state_dict(case / "weights.npz"), "bank" in case.inputs
    base_state, adapter = split_point_peft(state, has_bank=has_bank)
    base = PointMAE.from_checkpoint(base_state, **SIZES)
    bank = None
    if "bank" in case.inputs:
        # The authors keep one column per sample, and use it as it is as key and as value.
        bank = MemoryBank(case.inputs["bank"].T.contiguous())
    model = get_peft_model(base, PointPEFTConfig.authors(k=8), memory_bank=bank)
    model.to(dtype).load_tensors(adapter)
    return model.eval()


def faulty_structure(
    neighbors: Tensor, centers: Tensor, pos: Tensor, center_pos: Tensor, num_prompts: int
) -> Structure:
    """The authors' edges: indices of stride 32 into rows of stride 32 + num_prompts."""
    num_clouds, num_centers = center_pos.shape[:2]
    stride = NUM_PATCHES + num_prompts

    def token_rows(flat: Tensor) -> Tensor:
        return flat // stride * (stride + 1) + 1 + flat % stride  # a cls token leads each cloud

    # Their distances: |a|^2 + |b|^2 - 2ab, from every patch to every center of its cloud.
    squared = (pos**2).sum(-1, keepdim=True) + (center_pos**2).sum(-1)[:, None]
    weight = 1.0 / (squared - 2.0 * pos @ center_pos.transpose(1, 2) + 1e-8)  # [B, 32, S]
    weight = weight / weight.sum(-1, keepdim=True)
    cloud = torch.arange(num_clouds)[:, None, None]
    patch = torch.arange(NUM_PATCHES)[:, None]
    receiver = cloud * (stride + 1) + 1 + num_prompts + patch
    sender = cloud * num_centers + torch.arange(num_centers)
    degree = neighbors.numel() // centers.numel()
    return Structure(
        center_index=token_rows(centers),
        edge_index=torch.stack(
            [token_rows(neighbors), torch.arange(len(centers)).repeat_interleave(degree)]
        ),
        interp_index=torch.stack(
            [sender.expand_as(weight).flatten(), receiver.expand_as(weight).flatten()]
        ),
        interp_weight=weight.flatten(),
        degree=degree,
        interp_degree=num_centers,
    )


def faulty_structures(case, dtype, clouds: slice = slice(None)) -> TokenStructures:
    ref = case.ref

    def part(level: str, pos: str, num_prompts: int) -> Structure:
        first = clouds.start or 0
        neighbors = ref[f"{level}.2"].view(3, -1)[clouds] - first * NUM_PATCHES
        centers = ref[f"{level}.3"].view(3, -1)[clouds] - first * NUM_PATCHES
        return faulty_structure(
            neighbors.flatten(),
            centers.flatten(),
            ref[pos][clouds].to(dtype),
            ref[f"{level}.1"][clouds].to(dtype),
            num_prompts,
        )

    return TokenStructures(part("lvl2p", "group2.1", NUM_PROMPTS), part("lvl2", "group.1", 0))


def flat(points: Tensor, dtype) -> dict[str, Tensor]:
    batch = torch.arange(len(points)).repeat_interleave(points.size(1))
    return {"pos": points.flatten(0, 1).to(dtype), "batch": batch}


def query_of(case, dtype, clouds: slice = slice(None)) -> dict[str, Tensor]:
    return {"query": case.inputs["cp_feat"][clouds].to(dtype)} if "bank" in case.inputs else {}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "suffix", "tolerance"),
    [(torch.float64, "", 1e-8), (torch.float32, "__fp32", 5e-5)],
)
def test_equals_the_authors_with_their_edges(golden, name, dtype, suffix, tolerance):
    case = golden(name)
    model = released_model(case, dtype)
    out = model(
        **flat(case.inputs["points"], dtype),
        **query_of(case, dtype),
        structure=faulty_structures(case, dtype),
    )
    expected = case.ref[f"logits{suffix}"]
    assert (out - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_equals_the_authors_on_one_cloud(golden, name):
    case, dtype = golden(name), torch.float64
    model = released_model(case)
    for cloud in range(3):
        one = slice(cloud, cloud + 1)
        out = model(
            **flat(case.inputs["points"][one], dtype),
            **query_of(case, dtype, one),
            structure=faulty_structures(case, dtype, one),
        )
        expected = case.ref[f"logits_single_{cloud}"]
        assert (out - expected).abs().max() <= 1e-8 * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_is_batch_invariant_where_the_authors_are_not(golden, name):
    case, dtype = golden(name), torch.float64
    model = released_model(case)
    together = model(**flat(case.inputs["points"], dtype), **query_of(case, dtype))
    alone, theirs_alone = [], []
    for cloud in range(3):
        one = slice(cloud, cloud + 1)
        alone.append(model(**flat(case.inputs["points"][one], dtype), **query_of(case, dtype, one)))
        theirs_alone.append(case.ref[f"logits_single_{cloud}"])
    assert torch.allclose(torch.cat(alone), together, rtol=0, atol=1e-11)
    difference = (torch.cat(theirs_alone) - case.ref["logits"]).abs().amax(1)
    assert difference[0] < 1e-9 and difference[1] > 1.0 and difference[2] > 1.0


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_all_that_is_trained(golden, name):
    case, dtype = golden(name), torch.float64
    model = released_model(case)
    structures = faulty_structures(case, dtype)
    out = model(**flat(case.inputs["points"], dtype), **query_of(case, dtype), structure=structures)
    (out * case.grad_probes["logits"]).sum().backward()
    norms = case.grad_norms["grad_l2_norm"]
    ours = {key: t.grad for key, t in model._adapters.tensors("default").items()}
    compared = 0
    for key, expected in norms.items():
        state = {key: torch.zeros(case.weights[key].shape)}
        _, names = split_point_peft(state, has_bank="bank" in case.inputs)
        for name in names:
            # The structure is handed in, so prompt positions get no gradient; the gate is ours.
            if name.endswith(("prompt_pos", ".gate")):
                continue
            gradient = ours[name]
            norm = 0.0 if gradient is None else float(gradient.norm())
            assert norm == pytest.approx(expected or 0.0, rel=1e-6), key
            compared += 1
    assert compared == len(ours) - 1 - 8 - sum("running" in k or "tracked" in k for k in ours)


def test_prompt_positions_get_the_authors_gradient(golden):
    """Through the interpolation weights, which are all that depends on positions smoothly."""
    case, dtype = golden("pointpeft_mae_full"), torch.float64
    model = released_model(case)
    prompt_pos = case.weights["prompt_cor"].to(dtype).requires_grad_()
    points = case.inputs["points"].to(dtype)
    cloud = torch.cat([prompt_pos.expand(3, -1, -1), points], dim=1)
    first = case.ref["fps_idx.1"].long()[:, :, None].expand(-1, -1, 3)
    pos = cloud.gather(1, first)
    second = case.ref["fps_idx.3"].long()[:, :, None].expand(-1, -1, 3)
    plain, given = faulty_structures(case, dtype).plain, case.ref
    assert torch.equal(pos.detach().float(), given["group2.1"])
    prompted = faulty_structure(
        given["lvl2p.2"], given["lvl2p.3"], pos, pos.gather(1, second), NUM_PROMPTS
    )
    out = model(
        **flat(case.inputs["points"], dtype),
        **query_of(case, dtype),
        structure=TokenStructures(prompted, plain),
    )
    (out * case.grad_probes["logits"]).sum().backward()
    expected = case.grad_norms["grad_l2_norm"]["prompt_cor"]
    assert prompt_pos.grad is not None
    assert float(prompt_pos.grad.norm()) == pytest.approx(expected, rel=1e-5)


def test_unknown_keys_are_named(golden):
    state = dict(read_state_dict(golden("pointpeft_mae_nobank") / "weights.npz"))
    state["blocks.blocks.0.surprise"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"blocks\.blocks\.0\.surprise"):
        split_point_peft(state)


def test_counts_of_the_paper():
    """773,017 in the authors' code: 62,268 of them dead, and 12 gates are ours."""
    base = PointMAE(15, num_centers=128)
    bank = MemoryBank(torch.eye(384))
    count = get_peft_model(base, PointPEFTConfig(), memory_bank=bank).count_parameters()
    assert count.trainable == 773_017 - 62_268 + 12
    assert count.head == 267_535
