import sys

import pytest
import torch

from pyg_peft.errors import MissingExtraError
from pyg_peft.viz import plot_confusion, plot_curves, plot_patches


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figures = {
        "curves": plot_curves({"a": [0.1, 0.5], "b": [0.2]}, title="t"),
        "confusion": plot_confusion(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], title="t"),
        "cloud": plot_patches(torch.randn(30, 3), torch.randn(4, 3)),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    legend = figures["curves"].axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["a", "b"]
    assert [t.get_text() for t in figures["confusion"].axes[0].texts] == ["3", "1"]


def test_errors():
    with pytest.raises(ValueError, match="'curves' to hold values"):
        plot_curves({"a": []})
    with pytest.raises(ValueError, match=r"of shape \[2, 2\] \(got \[3, 3\]\)"):
        plot_confusion(torch.zeros(3, 3), ["a", "b"])
    with pytest.raises(ValueError, match="'center' to be"):
        plot_patches(torch.zeros(3, 3), torch.zeros(0, 3))


def test_a_missing_extra_names_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib' .* pip install 'pyg-peft\[viz\]'"):
        plot_curves({"a": [0.1, 0.5]})
