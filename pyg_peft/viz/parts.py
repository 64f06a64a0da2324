"""Plot a cloud with point labels: ground truth, prediction, and differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_peft.datasets.part_labels import IGNORE_INDEX
from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT, _WRONG, _IGNORED = "#c8c8c8", "#D55E00", "#eeeeee"


def plot_parts(
    pos: Tensor,
    truth: Tensor,
    prediction: Tensor,
    names: Sequence[str] | None = None,
    *,
    title: str = "",
    point_size: float = 6.0,
    ignore_index: int = IGNORE_INDEX,
) -> "Figure":
    """Plot one cloud three times: colored by truth, by prediction, and by agreement.

    Args:
        pos: Points ``[N, 3]``, z up.
        truth: Part of each point, ``[N]``.
        prediction: Predicted part of each point, for example the argmax of the logits.
        names: Names of the parts for the legend. Numbers by default. Parts that do not occur are
            omitted.
        title: Title of the figure.
        point_size: Area of a point, in square points of print.
        ignore_index: Points with this truth are drawn pale, and count neither as right nor as
            wrong.

    Raises:
        ValueError: If a shape is wrong, a part has no name, or there is nothing to draw.
        MissingExtraError: If matplotlib is not installed.
    """
    if pos.dim() != 2 or pos.size(1) != 3 or pos.size(0) == 0:
        raise ValueError(f"Expected 'pos' to be [N, 3], N > 0 (got {list(pos.shape)})")
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.shape != pos.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"Expected '{name}' to hold {pos.size(0)} integers "
                f"(got {labels.dtype}, {list(labels.shape)})"
            )
    pos, truth, prediction = (value.detach().cpu() for value in (pos.float(), truth, prediction))
    known = truth != ignore_index
    present = torch.cat([truth[known], prediction]).unique().tolist()
    if names is not None and not 0 <= present[0] <= present[-1] < len(names):
        raise ValueError(f"Expected 'names' to name the parts {present} (got {len(names)} names)")
    with style():
        from matplotlib.lines import Line2D

        colors = {part: _color(place, len(present)) for place, part in enumerate(present)}
        right = truth == prediction
        share = f"{100 * float(right[known].float().mean()):.1f} % right" if known.any() else ""
        figure = new_figure(11.0, 4.4)
        panels = {
            "truth": [
                colors[part] if has else _IGNORED
                for part, has in zip(truth.tolist(), known.tolist(), strict=True)
            ],
            "prediction": [colors[part] for part in prediction.tolist()],
            share or "no point has a label": [
                (_RIGHT if agrees else _WRONG) if has else _IGNORED
                for agrees, has in zip(right.tolist(), known.tolist(), strict=True)
            ],
        }
        for place, (name, shades) in enumerate(panels.items(), start=1):
            axes: Any = figure.add_subplot(1, 3, place, projection="3d")
            _draw(axes, pos, shades, point_size)
            axes.set_title(name)
        marks = [
            Line2D([], [], marker="o", ls="", color=colors[part], label=_name(part, names))
            for part in present
        ]
        wrong = "differs from the truth"
        marks.append(Line2D([], [], marker="o", ls="", color=_WRONG, label=wrong))
        if not bool(known.all()):
            marks.append(Line2D([], [], marker="o", ls="", color=_IGNORED, label="ignored"))
        columns = min(len(marks), 6)
        figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False)
        if title:
            figure.suptitle(title)
    return figure


def _draw(axes: Any, pos: Tensor, colors: list[Any], point_size: float) -> None:
    axes.scatter(*pos.T.numpy(), s=point_size, c=colors, lw=0, depthshade=False)
    low, high = pos.amin(dim=0), pos.amax(dim=0)
    span = (high - low).clamp(min=1e-6 * max(1.0, float((high - low).max())))
    for name, middle, half in zip("xyz", ((low + high) / 2).tolist(), span / 2, strict=True):
        getattr(axes, f"set_{name}lim")(middle - float(half), middle + float(half))
    axes.set_box_aspect(span.tolist(), zoom=1.05)
    axes.set_axis_off()
    axes.view_init(elev=22, azim=-55)


def _color(place: int, count: int) -> Any:
    """Return a color of the palette if it is large enough, else one of the color wheel."""
    import matplotlib

    # The vermilion, and the gray at the end of the list, mean "differs" and "agrees" here.
    quiet = [color for color in COLORS if color != _WRONG][:-1]
    if count <= len(quiet):
        return quiet[place]
    red, green, blue, _ = matplotlib.colormaps["hsv"]((0.618034 * place) % 1.0)
    return (0.85 * red, 0.85 * green, 0.85 * blue)


def _name(part: int, names: Sequence[str] | None) -> str:
    return str(part) if names is None else names[part]


__all__ = ["plot_parts"]
