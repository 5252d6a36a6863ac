"""How many directions of each place reach the output."""

import json

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import axis, model_name, place, subtitled, which
from analyses.plots.theme import DIVERGING, SEQUENTIAL, TEMPLATE


@draws("cascade_participation")
def plot_participation(result: xr.Dataset, *, prompt: int = 0) -> go.Figure:
    """Left the participation ratio, right ln of the root mean square gain to the target; blank where nothing arrives.

    Args:
        result: of `analyses.cascade.participation`.
        prompt: which of its prompts.
    """
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    real = one["token_id"].to_numpy() >= 0
    ticks = axis(one["token"].to_numpy()[real])
    target = int(json.loads(result.attrs["parameters"])["position"]) % int(real.sum())
    layers = one["layer"].to_numpy()
    fig = make_subplots(
        1, 2, subplot_titles=["directions that share the growth", "ln of the typical gain"], shared_yaxes=True, horizontal_spacing=0.14
    )  # fmt: skip
    for column, (name, said, scale, middle, at) in enumerate(
        (("participation", "ratio", SEQUENTIAL, None, 0.44), ("log_rms_gain", "nats", DIVERGING, 0, 1.0)), start=1
    ):
        fig.add_heatmap(
            z=one[name].to_numpy()[:, real], y=layers, colorscale=scale, zmid=middle,
            colorbar={"title": {"text": said, "font": {"size": 13}}, "x": at, "len": 0.9, "thickness": 12},
            hovertemplate="position %{x}, entering layer %{y}<br>%{z:.3g}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    fig.update_xaxes(title="source", tickangle=-60, **ticks)
    fig.update_yaxes(dtick=1, showgrid=False)
    fig.update_yaxes(title="stream entering layer", col=1)
    below = [which(result, prompt)]
    title = f"From each place to the output at position {target} ({ticks['ticktext'][target]}) · {model_name(result)}"
    if "participation_standard_error" in one:
        probes = json.loads(result.attrs["parameters"])["probes"]
        error = float((one["participation_standard_error"] / one["participation"]).median())
        below.append(f"estimated by {probes} random directions; median standard error of the ratio {error:.0%}")
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(title, *below),
        width=1040,
        height=440,
        margin={"t": 92, "b": 90},
    )
    fig.update_annotations(font={"size": 13})
    return fig
