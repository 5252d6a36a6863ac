"""Direct logit attribution: what each part writes, ending in the total, and head by head beside the total effect."""

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import prompts_in
from analyses.plots.grid import chosen_prompt, reach_of
from analyses.plots.kinds import draws
from analyses.plots.labels import label, model_name, where_read, which
from analyses.plots.theme import DIVERGING, FAINT, TEMPLATE
from analyses.plots.waterfall import add_waterfall

PANELS = (
    ("head_effect", "direct effect of each head"),
    ("total_effect", "its total effect (ablated)"),
    ("self_repair", "direct less total effect"),
)


@draws("direct_logit_attribution")
def plot_direct(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """Above, the parts one after the other as a waterfall that ends in the metric; below, heads on one scale.

    With several prompts bars carry the 95 % bootstrap interval of their part's effect.

    Args:
        result: of `analyses.direct_logit_attribution`.
        prompt: which; None is the only one, or the mean over prompts.
    """
    number = chosen_prompt(result, prompt)
    done = json.loads(result.attrs["parameters"])
    units = str(result["metric"].attrs["units"])
    shown = {
        name: _chosen(result, name, number).to_numpy()
        for name in ("component_effect", "metric", *(name for name, _ in PANELS))
    }
    parts, names = shown["component_effect"], [str(name).replace("_", " ") for name in result["component"].to_numpy()]
    fig = make_subplots(
        2, 3, specs=[[{"colspan": 3}, None, None], [{}, {}, {}]], row_heights=[0.52, 0.48], vertical_spacing=0.24,
        subplot_titles=["", *(title for _, title in PANELS)], horizontal_spacing=0.07,
    )  # fmt: skip
    error = None
    if number is None and np.isfinite(bounds := result["component_effect_interval"].to_numpy()).all():
        error = {
            "array": bounds[1] - parts,
            "arrayminus": parts - bounds[0],
            "color": FAINT,
            "thickness": 1.2,
            "width": 2,
        }
    add_waterfall(fig, names, parts, float(shown["metric"]), units=units, error=error)
    limit = reach_of(np.stack([shown[name] for name, _ in PANELS]), units=units)
    for column, (name, _) in enumerate(PANELS, start=1):
        fig.add_heatmap(
            z=shown[name], coloraxis="coloraxis", xgap=1, ygap=1, name=name,
            hovertemplate="head %{y}.%{x}<br>%{z:.3f} " + units + "<extra></extra>", row=2, col=column,
        )  # fmt: skip
        fig.update_xaxes(title="head", dtick=1, showgrid=False, row=2, col=column)
        fig.update_yaxes(title="layer" if column == 1 else None, dtick=1, showgrid=False, row=2, col=column)
    fig.update_yaxes(title=units, row=1, col=1)
    over = (
        f"mean over {prompts_in(result)} prompts{where_read(done)}"
        if number is None
        else "; ".join(one for one in (which(result, number), _question(result, number, done)) if one)
    )
    fig.update_layout(
        template=TEMPLATE,
        title=f"Direct logit attribution of the {done['metric'].replace('_', ' ')} · {model_name(result)}"
        f"<br><sup>{over}; {done['ablation'].replace('_', ' ')} ablation for the total effect</sup>",
        coloraxis={"colorscale": DIVERGING, "cmid": 0, "cmin": -limit, "cmax": limit,
                   "colorbar": {"title": {"text": units, "side": "right"}, "len": 0.42, "y": 0, "yanchor": "bottom"}},
        width=1040,
        height=600 + min(22 * result.sizes["layer"], 560),
        margin={"t": 84},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _chosen(result: xr.Dataset, name: str, prompt: int | None) -> xr.DataArray:
    if prompt is not None:
        return result[name].isel(prompt=prompt)
    return result[f"{name}_mean"] if f"{name}_mean" in result else result[name].mean("prompt")


def _question(result: xr.Dataset, prompt: int, done: dict[str, Any]) -> str:
    tokens = [str(token) for token in result["token"][prompt].to_numpy() if token]
    position = done.get("position", -1)
    at = (position[prompt] if isinstance(position, list) else position) % len(tokens)
    causal = json.loads(result.attrs["model_config"])["causal"]
    read = f"after “{label(''.join(tokens[max(0, at - 7) : at + 1]))}”" if causal else f"at “{label(tokens[at])}”"
    return read + where_read(done, prompt)
