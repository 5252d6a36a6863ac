"""Activation patching as a heatmap of layer by position."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.labels import axis, label, model_name, place
from analyses.plots.theme import DIVERGING, figure


def plot_patching(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """Share of the logit difference that each patch restores: 0 is the corrupt run, 1 the clean one.

    Args:
        result: of `analyses.activation_patching`.
        prompt: which pair; None is the only pair, or the mean over pairs, whose positions then have no tokens.
    """
    single = prompt if prompt is not None or result.sizes["prompt"] > 1 else 0
    if single is None:
        effect = result["effect"].mean("prompt").to_numpy()
        ticks, title, unit = {}, f"mean over {result.sizes['prompt']} pairs", "position"
    else:
        one = result.isel(prompt=place(result.sizes, "prompt", single))
        one = one.isel(position=one["clean_token_id"].to_numpy() >= 0)
        effect, ticks, unit = one["effect"].to_numpy(), axis(()), "token (corrupt → clean where they differ)"
        clean, corrupt = (one[f"{role}_token"].to_numpy() for role in ("clean", "corrupt"))
        ticks = axis(clean)
        for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)):
            if a != b:
                ticks["ticktext"][i] = f"<b>{label(str(b))} → {label(str(a))}</b>"
        title = (
            f"logit difference {float(one['corrupt_baseline']):.2f} corrupt, {float(one['clean_baseline']):.2f} clean"
        )
    limit = max(1.0, float(np.nanmax(np.abs(effect))))
    layers, positions = effect.shape
    fig = figure(
        f"Patching the stream, corrupt → clean · {model_name(result)}<br><sup>{title}</sup>",
        max(520, 200 + 46 * positions),
        230 + 34 * layers,
    )
    fig.add_heatmap(
        z=effect,
        hovertemplate="layer %{y}, position %{x}<br>restored %{z:.3f}<extra></extra>",
        colorscale=DIVERGING,
        zmid=0,
        zmin=-limit,
        zmax=limit,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "share restored", "side": "right"}},
    )
    fig.update_xaxes(title=unit, tickangle=-60, **ticks)
    fig.update_yaxes(title="stream entering layer", dtick=1, showgrid=False)
    return fig
