"""The residual stream: its length, what is written into it, and how far it turns."""

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import prompts_in
from analyses.clusters import units_of_result
from analyses.intervals import bootstrap_mean
from analyses.plots.bands import band, interval, whiskers
from analyses.plots.grid import chosen_prompt
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, which
from analyses.plots.theme import DIVERGING, FAINT, LINES, TEMPLATE

HALVES = (("attn", "attention", LINES[2]), ("mlp", "MLP", LINES[4]), ("block", "both, side by side", LINES[4]))
"""What the steps are named for that write."""


@draws("residual_stream")
def plot_residual(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """Above, the norm step by step (first token apart, log scale) with its interval over prompts, and the cosine of every two steps;
    below, what each half block writes: the norm of its output, and by how much it changes the norm of the stream.

    Args:
        result: of `analyses.residual_stream`.
        prompt: which; None is the only one, or the mean over prompts.
    """
    number = chosen_prompt(result, prompt)
    steps = [str(step) for step in result["step"].to_numpy()]
    one = result.mean("prompt") if number is None else result.isel(prompt=number)
    fig = make_subplots(
        2, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.13, vertical_spacing=0.22,
        subplot_titles=["norm of the stream", "cosine between steps", "norm of what is written", "change of the stream's norm"],
    )  # fmt: skip
    if number is None and (bounds := interval(result, "mean_norm_interval")) is not None:
        fig.add_trace(band(steps, bounds, LINES[0]), row=1, col=1)
    for name, label, color in (
        ("mean_norm", "mean over tokens that are not set apart", LINES[0]),
        ("first_norm", "first token", LINES[1]),
    ):
        fig.add_scatter(
            x=steps, y=one[name].to_numpy(), mode="lines+markers", name=label, line={"color": color, "width": 2},
            hovertemplate="%{x}<br>norm %{y:.2f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    fig.add_heatmap(
        z=one["step_cosine"].to_numpy(), x=steps, y=steps, colorscale=DIVERGING, zmid=0, zmin=-1, zmax=1,
        colorbar={"title": {"text": "cosine", "side": "right"}, "len": 0.42, "y": 1, "yanchor": "top"},
        hovertemplate="%{y} and %{x}<br>cosine %{z:.3f}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    _draw_written(fig, result if number is None else result.isel(prompt=[number]), steps)
    fig.update_xaxes(tickangle=-60, showgrid=False)
    fig.update_yaxes(type="log", title="norm", dtick=1, row=1, col=1)
    fig.update_yaxes(type="category", showgrid=False, row=1, col=2)
    fig.update_xaxes(type="category")
    massive = int((result if number is None else one)["massive"].sum())
    over = f"mean over {prompts_in(result)} prompts" if number is None else which(result, number) or "one prompt"
    found = f"{massive} massive activations" if massive else "no massive activations"
    fig.update_layout(
        template=TEMPLATE,
        title=f"The residual stream · {model_name(result)}<br><sup>{over}; {found}</sup>",
        width=1040,
        height=820,
        margin={"t": 100, "b": 120},
        legend={"x": 0, "xanchor": "left", "y": -0.12, "yanchor": "top"},
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _draw_written(fig: go.Figure, some: xr.Dataset, steps: list[str]) -> None:
    """Bars of what attention and MLPs write: of each prompt the mean over the positions that are not set apart, and the mean of these."""
    for column, (name, said) in enumerate((("written_norm", "norm %{y:.2f}"), ("norm_change", "%{y:+.2f}")), start=1):
        each = some[name].astype(float).where(some["set_apart"] == 0).mean("position").transpose("prompt", "step")
        values, bounds = each.mean("prompt").to_numpy(), bootstrap_mean(each.to_numpy(), units_of_result(some))
        for half, title, color in HALVES:
            chosen = [at for at, step in enumerate(steps) if step.endswith(half)]
            if not chosen:
                continue
            fig.add_bar(
                x=[steps[at] for at in chosen], y=values[chosen], name=title, legendgroup=title, showlegend=column == 1,
                marker={"color": color}, error_y=whiskers(values[chosen], bounds[:, chosen], FAINT),
                hovertemplate="%{x}<br>" + said + "<extra></extra>", row=2, col=column,
            )  # fmt: skip
    fig.update_xaxes(categoryorder="array", categoryarray=steps[1:], row=2)
    fig.update_yaxes(title="norm", row=2, col=1)
    fig.update_yaxes(title="change of the norm", row=2, col=2)
