import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from golden_case import GoldenCase
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.nn import parameter_free_attention

TABLE = torch.eye(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": torch.zeros(2, 4)}, "Expected 'query' to be of shape [M, 3] (got [2, 4])"),
        ({"query": torch.zeros(3)}, "Expected 'query' to be of shape [M, 3] (got [3])"),
        ({"values": torch.zeros(1, 3)}, "Expected 'values' to have 3 rows (got 1)"),
        ({"chunk_size": 0}, "Expected 'chunk_size' to be >= 1 (got 0)"),
        (
            {"top_k": 4},
            "Expected 'top_k' to lie in [1, 3], the rows that a query may find (got 4)",
        ),
        (
            {"top_k": 3, "exclude": torch.tensor([0, 1])},
            "Expected 'top_k' to lie in [1, 2], the rows that a query may find (got 3)",
        ),
        ({"exclude": torch.tensor([0])}, "Expected 'exclude' to be of shape [2] (got [1])"),
        ({"exclude": torch.tensor([0, 3])}, "Expected 'exclude' to name rows in [-1, 3) (got 3)"),
    ],
)
def test_errors(arguments: dict[str, object], message: str):
    given: dict[str, object] = {"query": torch.ones(2, 3), "values": TABLE, "top_k": 1}
    given |= arguments
    query, values, top_k = given.pop("query"), given.pop("values"), given.pop("top_k")
    with pytest.raises(ValueError) as error:
        parameter_free_attention(query, TABLE, values, top_k, **given)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_by_hand():
    query = torch.tensor([[0.0, 3.0, 4.0]])
    values = torch.tensor([[1.0], [10.0], [100.0]])
    out, score, index = parameter_free_attention(query, TABLE, values, 2)
    assert index.tolist() == [[2, 1]]
    torch.testing.assert_close(score, torch.tensor([[0.8, 0.6]]))
    weight = 1 / (1 + torch.tensor(-0.2).exp())  # softmax of two scores 0.2 apart
    torch.testing.assert_close(out, (100 * weight + 10 * (1 - weight)).view(1, 1))


def slow(
    query: Tensor, keys: Tensor, values: Tensor, top_k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The definition, one question and one row at a time."""
    outs, rows = [], []
    for m, q in enumerate(query):
        found = [
            (-float(q / q.norm() @ key), r)
            for r, key in enumerate(keys)
            if exclude is None or r != int(exclude[m])
        ]
        found = sorted(found)[:top_k]
        weight = torch.tensor([-score for score, _ in found], dtype=query.dtype).exp()
        rows.append([r for _, r in found])
        outs.append((weight / weight.sum()) @ values[rows[-1]])
    return torch.stack(outs), torch.tensor(rows)


@settings(max_examples=40)
@given(
    num_rows=st.integers(2, 40),
    data=st.data(),
    chunk_size=st.integers(1, 50),
    leave_out=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition(
    num_rows: int, data: st.DataObject, chunk_size: int, leave_out: bool, seed: int
):
    top_k = data.draw(st.integers(1, num_rows - 1))
    generator = torch.Generator().manual_seed(seed)
    query, keys, values = (
        torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in (3, num_rows, num_rows)
    )
    exclude = torch.randint(-1, num_rows, (3,), generator=generator) if leave_out else None
    out, score, index = parameter_free_attention(
        query, keys, values, top_k, exclude=exclude, chunk_size=chunk_size
    )
    expected, rows = slow(query, keys, values, top_k, exclude)
    assert torch.equal(index, rows)
    torch.testing.assert_close(out, expected)
    assert bool((score[:, 1:] <= score[:, :-1]).all())


@settings(max_examples=40)
@given(data=st.data(), chunk_size=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_of_equal_scores_the_lower_row_wins(data: st.DataObject, chunk_size: int, seed: int):
    top_k = data.draw(st.integers(1, 19))
    generator = torch.Generator().manual_seed(seed)
    # Small integers and unit queries: scores are exact and tie again and again.
    keys = torch.randint(-1, 2, (20, 2), generator=generator).double()
    query = torch.eye(2, dtype=torch.float64)
    exclude = torch.randint(-1, 20, (2,), generator=generator)
    _, _, index = parameter_free_attention(
        query, keys, keys, top_k, exclude=exclude, chunk_size=chunk_size
    )
    assert torch.equal(index, slow(query, keys, keys, top_k, exclude)[1])


def test_ties_are_resolved_alike_when_compiled():
    keys = torch.ones(12, 2)
    compiled = torch.compile(parameter_free_attention, fullgraph=True, backend="eager")
    for size in (2, 3):
        _, _, index = compiled(torch.ones(size, 2), keys, keys, 3, chunk_size=5)
        assert index.tolist() == [[0, 1, 2]] * size
    torch.compiler.reset()


def test_order_of_rows_and_length_of_query_do_not_matter(generator: torch.Generator):
    query, keys = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (3, 30))
    order = torch.randperm(30, generator=generator)
    out, _, index = parameter_free_attention(query, keys, keys, 5)
    moved, _, rows = parameter_free_attention(7 * query, keys[order], keys[order], 5)
    torch.testing.assert_close(moved, out)
    assert torch.equal(order[rows], index)


def test_gradients(generator: torch.Generator):
    def out(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return parameter_free_attention(query, keys, values, 3, chunk_size=4)[:2]

    inputs = [torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (2, 9, 9)]
    assert torch.autograd.gradcheck(out, [value.requires_grad_() for value in inputs])


def test_retrieval_does_not_depend_on_autocast(generator: torch.Generator):
    query, keys = (torch.randn(n, 64, generator=generator) for n in (8, 500))
    expected = parameter_free_attention(query, keys, keys, 8)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, score, index = parameter_free_attention(query, keys, keys, 8)
    assert torch.equal(index, expected) and out.dtype == score.dtype == torch.float32
    out = parameter_free_attention(query.bfloat16(), keys, keys, 8)[0]
    assert out.dtype == torch.bfloat16


def test_no_query_and_zero_query():
    out, score, index = parameter_free_attention(torch.zeros(0, 3), TABLE, TABLE, 2)
    assert out.shape == (0, 3) and score.shape == index.shape == (0, 2)
    out, score, index = parameter_free_attention(torch.zeros(1, 3), TABLE, TABLE, 2)
    assert score.tolist() == [[0.0, 0.0]] and index.tolist() == [[0, 1]]
    assert out.tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("factor", [1e-12, 1e12, 1e30])
def test_a_query_whose_square_is_not_finite(factor: float, generator: torch.Generator):
    query, keys = (torch.randn(n, 8, generator=generator) for n in (3, 30))
    _, expected, rows = parameter_free_attention(query, keys, keys, 4)
    _, score, index = parameter_free_attention(factor * query, keys, keys, 4)
    assert torch.equal(index, rows)
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("chunk_size", [7, 64, 16384])
def test_golden(golden: Callable[[str], GoldenCase], chunk_size: int):
    case = golden("pointpeft_mae_bankattention")
    query, table = case.inputs["query"].double(), case.inputs["bank"].double().T
    out, _, index = parameter_free_attention(query, table, table, 8, chunk_size=chunk_size)
    assert torch.equal(index, case.ref["topk_index"].long())
    expected = case.ref["cache_prompt"][:, 1].double()
    torch.testing.assert_close(out, expected, rtol=0, atol=5e-7)
    single = parameter_free_attention(query.float(), table.float(), table.float(), 8)
    assert torch.equal(single[2], index)


MILLION = """
import resource, torch
from pyg_peft.nn import parameter_free_attention
torch.set_num_threads(1)
keys = torch.randn(1_000_000, 16, generator=torch.Generator().manual_seed(0))
keys /= keys.norm(dim=1, keepdim=True)
query = keys[[5, 999_999, 123_456]].repeat(40, 1).requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, score, index = parameter_free_attention(query, keys, keys, 8)
out.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, index[:, 0].unique().numel())
"""


@pytest.mark.slow
def test_a_million_rows_in_bounded_memory():
    # In a process of its own, for its peak. The matrix of all scores would take 480 MB.
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MILLION], capture_output=True, text=True, check=True
    )
    grown, found = map(int, run.stdout.split())
    assert grown / 1024 < 100
    assert found == 3
