"""The growth ledger: a waterfall that ends in ln k, and which heads it names."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.subplots import make_subplots

from analyses.averaged import prompts_in
from analyses.clusters import units_of_result
from analyses.intervals import bootstrap_mean
from analyses.plots.bands import whiskers
from analyses.plots.grid import chosen_prompt, reach_of
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, which
from analyses.plots.theme import DIVERGING, FAINT, TEMPLATE
from analyses.plots.waterfall import add_waterfall

PANELS = (
    ("qk", "looks elsewhere (QK)"),
    ("ov_direction", "reads what has turned (OV)"),
    ("ov_scale", "the norm scales otherwise"),
    ("output_scale", "so does the norm behind"),
)
"""Of a head's entry; the last only where a norm stands on what attention writes."""


def _each(result: xr.Dataset) -> Float[np.ndarray, "prompt step"]:
    """What each attention layer and MLP adds, prompt by prompt."""
    attention = result["head_entry"].sum("head") + result["bias_entry"]
    both = [one.transpose("prompt", "layer").to_numpy() for one in (attention, result["mlp_entry"])]
    return np.stack(both, axis=2).reshape(result.sizes["prompt"], -1)


@draws("cascade_ledger")
def plot_ledger(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """Above, each attention layer and MLP as a step of ln of the disturbance's size, from the injection to the output; below, the heads'
    entries, and what in each head they come from. Whiskers are 95 % intervals over prompts where there are enough.

    Args:
        result: of `analyses.cascade.ledger`.
        prompt: which; None is the only one, or the mean over prompts.
    """
    number = chosen_prompt(result, prompt)
    one = result.mean("prompt") if number is None else result.isel(prompt=number)
    layers = result["layer"].to_numpy()
    heads, mlp = one["head_entry"].to_numpy(), one["mlp_entry"].to_numpy()
    steps = np.stack([heads.sum(1) + one["bias_entry"].to_numpy(), mlp], axis=1).ravel()
    error = (
        None if number is not None else whiskers(steps, bootstrap_mean(_each(result), units_of_result(result)), FAINT)
    )
    panels = [panel for panel in PANELS if panel[0] in result["part"]]
    names = [f"{layer}.{half}" for layer in layers for half in ("attn", "mlp")]
    columns = 1 + len(panels)
    fig = make_subplots(
        2, columns, specs=[[{"colspan": columns}, *[None] * len(panels)], [{} for _ in range(columns)]], row_heights=[0.52, 0.48],
        vertical_spacing=0.22, horizontal_spacing=0.05, subplot_titles=["", "entry of each head", *(title for _, title in panels)],
    )  # fmt: skip
    total = float(one["log_k"].sum())
    add_waterfall(fig, names, steps, total, units="nats", whole="ln of the growth", error=error)
    grids = [heads, *(one["head_part"].sel(part=part).to_numpy() for part, _ in panels)]
    limit = reach_of(np.stack(grids), units="nats")
    for column, grid in enumerate(grids, start=1):
        fig.add_heatmap(
            z=grid, y=layers, coloraxis="coloraxis", xgap=1, ygap=1, hovertemplate="head %{y}.%{x}<br>%{z:+.3f} nats<extra></extra>",
            row=2, col=column,
        )  # fmt: skip
        fig.update_xaxes(title="head", dtick=1, showgrid=False, row=2, col=column)
        fig.update_yaxes(
            title="layer" if column == 1 else None,
            dtick=1,
            showgrid=False,
            row=2,
            col=column,
        )
    fig.update_yaxes(title="ln of its size (nats)", row=1, col=1)
    over = f"mean over {prompts_in(result)} prompts" if number is None else which(result, number) or "one prompt"
    fig.update_layout(
        template=TEMPLATE,
        title=f"What makes a disturbance grow · {model_name(result)}<br><sup>{over}; negative entries damp</sup>",
        coloraxis={"colorscale": DIVERGING, "cmid": 0, "cmin": -limit, "cmax": limit,
                   "colorbar": {"title": {"text": "nats", "side": "right"}, "len": 0.42, "y": 0, "yanchor": "bottom"}},
        width=1040,
        height=560 + min(22 * len(layers), 560),
        margin={"t": 84},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
