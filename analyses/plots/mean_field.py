"""What random weights should do, by mean-field theory."""

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name
from analyses.plots.theme import FAINT, LINES, TEMPLATE

CURVES = (
    ("log_gain", "ln G: whole disturbance", "nats"),
    ("log_relative_gain", "ln Γ: on site, relative", "nats"),
    ("mean_square", "mean square of the stream", "mean square"),
)


@draws("mean_field")
def plot_mean_field(result: xr.Dataset) -> go.Figure:
    """Predicted ln G, ln Gamma and mean square of the stream against depth: the mean over prompts, and each prompt in thin lines.

    Beside a measurement, give the result to `plot_gain` as its `theory`.

    Args:
        result: of `analyses.cascade.mean_field`.
    """
    layers, prompts = result["layer"].to_numpy(), result.sizes["prompt"]
    fig = make_subplots(1, len(CURVES), subplot_titles=[title for _, title, _ in CURVES], horizontal_spacing=0.09)
    for column, (name, _, units) in enumerate(CURVES, start=1):
        for number in range(prompts if prompts > 1 else 0):
            fig.add_scatter(
                x=layers, y=result[name][number].to_numpy(), mode="lines", line={"color": FAINT, "width": 0.8},
                opacity=0.5, showlegend=False, hovertemplate=f"prompt {number}, layer %{{x}}<br>%{{y:.3g}}<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
        fig.add_scatter(
            x=layers, y=result[name].mean("prompt").to_numpy(), mode="lines+markers", line={"color": LINES[0], "width": 2.2},
            showlegend=False, hovertemplate="layer %{x}<br>%{y:.3g}<extra></extra>",
                row=1, col=column,
        )  # fmt: skip
        fig.update_yaxes(title=units, row=1, col=column)
    for column in (1, 2):
        fig.add_hline(y=0, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=column)
    fig.update_xaxes(title="stream entering layer", dtick=1)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Mean-field prediction · {model_name(result)}<br><sup>{counted(prompts, 'prompt')}; the shape at random initialisation, "
        "injection at layer 0</sup>",
        width=1040,
        height=400,
        margin={"t": 96},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
