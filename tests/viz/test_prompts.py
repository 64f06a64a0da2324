"""Pictures of prompts, sizes and trade-offs, and the attention that they show."""

import pytest
import torch

from pyg_peft import LinearProbeConfig, MemoryBank, PointPEFTConfig, VPTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.viz import plot_attention, plot_sizes, plot_tradeoff, prompt_attention


def make_base() -> PointMAE:
    torch.manual_seed(0)
    return PointMAE(3, embed_dim=12, depth=2, num_heads=3, num_centers=8, patch_size=4)


def test_attention_against_a_loop():
    """One block, one head after the other, one prompt after the other."""
    model = get_peft_model(make_base(), VPTConfig(num_prompts=2))
    model.train()
    seen: list[torch.Tensor] = []
    blocks: list[torch.nn.Module] = list(model.base.get_submodule("blocks").children())
    attentions = [block.get_submodule("attn") for block in blocks]
    for attention in attentions:
        attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].detach()))
    pos = torch.randn(60, 3)
    center, share = prompt_attention(model, pos)
    assert model.training and center.shape == (8, 3) and share.shape == (8,)
    expected = torch.zeros(8)
    for x, attention in zip(seen, attentions, strict=True):
        weight = attention.get_submodule("qkv").get_parameter("weight").detach()
        for head in range(3):
            query, key = (x @ weight[o + 4 * head : o + 4 * head + 4].T for o in (0, 12))
            for prompt in (1, 2):
                row = (key @ query[prompt] / 2.0).softmax(dim=0)[3:]  # over all tokens
                expected += row / row.sum()
    torch.testing.assert_close(share, 8 * expected / (2 * 3 * 2))


def test_attention_with_a_bank_and_with_padding():
    base = make_base()
    bank = MemoryBank(torch.randn(20, 12))
    model = get_peft_model(
        base, PointPEFTConfig(num_prompts=4, k=3, bottleneck_channels=4), memory_bank=bank
    )
    for points, patches in ((60, 8), (5, 5)):
        center, share = prompt_attention(model, torch.randn(points, 3))
        assert center.shape == (patches, 3)
        assert share.mean().item() == pytest.approx(1.0, abs=1e-5)


def test_a_model_without_prompts_is_refused():
    with pytest.raises(ValueError, match="to put prompts before the patches"):
        prompt_attention(get_peft_model(make_base(), LinearProbeConfig()), torch.randn(30, 3))
    with pytest.raises(ValueError, match="'pos' to be"):
        prompt_attention(get_peft_model(make_base(), VPTConfig()), torch.randn(0, 3))


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    cloud = (torch.randn(30, 3), torch.randn(4, 3), torch.tensor([0.5, 1.5, 1.0, 1.0]))
    figures = {
        "attention": plot_attention([cloud, cloud], ["a", "b"], title="t"),
        "sizes": plot_sizes({"a": (120, 20, 4096), "b": (9000, 8900, 90000)}, title="t"),
        "tradeoff": plot_tradeoff({"a": (0, [0.5, 0.6]), "b": (10**6, [0.7])}, title="t"),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert [axes.get_title() for axes in figures["attention"].axes[:2]] == ["a", "b"]
    assert [t.get_text() for t in figures["sizes"].axes[0].texts] == [" 120", " 9,000"]
    assert [t.get_text() for t in figures["sizes"].axes[1].texts] == [" 4", " 88"]
    with pytest.raises(ValueError, match="'titles' to name each of 1"):
        plot_attention([cloud], [])
    with pytest.raises(ValueError, match="each of 4 centers"):
        plot_attention([(*cloud[:2], torch.ones(3))], ["a"])
    with pytest.raises(ValueError, match="'sizes' to hold"):
        plot_sizes({})
    with pytest.raises(ValueError, match="'points' to hold"):
        plot_tradeoff({"a": (3, [])})
