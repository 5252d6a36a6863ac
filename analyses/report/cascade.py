"""What `interp cascade inside` measures and shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from rich.table import Table

from analyses import cascade
from analyses.plots import plot, plot_gain
from interp.errors import ConfigError
from interp.model import Transformer

QUICK = ("covariance", "token", "activation", "unembedding")
"""Kinds of directions that are drawn at once; `singular` ones take a decomposition for every place."""

MEASURED = ("gain", "gain_null", "cone", "ledger", "spectrum", "exponents", "dose", "directions", "damping", "theory")
"""What can be kept as files; `damping` and `theory` are not there for every model."""


def measure(
    model: Transformer,
    texts: Sequence[str],
    others: Sequence[str] = (),
    *,
    dose: float,
    layer: int,
    n_directions: int,
    seed: int,
    progress: bool,
) -> dict[str, xr.Dataset]:
    """`gain`, `gain_null` (the same at random initialisation), `theory` (see `predicted`), `cone`, `spectrum`, `exponents`, `dose`,
    `directions`, `damping` (of a model with norms), `ledger` (of the difference to `others` where there are such, else of an
    injection), `verdict`."""
    common = {"dose": dose, "layer": layer, "n_directions": n_directions, "seed": seed, "progress": progress}
    twin = cascade.random_twin(model, seed)
    results = {
        "gain": cascade.gain(model, texts, **common),  # type: ignore[arg-type]
        "gain_null": cascade.gain(twin, texts, **common),  # type: ignore[arg-type]
        "cone": cascade.light_cone(model, texts, **common),  # type: ignore[arg-type]
        "spectrum": cascade.jacobian_spectrum(
            model, texts, source=(layer, -1), k=min(10, model.config.d_model - 1), seed=seed
        ),
        "exponents": cascade.lyapunov(model, texts, k=min(32, model.config.d_model - 1), seed=seed),
        "dose": cascade.dose_response(model, texts, layer=layer, seed=seed, progress=progress),
        "directions": cascade.compare_directions(model, texts, kinds=QUICK, **common),  # type: ignore[arg-type]
        "ledger": cascade.ledger(model, texts, others or None, dose=dose, layer=layer, seed=seed),
    }
    if model.config.norm != "none":
        results["damping"] = cascade.damping(model, texts, **common)  # type: ignore[arg-type]
    if (theory := predicted(twin, texts, layer)) is not None:
        results["theory"] = theory
    results["verdict"] = cascade.internal_verdict(results["gain"], null=results["gain_null"])
    return results


def predicted(twin: Transformer, texts: Sequence[str], layer: int = 0) -> xr.Dataset | None:
    """The mean-field prediction; None for an injection above layer 0 or a shape that it does not cover."""
    if layer != 0:
        return None
    try:
        return cascade.mean_field(twin, texts)
    except ConfigError:
        return None


def figures(results: Mapping[str, xr.Dataset]) -> list[go.Figure]:
    """Growth beside random weights and theory, the verdict, and a figure of each other result."""
    return [
        plot_gain(results["gain"], null=results["gain_null"], theory=results.get("theory")),
        plot(results["verdict"]),
        *(
            plot(results[name])
            for name in ("cone", "ledger", "directions", "dose", "spectrum", "exponents", "damping")
            if name in results
        ),
    ]


def rows(results: Mapping[str, xr.Dataset]) -> Table:
    """The verdict and the figures that it rests on."""
    verdict, gain, null = (results[name] for name in ("verdict", "gain", "gain_null"))
    low, high = verdict["slope_interval"].to_numpy()
    interval = "" if np.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
    table = Table("", "value", title="cascade inside", title_justify="left")
    said = f"{verdict['verdict'].item()}, {int(verdict['prompts'])} prompts"
    table.add_row("verdict", f"{said}; at random init {verdict['null_verdict'].item()}")
    table.add_row(
        "slope of ln Γ, nats per layer",
        f"{float(verdict['slope_mean']):+.3f}{interval}; margin ±{float(verdict['margin']):.3f}",
    )
    table.add_row("the same at random init", f"{float(verdict['null_slope']):+.3f}")
    for name, title in (("log_gain", "G at the output (typical)"), ("log_relative_gain", "Γ at the output (typical)")):
        own, other = (float(np.exp(result[name][:, -1].mean())) for result in (gain, null))
        table.add_row(title, f"{own:.2f}; at random init {other:.2f}")
    table.add_row("share that has left its position", f"{float(results['cone']['off_site'][:, -1].mean()):.0%}")
    entry = results["ledger"]["head_entry"].mean("prompt").to_series()
    best = ", ".join(f"{layer}.{head} ({value:+.2f})" for (layer, head), value in entry.nlargest(3).items())
    table.add_row("heads that add most, nats", best)
    for title, result in (("growth goes with depth as", gain), ("the same at random init", null)):
        aic = result["growth_aic"].to_numpy()
        better = "too few layers to tell" if np.isnan(aic).any() else str(result["law"].to_numpy()[int(aic.argmin())])
        table.add_row(title, better if np.isnan(aic).any() else f"{better}, by {abs(aic[0] - aic[1]):.1f} of AIC")
    theory = results.get("theory")
    expected = (
        "not worked out for this shape or layer"
        if theory is None
        else f"{float(np.exp(theory['log_gain'][:, -1].mean())):.2f}"
    )
    table.add_row("G by mean field at random init", expected)
    rounding = float(gain["rounding"].max())
    table.add_row("zero-dose control, computed again", f"{rounding:.1e} of the disturbance at most")
    return table
