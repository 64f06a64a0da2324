import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.geometry import Structure, build_structure
from pyg_peft.geometry.parts import Part, Parts
from pyg_peft.nn import GeometryAwareAdapter, NeighborAttention
from pyg_peft.testing import random_clouds, randomize_


def awake(channels: int = 8, *, seed: int = 0, **kwargs: Any) -> GeometryAwareAdapter:
    sizes: dict[str, Any] = {"k": 3, "attention_channels": 6, "num_heads": 2, **kwargs}
    module = GeometryAwareAdapter(channels, 4, **sizes).double().eval()
    randomize_(module, torch.Generator().manual_seed(seed))
    return module


def random_structure(num_rows: int, sizes: list[int], generator: torch.Generator) -> Structure:
    """Centers with any number of members, and points that receive from any number of centers."""
    num_centers, num_edges = len(sizes), sum(sizes)
    member = torch.randint(num_rows, (num_edges,), generator=generator)
    center = torch.repeat_interleave(torch.arange(num_centers), torch.tensor(sizes))
    back = (torch.rand(num_rows, num_centers, generator=generator) < 0.4).nonzero().T.flip(0)
    return Structure(
        center_index=torch.randint(num_rows, (num_centers,), generator=generator),
        edge_index=torch.stack([member, center]),
        interp_index=back,
        interp_weight=torch.rand(back.size(1), dtype=torch.float64, generator=generator),
        degree=sizes[0] if len(set(sizes)) == 1 else None,
    )


def test_repr():
    expected = "GeometryAwareAdapter(8, 4, k=3, ratio=0.5, num_interp=3)"
    assert repr(GeometryAwareAdapter(8, 4, k=3)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "Expected 'k' to be >= 1 (got 0)"),
        ({"ratio": 0.0}, "Expected 'ratio' to lie in (0, 1] (got 0.0)"),
        ({"ratio": 1.5}, "Expected 'ratio' to lie in (0, 1] (got 1.5)"),
        ({"num_interp": 0}, "Expected 'num_interp' to be >= 1 (got 0)"),
        ({"num_heads": 5}, "Expected 'num_heads' to divide attention_channels 18 (got 5)"),
        ({"bottleneck_channels": 9}, "Expected 'bottleneck_channels' to lie in [1, 8] (got 9)"),
        (
            {"attention": NeighborAttention(4)},
            "Expected 'attention' to have 8 channels (got 4)",
        ),
    ],
)
def test_constructor_errors(arguments: dict[str, Any], message: str):
    sizes: dict[str, Any] = {"bottleneck_channels": 4, **arguments}
    with pytest.raises(ValueError) as error:
        GeometryAwareAdapter(8, **sizes)
    assert str(error.value) == message


def test_forward_errors(generator: torch.Generator):
    module, clouds = awake(), random_clouds([6], generator=generator)
    structure = build_structure(clouds.pos, k=3)
    with pytest.raises(ValueError, match=r"Expected 'x' to be of shape \[N, 8\] \(got \[6, 7\]"):
        module(clouds.x[:, :7], clouds.pos)
    with pytest.raises(ValueError, match="Expected 'pos' or 'structure'"):
        module(clouds.x)
    with pytest.raises(ValueError, match=r"Expected 'pos' to have 6 rows \(got 5\)"):
        module(clouds.x, clouds.pos[:5])
    with pytest.raises(ValueError, match=r"Expected 'x' to have at least 6 rows, .+ \(got 5\)"):
        module(clouds.x[:5], structure=structure)


def test_initial_gate():
    assert GeometryAwareAdapter(8, 4).gate.tolist() == [0.0]
    module = GeometryAwareAdapter(8, 4, propagation_scale=0.5)
    with torch.no_grad():
        module.gate.zero_()
    module.reset_parameters()
    assert module.gate.tolist() == [0.5]


def test_by_hand():
    module = GeometryAwareAdapter(1, 1, propagation_scale=1.0, center_scale=0.5).double().eval()
    module.norm.eps = 0.0
    with torch.no_grad():
        module.attention.proj.weight.zero_()
        module.attention.proj.bias.zero_()
    structure = Structure(
        center_index=torch.tensor([0, 2]),
        edge_index=torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]),
        interp_index=torch.tensor([[0, 0, 1], [0, 1, 1]]),
        interp_weight=torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64),
        degree=2,
    )
    x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    # The largest members are 2 and 4, and the centers' own rows are 1 and 4.
    first, second = (F.gelu(x[row]) + 0.5 * x[own] for row, own in ((1, 0), (2, 2)))
    expected = x + torch.stack([first, (first + second) / 2, torch.zeros_like(first)])
    torch.testing.assert_close(module(x, structure=structure), expected)


def slow(module: GeometryAwareAdapter, x: Tensor, structure: Structure) -> Tensor:
    """The definition, center after center and point after point."""
    norm, rows = module.norm, []
    assert norm.running_mean is not None and norm.running_var is not None
    for number, center in enumerate(structure.center_index):
        members = structure.edge_index[0, structure.edge_index[1] == number]
        y = torch.zeros_like(x[center])
        if len(members):
            y = (x[members] + module.attention(x[members].unsqueeze(0))[0]).amax(dim=0)
        y = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        y = y * norm.weight + norm.bias
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        rows.append(y + module.center_scale * x[center])
    out = x.clone()
    for (center, point), weight in zip(
        structure.interp_index.T, structure.interp_weight, strict=True
    ):
        out[point] += module.gate * weight * rows[int(center)]
    return module.bottleneck(out)


@settings(max_examples=40)
@given(
    num_rows=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition(num_rows: int, sizes: list[int], seed: int):
    generator, module = torch.Generator().manual_seed(seed), awake(seed=seed)
    structure = random_structure(num_rows, sizes, generator)
    x = torch.randn(num_rows, 8, dtype=torch.float64, generator=generator)
    found = module(x, structure=structure)
    torch.testing.assert_close(found, slow(module, x, structure))
    assert not torch.equal(found, x)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_order_of_edges_does_not_matter(sizes: list[int], seed: int):
    generator, module = torch.Generator().manual_seed(seed), awake(seed=seed)
    structure = random_structure(6, sizes, generator)
    x = torch.randn(6, 8, dtype=torch.float64, generator=generator)
    order = torch.randperm(structure.edge_index.size(1), generator=generator)
    order = order[structure.edge_index[1, order].argsort(stable=True)]  # within each center
    back = torch.randperm(structure.interp_index.size(1), generator=generator)
    moved = replace(
        structure,
        edge_index=structure.edge_index[:, order],
        interp_index=structure.interp_index[:, back],
        interp_weight=structure.interp_weight[back],
    )
    torch.testing.assert_close(module(x, structure=moved), module(x, structure=structure))


def test_padding_is_the_same_as_reshaping(generator: torch.Generator):
    module, clouds = awake(), random_clouds([7, 5, 3], generator=generator)
    structure = build_structure(clouds.pos, clouds.batch, k=3)
    assert structure.degree == 3
    x = clouds.x.requires_grad_()
    outs = [module(x, structure=s) for s in (structure, replace(structure, degree=None))]
    torch.testing.assert_close(outs[0], outs[1])
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in outs]
    torch.testing.assert_close(grads[0], grads[1])


def test_one_large_neighborhood_does_not_make_all_as_large(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
):
    sizes = [60, *([3, 0, 5, 1] * 10)]
    module, x = awake(), torch.randn(80, 8, dtype=torch.float64, generator=generator)
    structure = random_structure(80, sizes, generator)
    scores, attend = [0], module.attention.attend

    def counted(qkv: Tensor, mask: Tensor | None = None) -> Tensor:
        scores[0] += qkv.size(0) * qkv.size(1) ** 2
        return attend(qkv, mask)

    monkeypatch.setattr(module.attention, "attend", counted)
    found = module(x, structure=structure)
    assert scores[0] <= 4 * sum(max(size, 1) ** 2 for size in sizes)
    monkeypatch.undo()
    center = structure.edge_index[1]
    sets = torch.arange(len(sizes))
    whole = Parts([Part(sets, torch.arange(center.numel()), center, 60)], sets)
    monkeypatch.setitem(vars(structure), "parts", whole)
    torch.testing.assert_close(found, module(x, structure=structure))


def test_a_structure_first_seen_in_inference_serves_training(generator: torch.Generator):
    module, x = awake(), torch.randn(30, 8, dtype=torch.float64, generator=generator)
    structure = random_structure(30, [3, 1, 7], generator)
    with torch.inference_mode():
        module(x, structure=structure)
    module(x, structure=structure).sum().backward()
    assert module.attention.qkv.weight.grad is not None


def test_rows_that_receive_nothing_pass_the_bottleneck_only(generator: torch.Generator):
    module, clouds = awake(), random_clouds([7, 5], generator=generator)
    structure = build_structure(clouds.pos, clouds.batch, k=3)
    rows = torch.arange(12) + 1 + 2 * clouds.batch  # a token before each cloud, another after
    x = torch.randn(16, 8, dtype=torch.float64, generator=generator)
    out = module(x, structure=structure.to_rows(rows))
    others = torch.tensor([0, 8, 9, 15])
    assert torch.equal(out[others], module.bottleneck(x)[others])
    torch.testing.assert_close(out[rows], module(x[rows], structure=structure))


def test_shared_attention(generator: torch.Generator):
    attention = NeighborAttention(8, 6, num_heads=2)
    first, second = (GeometryAwareAdapter(8, 4, k=3, attention=attention) for _ in range(2))
    assert first.attention is second.attention
    before = copy.deepcopy(attention.state_dict())
    first.reset_parameters()
    assert all(torch.equal(before[key], value) for key, value in attention.state_dict().items())
    both = copy.deepcopy(torch.nn.ModuleList([first, second]))
    assert both[0].attention is both[1].attention is not attention


def test_gradcheck(generator: torch.Generator):
    module = awake(4, attention_channels=2)
    pos = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, pos: module(x, pos), (x, pos))
    structure = random_structure(5, [2, 0, 3], generator)
    assert torch.autograd.gradcheck(lambda x: module(x, structure=structure), (x,))


def test_first_step_moves_gate_and_bottleneck(generator: torch.Generator):
    module = GeometryAwareAdapter(8, 4, k=3).double()
    clouds = random_clouds([7, 5], generator=generator)
    (module(clouds.x, clouds.pos, clouds.batch) * torch.randn(12, 8)).sum().backward()
    moving = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {"gate", "bottleneck.up.weight", "bottleneck.up.bias"}


def test_nothing_of_the_size_of_all_messages_is_kept(generator: torch.Generator):
    module = awake(96, k=16)
    clouds = random_clouds([64], channels=96, generator=generator)
    structure = build_structure(clouds.pos, k=16)
    largest = 0

    def record(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        module(clouds.x.requires_grad_(), structure=structure)
    assert 0 < largest < structure.edge_index.size(1) * 96 / 2


def test_norm_statistics(generator: torch.Generator):
    module = awake().train()
    clouds = random_clouds([7, 5], generator=generator)
    mean = module.norm.running_mean
    assert mean is not None
    before = mean.clone()
    module(clouds.x, clouds.pos, clouds.batch)
    assert not torch.equal(mean, before)
    with pytest.raises(ValueError, match="Expected at least 2 centers in a training batch"):
        module(clouds.x[:1], clouds.pos[:1])
    assert module.eval()(clouds.x[:1], clouds.pos[:1]).shape == (1, 8)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_no_points(training: bool, batch_size: int | None):
    module = awake().train(training)
    x, pos = (torch.zeros(0, size, dtype=torch.float64) for size in (8, 3))
    batch = None if batch_size is None else torch.zeros(0, dtype=torch.long)
    assert module(x, pos, batch, batch_size=batch_size).shape == (0, 8)


def test_coincident_points_and_large_k(generator: torch.Generator):
    module = awake(k=50)
    x = torch.randn(6, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    out = module(x, torch.zeros(6, 3, dtype=torch.float64))
    out.sum().backward()
    assert bool(torch.isfinite(out).all()) and x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_non_contiguous_input(generator: torch.Generator):
    module, clouds = awake(), random_clouds([6], generator=generator)
    x, pos = clouds.x.T.contiguous().T, clouds.pos.T.contiguous().T
    torch.testing.assert_close(module(x, pos), module(clouds.x, clouds.pos))


def test_low_precision(generator: torch.Generator):
    module = awake().float()
    clouds = random_clouds([9, 6], generator=generator, dtype=torch.float32)
    structure = build_structure(clouds.pos, clouds.batch, k=3)
    expected = module(clouds.x, structure=structure)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(clouds.x, structure=structure)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.1)
    found = module.bfloat16()(clouds.x.bfloat16(), structure=structure)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("regular", [True, False])
def test_compiles_with_a_structure(regular: bool, generator: torch.Generator):
    module = awake()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for sizes in ([6, 4], [9, 5]):
        clouds = random_clouds(sizes, generator=generator)
        structure = build_structure(clouds.pos, clouds.batch, k=3)
        structure = structure if regular else replace(structure, degree=None)
        found = compiled(clouds.x, structure=structure)
        torch.testing.assert_close(found, module(clouds.x, structure=structure))
    torch.compiler.reset()


def test_compiled_padding_reaches_beyond_k(generator: torch.Generator):
    module, clouds = awake(k=3), random_clouds([9], generator=generator)
    structure = replace(build_structure(clouds.pos, k=4), degree=None)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    found = compiled(clouds.x, structure=structure)
    torch.testing.assert_close(found, module(clouds.x, structure=structure))
    torch.compiler.reset()
