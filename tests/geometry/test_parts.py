import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_peft.geometry.parts import parts_of_like_size


@given(sizes=st.lists(st.integers(0, 40), max_size=12))
def test_parts_of_like_size(sizes: list[int]):
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long))
    seen_sets: list[int] = []
    seen_members: list[int] = []
    parts, order = parts_of_like_size(index, len(sizes))
    for sets, members, place, largest in parts:
        in_part = [max(sizes[s], 1) for s in sets.tolist()]
        assert max(in_part) == largest < 2 * min(in_part)
        assert torch.equal(sets[place], index[members])
        assert bool((place.diff() >= 0).all())
        seen_sets += sets.tolist()
        seen_members += members.tolist()
    assert sorted(seen_sets) == list(range(len(sizes)))
    assert sorted(seen_members) == list(range(sum(sizes)))
    behind = torch.tensor(seen_sets, dtype=torch.long)
    assert behind[order].tolist() == list(range(len(sizes)))
