"""Attention without parameters: queries retrieve their nearest rows from a large frozen table."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pyg_peft.errors import check_count, check_finite, check_index, check_tensor
from pyg_peft.symmetries import Symmetries

_CHUNK_SIZE = 16384


@Symmetries(
    permutation="equivariant",
    of="the queries",
    depends_on=("x",),
    independent="rows",
    note=(
        "The output is invariant to the order of the table's rows, except among exactly equal "
        "scores, and to the length of the query."
    ),
)
def parameter_free_attention(
    query: Float[Tensor, "M C"],
    keys: Float[Tensor, "R C"],
    values: Float[Tensor, "R V"],
    top_k: int,
    *,
    exclude: Int[Tensor, " M"] | None = None,
    chunk_size: int = _CHUNK_SIZE,
) -> tuple[Float[Tensor, "M V"], Float[Tensor, "M k"], Int[Tensor, "M k"]]:
    r"""Average the values of the ``top_k`` best rows of a table, as in Point-PEFT's memory bank.

    .. math::
        s_{mr} = \frac{\mathbf{q}_m}{\lVert \mathbf{q}_m \rVert} \cdot \mathbf{k}_r, \qquad
        \mathbf{o}_m = \sum_{r \in \mathcal{T}_m}
        \frac{\exp s_{mr}}{\sum_{r' \in \mathcal{T}_m} \exp s_{mr'}} \, \mathbf{v}_r

    :math:`\mathcal{T}_m` are the ``top_k`` rows with the largest scores; among equal scores the
    lower row wins. Only the query is normalized; normalize the keys beforehand to get the cosine.
    The length of a query counts as at least ``1e-12``, so a query of zeros has a score of zero
    everywhere. The table is read in chunks and only the best rows so far are kept, so that an
    ``[M, R]`` matrix never exists. The search itself is not differentiated; the scores and values
    of the selected rows are.

    Args:
        query: One row per query.
        keys: Keys of the table, one row per entry. They must be finite, which is not checked, since
            it would read the whole table once more.
        values: Values of the table, one row per entry.
        top_k: Number of rows to retrieve.
        exclude: Row of the table that a query must not retrieve, ``-1`` for none.
        chunk_size: Number of table rows that are scored at a time. (default: ``16384``)

    Returns:
        The weighted sum, the scores in descending order (before the softmax), and their rows.

    Shapes:
        - **input:** query ``[M, C]``, keys ``[R, C]``, values ``[R, V]``, exclude ``[M]``
        - **output:** ``[M, V]``, ``[M, top_k]``, ``[M, top_k]``

    Symmetries:

    Raises:
        ValueError: If widths or lengths do not match, a query is not finite, ``top_k`` is larger
            than the number of rows that a query may retrieve, ``chunk_size`` is not positive,
            ``exclude`` is beyond the table, or tensors are on several devices.
        TypeError: If ``query``, ``keys`` or ``values`` is not a floating-point tensor, or
            ``top_k``, ``exclude`` or ``chunk_size`` is not an integer.

    Differences:
        The authors compute the whole matrix of scores and gather through Python lists; the values
        are the same. Scores are computed in the precision of the keys, also under autocast, so that
        retrieval does not depend on it.

    Example:
        >>> keys = torch.eye(3)
        >>> query = torch.tensor([[2.0, 1.0, 0.0]])
        >>> out, score, index = parameter_free_attention(query, keys, keys, top_k=2)
        >>> index, score
        (tensor([[0, 1]]), tensor([[0.8944, 0.4472]]))
    """
    chunk_size = check_count(chunk_size, "chunk_size")
    top_k, exclude = _check(query, keys, values, top_k, exclude)
    with torch.autocast(query.device.type, enabled=False):
        # In half precision a short query has the length zero. Tensors are made contiguous because
        # another layout changes the order of sums, and rounding decides between nearly equal rows.
        wide = torch.promote_types(query.dtype, keys.dtype)
        wide = torch.promote_types(wide, torch.float32)
        keys = keys.to(wide).contiguous()
        direction = F.normalize(_bounded(query.to(wide).contiguous()), dim=-1)  # [M, C]
        index = _search(direction.detach(), keys.detach(), top_k, exclude, chunk_size)  # [M, k]
        score = (keys[index] @ direction.unsqueeze(-1)).squeeze(-1)  # [M, k]
        # A float64 query and float32 values give a float64 sum.
        sum_dtype = torch.promote_types(query.dtype, values.dtype)
        weight = score.softmax(dim=-1).to(sum_dtype)
        out = (weight.unsqueeze(1) @ values[index].to(sum_dtype)).squeeze(1)  # [M, V]
    return out.to(query.dtype), score.to(query.dtype), index


def _bounded(query: Tensor) -> Tensor:
    """Return the query with shorter rows where the square of a value would not be finite."""
    if query.size(-1) == 0:
        return query
    reach = query.detach().abs().amax(dim=-1, keepdim=True)
    limit = torch.finfo(query.dtype).max ** 0.25
    return torch.where(reach > limit, query / reach, query)


def _search(
    direction: Tensor, keys: Tensor, top_k: int, exclude: Tensor | None, chunk_size: int
) -> Tensor:
    """Return the rows of the ``top_k`` largest scores, best first, lower row first among equals."""
    best_score = direction.new_empty(direction.size(0), 0)
    best_row = torch.empty_like(best_score, dtype=torch.long)
    for start in range(0, keys.size(0), chunk_size):
        chunk = keys[start : start + chunk_size]
        score = direction @ chunk.t()  # [M, chunk]
        row = torch.arange(start, start + chunk.size(0), device=keys.device).expand_as(score)
        if exclude is not None:
            score = score.masked_fill(row == exclude.unsqueeze(1), -torch.inf)
        # The rows kept so far are lower than the new ones, so column order is row order.
        if start > 0:
            score, column = _top_columns(score, top_k)
            score = torch.cat([best_score, score], dim=1)
            row = torch.cat([best_row, row.gather(1, column)], dim=1)
        best_score, column = _top_columns(score, top_k)
        best_row = row.gather(1, column)
    order = best_score.argsort(dim=1, descending=True, stable=True)
    return best_row.gather(1, order)


def _top_columns(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` best scores and their columns, in ascending order of the column.

    ``topk`` may return any of several columns that tie at the last place. One more score than
    needed shows whether there is such a tie. Compiled graphs cannot branch on this and always
    resolve ties.
    """
    if score.size(1) <= k:
        return score, torch.arange(score.size(1), device=score.device).expand_as(score)
    value, column = score.topk(k + 1, dim=1)
    last = value[:, k - 1 : k]
    if torch.compiler.is_compiling() or bool((last == value[:, k:]).any()):
        above = score > last
        tied = score == last
        room = k - above.sum(dim=1, keepdim=True)
        keep = above | (tied & (tied.cumsum(dim=1) <= room))
        position = torch.arange(score.size(1), device=score.device)
        column = torch.where(keep, position, score.size(1)).topk(k, dim=1, largest=False).indices
    else:
        column = column[:, :k]
    column = column.sort(dim=1).values
    return score.gather(1, column), column


def _check(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    top_k: int,
    exclude: Tensor | None,
) -> tuple[int, Tensor | None]:
    check_tensor(keys, "keys", shape=("R", "C"), kind="float")
    num_rows, device = keys.size(0), keys.device
    check_tensor(query, "query", shape=("M", keys.size(1)), kind="float", device=device)
    # The rows nearest to NaN are undefined.
    check_finite(query, "query")
    check_tensor(values, "values", shape=("R", "V"), kind="float", device=device)
    if values.size(0) != num_rows:
        raise ValueError(f"Expected 'values' to have {num_rows} rows (got {values.size(0)})")
    top_k = check_count(top_k, "top_k")
    available = num_rows if exclude is None else num_rows - 1
    if top_k > available:
        raise ValueError(
            f"Expected 'top_k' to lie in [1, {available}], the rows that a query may find "
            f"(got {top_k})"
        )
    if exclude is not None:
        shape = query.shape[:1]
        exclude = check_index(exclude, "exclude", num_rows, shape=shape, least=-1, device=device)
    return top_k, exclude


__all__ = ["parameter_free_attention"]
