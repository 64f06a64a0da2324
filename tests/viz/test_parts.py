from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from pyg_peft.viz import plot_parts


def test_three_panels_and_a_legend(tmp_path):
    pos = torch.randn(50, 3)
    truth = (pos[:, 2] > 0).long()
    found = truth.clone()
    found[:5] = 3
    figure = plot_parts(pos, truth, found, ["foot", "shade", "cable", "switch"], title="lamp")
    figure.savefig(tmp_path / "parts.png")
    assert (tmp_path / "parts.png").stat().st_size > 1000
    assert [axes.get_title() for axes in figure.axes] == ["truth", "prediction", "90.0 % right"]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["foot", "shade", "switch", "differs from the truth"]


@pytest.mark.parametrize("count", [1, 12, 50])
def test_any_number_of_parts(count: int):
    labels = torch.arange(60) % count
    figure = plot_parts(torch.zeros(60, 3), labels, labels)
    drawn: Any = figure.axes[0].collections[0].get_facecolor()
    colors = {tuple(color) for color in drawn.tolist()}
    assert len(colors) == count


def test_errors():
    pos, labels = torch.zeros(3, 3), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"'pos' to be \[N, 3\]"):
        plot_parts(pos[:0], labels[:0], labels[:0])
    with pytest.raises(ValueError, match="'prediction' to hold 3 integers"):
        plot_parts(pos, labels, labels[:2])
    with pytest.raises(ValueError, match=r"'names' to name the parts \[0, 1\] \(got 1 names\)"):
        plot_parts(pos, labels, labels + 1, ["foot"])
