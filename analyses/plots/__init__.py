"""Results in, figures out."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from analyses.plots.ablation import plot_ablation
from analyses.plots.attention import plot_attention, plot_head
from analyses.plots.attribution import plot_attribution
from analyses.plots.avalanches import plot_avalanches
from analyses.plots.channels import plot_channels
from analyses.plots.component_lens import plot_component_lens
from analyses.plots.coupled import plot_coupled
from analyses.plots.damping import plot_damping
from analyses.plots.direct import plot_direct
from analyses.plots.dose_response import plot_dose_response
from analyses.plots.embeddings import plot_embeddings, plot_positions
from analyses.plots.external import plot_external, plot_joined
from analyses.plots.forest import plot_forest
from analyses.plots.gain import plot_gain
from analyses.plots.heads import plot_composition, plot_heads
from analyses.plots.ledger import plot_ledger
from analyses.plots.lens import plot_lens, plot_lens_pair
from analyses.plots.lens_curves import plot_lens_curves, plot_trajectories
from analyses.plots.light_cone import plot_light_cone
from analyses.plots.mean_field import plot_mean_field
from analyses.plots.methodology import plot_methodology
from analyses.plots.participation import plot_participation
from analyses.plots.patching import plot_patching
from analyses.plots.repair import plot_repair
from analyses.plots.reproduction import plot_reproduction
from analyses.plots.residual import plot_residual
from analyses.plots.spectrum import plot_lyapunov, plot_spectrum
from analyses.plots.survival import plot_survival
from analyses.plots.temperature import plot_temperature
from analyses.plots.verdict import plot_verdict
from interp.errors import ResultError, nearest

KINDS: dict[str, Callable[..., go.Figure]] = {
    "logit_lens": plot_lens,
    "tuned_lens": plot_lens,
    "component_lens": plot_component_lens,
    "attention_patterns": plot_attention,
    "activation_patching": plot_patching,
    "attribution_patching": plot_attribution,
    "causal_tracing": plot_patching,
    "dose_response": plot_dose_response,
    "embedding_structure": plot_embeddings,
    "direct_logit_attribution": plot_direct,
    "head_table": plot_heads,
    "head_detectors": plot_heads,
    "head_importance": plot_heads,
    "head_composition": plot_composition,
    "head_ablation": plot_ablation,
    "patching_methodology": plot_methodology,
    "residual_stream": plot_residual,
    "cascade_damping": plot_damping,
    "cascade_directions": plot_forest,
    "cascade_gain": plot_gain,
    "cascade_ledger": plot_ledger,
    "cascade_participation": plot_participation,
    "cascade_avalanches": plot_avalanches,
    "cascade_channels": plot_channels,
    "cascade_coupled": plot_coupled,
    "external_verdict": plot_external,
    "cascade_reproduction": plot_reproduction,
    "cascade_survival": plot_survival,
    "cascade_temperature": plot_temperature,
    "joined_verdict": plot_joined,
    "internal_verdict": plot_verdict,
    "jacobian_spectrum": plot_spectrum,
    "light_cone": plot_light_cone,
    "mean_field": plot_mean_field,
    "self_repair": plot_repair,
    "lyapunov": plot_lyapunov,
}


def plot(result: xr.Dataset, **options: Any) -> go.Figure:
    """The figure of a result, chosen by its kind; options are those of that kind's plot function.

    Raises ResultError for a result of a kind that has no figure.
    """
    kind = str(getattr(result, "attrs", {}).get("kind"))
    if kind not in KINDS:
        raise ResultError(f"there is no figure for a result of kind {kind!r}. {nearest(kind, KINDS)}")
    return KINDS[kind](result, **options)


__all__ = [
    "plot",
    "plot_ablation",
    "plot_attention",
    "plot_attribution",
    "plot_avalanches",
    "plot_channels",
    "plot_component_lens",
    "plot_composition",
    "plot_coupled",
    "plot_damping",
    "plot_direct",
    "plot_dose_response",
    "plot_embeddings",
    "plot_external",
    "plot_forest",
    "plot_gain",
    "plot_head",
    "plot_heads",
    "plot_joined",
    "plot_ledger",
    "plot_lens",
    "plot_lens_curves",
    "plot_lens_pair",
    "plot_light_cone",
    "plot_lyapunov",
    "plot_mean_field",
    "plot_methodology",
    "plot_participation",
    "plot_patching",
    "plot_positions",
    "plot_repair",
    "plot_reproduction",
    "plot_residual",
    "plot_spectrum",
    "plot_survival",
    "plot_temperature",
    "plot_trajectories",
    "plot_verdict",
]
