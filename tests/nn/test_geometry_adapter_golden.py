"""Parity with the authors' adapter, on the authors' own edges, faulty ones included."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from golden_case import GoldenCase
from torch import Tensor

from pyg_peft.geometry import Structure
from pyg_peft.nn import GeometryAwareAdapter

CASE = "pointpeft_mae_nobank_adapter"
NUM_PROMPTS = {0: 10, 5: 10, 6: 0}
NUM_TOKENS, NUM_CENTERS, K = 32, 16, 8


@dataclass(frozen=True)
class Block:
    """One block of the golden case: the adapter, its input, its edges, and what must come out."""

    module: GeometryAwareAdapter
    x: Tensor
    structure: Structure
    ref: dict[str, Tensor]


def load_adapter(weights: dict[str, Tensor], number: int) -> GeometryAwareAdapter:
    block, state = f"blocks.blocks.{number}", {"gate": torch.tensor([0.3])}
    places = {
        "attention.norm": "blocks.norm3",
        "attention.qkv": "blocks.attn1.qkv",
        "attention.proj": "blocks.attn1.proj",
        "norm": f"{block}.out_transform.0",
        "bottleneck.down": f"{block}.adapter1.ln1",
        "bottleneck.up": f"{block}.adapter1.ln2",
    }
    for ours, theirs in places.items():
        for key, value in weights.items():
            if key.startswith(f"{theirs}."):
                state[ours + key.removeprefix(theirs)] = value
    module = GeometryAwareAdapter(96, 16, k=K, num_interp=None, propagation_scale=0.3)
    module.load_state_dict(state)
    return module.double().eval()


def authors_structure(ref: dict[str, Tensor], number: int) -> Structure:
    """Build the authors' edges over rows ``[cls, prompts, patches]``, for every cloud."""
    num_prompts = NUM_PROMPTS[number]
    length = 1 + num_prompts + NUM_TOKENS
    level = "lvl2p" if num_prompts else "lvl2"
    first = torch.arange(3).unsqueeze(1) * length
    # Without the summary token, as the authors index: prompts, then patches, cloud after cloud.
    rows = (first + 1 + torch.arange(length - 1)).flatten()
    points = (first + 1 + num_prompts + torch.arange(NUM_TOKENS)).flatten()
    centers = torch.arange(3 * NUM_CENTERS)
    pos, center_pos = (ref[f"b{number:02}.prop_xyz{i}"].double() for i in (1, 2))
    distance = (pos.unsqueeze(2) - center_pos.unsqueeze(1)).square().sum(dim=-1)  # [3, 32, 16]
    weight = 1 / (distance + 1e-8)
    return Structure(
        center_index=rows[ref[f"{level}.3"].long()],
        edge_index=torch.stack([rows[ref[f"{level}.2"].long()], centers.repeat_interleave(K)]),
        interp_index=torch.stack(
            [
                centers.view(3, 1, -1).expand(3, NUM_TOKENS, -1).flatten(),
                points.repeat_interleave(NUM_CENTERS),
            ]
        ),
        interp_weight=(weight / weight.sum(dim=-1, keepdim=True)).flatten(),
        degree=K,
    )


def open_block(case: GoldenCase, number: int) -> Block:
    ref = case.ref
    own = {key[4:]: value.double() for key, value in ref.items() if key[:3] == f"b{number:02}"}
    x = own["adapter1_in"].clone()
    x[:, 1 + NUM_PROMPTS[number] :] = own["prop_points1"]
    module = load_adapter(case.weights, number)
    return Block(module, x.flatten(0, 1), authors_structure(ref, number), own)


def close(found: Tensor, expected: Tensor, reach: float = 1.2e-7) -> None:
    """Compare relative to the largest value: the reference is stored in single precision."""
    error = (found.detach().double() - expected).abs().max() / expected.abs().max()
    assert float(error) < reach


@pytest.mark.parametrize("number", [0, 5, 6])
def test_every_step(golden: Callable[[str], GoldenCase], number: int):
    block = open_block(golden(CASE), number)
    seen: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, args, output: seen.update({name: output, name + "_in": args[0]})

    for name in ("norm", "bottleneck"):
        block.module.get_submodule(name).register_forward_hook(record(name))
    members = block.x[block.structure.edge_index[0]].view(-1, K, 96)
    with torch.no_grad():
        out = block.module(block.x, structure=block.structure)
        close(block.module.attention(members), block.ref["attn1_out"])
    pooled = F.gelu(seen["norm"])
    close(pooled, block.ref["pool_out"].flatten(0, 1))
    pooled = pooled + 0.3 * block.x[block.structure.center_index]
    close(pooled, block.ref["prop_points2"].flatten(0, 1))
    before = seen["bottleneck_in"].view(3, -1, 96)
    close(before[:, 1 + NUM_PROMPTS[number] :], block.ref["prop_out"])
    close(before, block.ref["adapter1_in"])
    close(out.view(3, -1, 96), block.ref["adapter1_out"])


@pytest.mark.parametrize("number", [0, 5, 6])
def test_single_precision(golden: Callable[[str], GoldenCase], number: int):
    block = open_block(golden(CASE), number)
    weight = block.structure.interp_weight.float()
    out = block.module.float()(
        block.x.float(),
        structure=Structure(
            block.structure.center_index,
            block.structure.edge_index,
            block.structure.interp_index,
            weight,
        ),
    )
    close(out.view(3, -1, 96), block.ref["adapter1_out"], reach=2e-5)


def test_their_edges_leave_the_cloud_and_ours_cannot(golden: Callable[[str], GoldenCase]):
    block = open_block(golden(CASE), 0)
    cloud = torch.arange(3).repeat_interleave(43)
    member, center = block.structure.edge_index
    own = cloud[member] == cloud[block.structure.center_index[center]]
    assert not bool(own.all()), "the authors' members would run into no other cloud"


def test_number_of_parameters():
    # Counted in the authors' code for Point-MAE: 12 blocks, width 384, norm and attention shared.
    attention = GeometryAwareAdapter(384).attention
    blocks = torch.nn.ModuleList(GeometryAwareAdapter(384, attention=attention) for _ in range(12))
    shared = 2 * 384 + 384 * 54 + (18 * 384 + 384)
    each = 2 * 384 + (384 * 16 + 16) + (16 * 384 + 384)
    gates = 12  # ours: the authors' propagation factor is fixed
    assert sum(p.numel() for p in blocks.parameters()) == shared + 12 * each + gates == 190284
