"""Plot which patches the prompts of a tuned model attend to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_peft.model import PeftModel
from pyg_peft.nn.eval_mode import eval_mode
from pyg_peft.viz.cloud import check_positions, draw_cloud
from pyg_peft.viz.figure import new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def prompt_attention(model: PeftModel, pos: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return how much the prompts attend to each patch of one cloud.

    .. math::
        a_g = G \; \operatorname{mean}_{\text{blocks, heads, prompts}} \;
        \frac{A_{pg}}{\sum_{g'} A_{pg'}}

    with the softmax :math:`A` of a prompted block's attention; 1 means equal attention to all
    patches.

    Args:
        model: A token backbone with an adapter that puts prompts between the summary token and the
            patches, such as Point-PEFT or VPT.
        pos: Points ``[N, 3]`` of one cloud, prepared as in training.

    Returns:
        Centers ``[G, 3]`` and attention ``[G]`` of the patches that are not padding.

    Raises:
        ValueError: If a shape is wrong, or no block has prompts.

    Example:
        >>> from pyg_peft import VPTConfig, get_peft_model
        >>> from pyg_peft.backbones import PointMAE
        >>> base = PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)
        >>> center, share = prompt_attention(get_peft_model(base, VPTConfig()), torch.randn(50, 3))
        >>> center.shape, round(float(share.mean()), 4)
        (torch.Size([8, 3]), 1.0)
    """
    check_positions(pos=pos)
    base: Any = model.base
    patches = base.make_patches(pos)
    center = patches.center[0]
    valid = slice(None) if patches.mask is None else patches.mask[0]
    found: list[Tensor] = []

    def look(attention: Any, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]  # [1, 1 + P + G, C], but without summary token and prompts in bank queries
        num_prompts = x.size(1) - 1 - center.size(0)
        if num_prompts < 1:
            return
        heads = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))
        query, key, _ = heads.permute(2, 0, 3, 1, 4).unbind(0)  # each [1, H, L, C / H]
        prompts, keys = query[0, :, 1 : 1 + num_prompts], key[0, :, 1 + num_prompts :]
        score = prompts @ keys[:, valid].transpose(1, 2) / keys.size(-1) ** 0.5
        # A softmax over the patches alone is the share among them.
        found.append(score.softmax(dim=-1).mean(dim=(0, 1)))

    hooks = [block.attn.register_forward_pre_hook(look) for block in base.blocks]
    try:
        with eval_mode(model):
            model(pos=pos)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            "Expected 'model' to put prompts before the patches (got "
            f"{model.peft_config[model.active_adapter] if model.active_adapter else 'no adapter'})"
        )
    share = torch.stack(found).mean(dim=0)
    return center[valid], share * share.numel()


def plot_attention(
    clouds: Sequence[tuple[Tensor, Tensor, Tensor]], titles: Sequence[str], *, title: str = ""
) -> "Figure":
    """Plot clouds side by side, with each point colored by the attention to its patch.

    Args:
        clouds: Points ``[N, 3]``, patch centers ``[G, 3]`` and attention ``[G]`` of each cloud, as
            returned by :func:`prompt_attention`.
        titles: One title per cloud.
        title: Title of the figure.

    Raises:
        ValueError: If there is nothing to draw, or lengths or shapes do not match.
        MissingExtraError: If matplotlib is not installed.
    """
    if not clouds or len(titles) != len(clouds):
        raise ValueError(f"Expected 'titles' to name each of {len(clouds)} (got {len(titles)})")
    for pos, center, share in clouds:
        check_positions(pos=pos, center=center)
        if share.shape != center.shape[:1]:
            raise ValueError(
                f"Expected 'clouds' to hold an attention for each of {center.size(0)} centers "
                f"(got {list(share.shape)})"
            )
    with style():
        figure = new_figure(3.1 * len(clouds) + 0.8, 3.6)
        low = min(float(share.min()) for *_, share in clouds)
        high = max(float(share.max()) for *_, share in clouds)
        drawn: Any = None
        axes: list[Any] = []
        for number, (pos, center, share) in enumerate(clouds):
            axes.append(figure.add_subplot(1, len(clouds), number + 1, projection="3d"))
            pos = pos.detach().float().cpu()
            # Interpolate between the three nearest centers, so that colors have no steps.
            distance, index = torch.cdist(pos, center.float().cpu()).topk(
                min(3, center.size(0)), largest=False
            )
            weight = 1 / distance.clamp(min=1e-6)
            value = (share.cpu()[index] * weight).sum(dim=1) / weight.sum(dim=1)
            drawn = draw_cloud(
                axes[-1], pos, size=11, c=value.numpy(), cmap="plasma", vmin=low, vmax=high
            )
            axes[-1].set_title(titles[number])
        figure.colorbar(drawn, ax=axes, label="attention, 1 = even", shrink=0.7, pad=0.02)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


__all__ = ["plot_attention", "prompt_attention"]
