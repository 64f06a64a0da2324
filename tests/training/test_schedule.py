import pytest

from pyg_peft.training.runs.schedule import warmup_cosine


def test_by_hand():
    factors = [warmup_cosine(step, 6, 2, floor=0.5) for step in range(8)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.926777, 0.75, 0.573223, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("total", "warmup", "name"), [(0, 0, "total_steps"), (3, 4, "warmup_steps")]
)
def test_errors_name_the_argument(total, warmup, name):
    with pytest.raises(ValueError, match=name):
        warmup_cosine(0, total, warmup)
