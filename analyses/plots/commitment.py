"""Where the branch commits: shares restored by place."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, counted, label, model_name
from analyses.plots.theme import DIVERGING, FAINT, LINES, TEMPLATE
from interp.errors import ResultError, is_known, nearest


@draws("cascade_commitment")
def plot_commitment(result: xr.Dataset, *, null: xr.Dataset | None = None, measure: str = "margin") -> go.Figure:
    """Left one branch: the share that the clean stream restores at each layer and position, put there by itself; right the same by layer
    for each role of a place, over all branches, and of a place drawn at random.

    Bands are 95 % intervals over prompts where there are any.

    Args:
        result: of `analyses.cascade.commitment`.
        null: the same of `random_twin`, of which the random place is shown.
        measure: `margin` or `h`.

    Raises:
        ResultError: another measure.
    """
    if not is_known(measure, [str(one) for one in result["measure"].to_numpy()]):
        raise ResultError(f"plot_commitment: there is no measure {measure!r}. {nearest(measure, ['margin', 'h'])}")
    own = result.sel(measure=measure)
    layers = result["layer"].to_numpy()
    here, there = ([str(token) for token in result[name].to_numpy()] for name in ("branch_token", "other_branch_token"))
    tokens = [one if one == other else f"{one}/{other}" for one, other in zip(here, there, strict=True)]
    fig = make_subplots(
        1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.19,
        subplot_titles=[f"“{label(str(result['branch'].item()))}” or “{label(str(result['other_branch'].item()))}”?", "over all branches"],
    )  # fmt: skip
    z = own["places"].to_numpy()
    most = max(1.0, float(np.nanmax(np.abs(z))))
    fig.add_heatmap(
        z=z, y=layers, colorscale=DIVERGING, zmid=0, zmin=-most, zmax=most, xgap=1, ygap=1, hoverongaps=False,
        hovertemplate="layer %{y}, position %{x}<br>restores %{z:.3f}<extra></extra>", row=1, col=1,
        colorbar={"title": {"text": "restored", "side": "top"}, "x": 0.46, "thickness": 12},
    )  # fmt: skip
    fig.update_xaxes(title="shared past", tickangle=-60, **axis(tokens), row=1, col=1)
    fig.update_yaxes(title="stream entering layer", dtick=max(1, len(layers) // 7), showgrid=False, row=1, col=1)
    for number, role in enumerate(result["role"].to_numpy()):
        one = own.sel(role=role)
        _line(fig, layers, one["restored"].to_numpy(), one.get("restored_interval"), str(role), LINES[number], "solid")
    _line(fig, layers, own["random"].to_numpy(), own.get("random_interval"), "a random place", FAINT, "dot")
    if null is not None:
        random = null.sel(measure=measure)["random"].to_numpy()
        _line(fig, null["layer"].to_numpy(), random, None, "a random place, random weights", FAINT, "dash")
    fig.update_xaxes(title="stream entering layer", dtick=max(1, len(layers) // 7), row=1, col=2)
    fig.update_yaxes(title=f"share of {'the margin' if measure == 'margin' else 'h'} restored", row=1, col=2)
    parted = float(result["parted"].mean())
    fig.update_layout(
        template=TEMPLATE,
        title=f"Where the branch commits · {model_name(result)}<br><sup>{int(result['branches'])} draws of "
        f"{counted(result.sizes['prompt'], 'prompt')} that part, of all {parted:.0%}</sup>",
        width=1040,
        height=510,
        margin={"t": 96, "b": 180},
        legend={"y": -0.56, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _line(
    fig: go.Figure,
    layers: np.ndarray,
    values: np.ndarray,
    bounds: xr.DataArray | None,
    name: str,
    color: str,
    dash: str,
) -> None:
    """The mean over the prompts that have a value, with its band where there is one."""
    kept = np.isfinite(values).all(1)
    if not kept.any():
        return
    if bounds is not None and np.isfinite(bounds).all():
        fig.add_trace(band(layers, bounds.to_numpy(), color), row=1, col=2)
    fig.add_scatter(
        x=layers, y=values[kept].mean(0), mode="lines+markers", name=name, line={"color": color, "width": 2, "dash": dash},
        marker={"size": 5}, hovertemplate="layer %{x}<br>%{y:.3f}<extra></extra>", row=1, col=2,
    )  # fmt: skip
