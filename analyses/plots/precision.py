"""Which disturbances a precision loses, drowns or lets through."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named
from analyses.plots.theme import LINES, TEMPLATE

DASHES = ("solid", "dash", "dot", "dashdot")


@draws("cascade_precision")
def plot_precision(result: xr.Dataset, *, null: xr.Dataset | None = None) -> go.Figure:
    """Left P(h = 0) against the dose: the disturbance is lost to rounding; middle the share of disturbances that are chaotic, whose h is
    neither 0 nor what float64 gives; right h itself, where it is not 0. One line for each precision.

    Bands are 95 % intervals over prompts where there are any; of h, 5 to 95 % of prompts and directions.

    Args:
        result: of `analyses.cascade.precision`.
        null: the same of `random_twin`; its lines are thin.
    """
    fig = make_subplots(
        1, 3, horizontal_spacing=0.08, subplot_titles=["lost: P(h = 0)", "chaotic: mostly rounding", "h, geometric mean where not 0"]
    )  # fmt: skip
    for one, width in ((result, 2.2), (null, 1.0)):
        if one is None:
            continue
        doses = one["dose"].to_numpy()
        for number, name in enumerate(one["precision"].to_numpy()):
            own, color = one.sel(precision=name), LINES[number % len(LINES)]
            chaotic = own.sel(regime="chaotic")
            columns = (
                (own["unchanged"].mean("prompt"), own.get("unchanged_interval")),
                (chaotic["regime_share"].mean("prompt"), chaotic.get("regime_share_interval")),
                (_typical(own["h"].to_numpy()), _range(own["h"].to_numpy())),
            )
            for column, (values, bounds) in enumerate(columns, start=1):
                there = np.isfinite(np.asarray(values))
                if bounds is not None and width > 2:
                    told = np.isfinite(np.asarray(bounds)).all(0)
                    fig.add_trace(band(doses[told], np.asarray(bounds)[:, told], color), row=1, col=column)
                fig.add_scatter(
                    x=doses[there], y=np.asarray(values)[there], mode="lines", name=named(name), showlegend=column == 1 and width > 2,
                    line={"color": color, "width": width, "dash": DASHES[number % len(DASHES)]}, row=1, col=column,
                    hovertemplate="dose %{x:.2g}<br>%{y:.3g}<extra></extra>",
                )  # fmt: skip
    fig.update_xaxes(title="dose (relative to the stream)", type="log", dtick=2, exponentformat="power")
    for column in (1, 2):
        fig.update_yaxes(title="share of disturbances" if column == 1 else "", range=[-0.03, 1.03], row=1, col=column)
    fig.update_yaxes(title="probability that draws differ", type="log", exponentformat="power", dtick=2, row=1, col=3)
    lost = ", ".join(
        f"{named(name)} {_dose(float(result['lost_median'].sel(precision=name)))}"
        for name in result["precision"].to_numpy()
    )
    thin = "" if null is None else "; thin: random weights"
    fig.update_layout(
        template=TEMPLATE,
        title=f"What rounding loses · {model_name(result)}<br><sup>lost up to a dose of: {lost}; "
        f"{counted(result.sizes['prompt'], 'prompt')} of {counted(result.sizes['direction'], 'direction')}{thin}</sup>",
        width=1040,
        height=420,
        margin={"t": 96, "b": 100},
        legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _typical(h: np.ndarray) -> np.ndarray:
    """Geometric mean over prompts and directions of what is not 0; NaN where all is."""
    there = h > 0
    logs = np.log(np.where(there, h, 1.0)).sum((1, 2))
    count = there.sum((1, 2))
    mean: np.ndarray = np.exp(np.divide(logs, count, out=np.full(len(h), np.nan), where=count > 0))
    return mean


def _range(h: np.ndarray) -> np.ndarray:
    """5 and 95 % of what is not 0, by dose; NaN where all is."""
    bounds = [np.quantile(one[one > 0], [0.05, 0.95]) if (one > 0).any() else np.full(2, np.nan) for one in h]
    return np.stack(bounds, axis=1)


def _dose(lost: float) -> str:
    return "none" if lost == 0 else f"{lost:.1e}"
