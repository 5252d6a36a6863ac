"""What `interp lens` draws."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from analyses.intervals import FEWEST_PROMPTS
from analyses.lenses import TunedLens, component_lens, load_lens, published_lens, tuned_lens
from analyses.lenses.overlap import overlapping
from analyses.lenses.translators import shipped_lens
from analyses.lenses.tuning import rows_of_text
from analyses.plots import plot_component_lens, plot_lens, plot_lens_curves, plot_lens_pair, plot_trajectories
from interp.decompose import check_sum
from interp.errors import TokenError
from interp.model import Transformer

EXAMINED = 32
"""Rows that lenses are measured on at most."""


def other_lens(model: Transformer, *, tuned: bool, path: Path | None, published: str | None) -> TunedLens | None:
    """The tuned lens that was asked for; None where none was."""
    if path is not None:
        return published_lens(path, model) if path.is_dir() else load_lens(path, model)
    if published is not None:
        return published_lens(published, model)
    return shipped_lens(model) if tuned else None


def check_lens(model: Transformer, texts: Sequence[str], follow: Sequence[str], *, parts: bool) -> None:
    """Raise InterpError, before any work, for prompts or tokens that the model cannot take, or parts that its stream is not the sum of."""
    model.to_tokens(texts)
    for token in follow:
        model.to_single_token(token)
    if parts:
        check_sum(model, "lens --parts")


def held_out_rows(model: Transformer, source: str | Path, length: int) -> Int[Tensor, "row position"]:
    """Rows of a text to measure lenses on, `EXAMINED` at most, spread over it. Raises TokenError where it gives too few for an interval."""
    rows = rows_of_text(model, source, length, "train_lens")
    if len(rows) < FEWEST_PROMPTS:
        raise TokenError(
            f"train_lens: {source} gives {len(rows)} rows of {length} tokens to measure on; {FEWEST_PROMPTS} are the least."
        )
    count = min(len(rows), EXAMINED)
    return rows[torch.arange(count) * len(rows) // count]


def unseen_rows(rows: Int[Tensor, "row position"], trained: Int[Tensor, "other place"]) -> Int[Tensor, "row position"]:
    """Those rows that hold no text of the training's. Raises TokenError where too few for an interval are left."""
    seen = overlapping(rows, trained)
    left = rows[torch.from_numpy(~seen)]
    if len(left) < FEWEST_PROMPTS:
        raise TokenError(
            f"train_lens: {int(seen.sum())} of {len(rows)} rows to measure on hold text that the lens is trained on; {FEWEST_PROMPTS} "
            "that do not are the least. Give another text, or let the model write more warmly."
        )
    return left


def lens_figures(
    model: Transformer, result: xr.Dataset, texts: Sequence[str], *, second: TunedLens | None, color: str, parts: bool
) -> list[go.Figure]:
    """The heatmap, or pairs of them with a second prompt or lens; then curves, chosen tokens, and what each part writes.

    Args:
        result: of the logit lens on `texts`, one or two.
        second: a tuned lens to draw beside it.
    """
    figures = []
    if second is None and len(texts) == 1:
        figures.append(plot_lens(result, color=color))
    if len(texts) == 2:
        figures.append(
            plot_lens_pair(result, result, names=["first prompt", "second prompt"], prompt=(0, 1), color=color)
        )
    if second is not None:
        tuned = tuned_lens(model, list(texts), lens=second)
        figures += [plot_lens_pair(result, tuned, prompt=number, color=color) for number in range(len(texts))]
        figures.append(plot_lens_curves({"logit lens": result, "tuned lens": tuned}))
    if result.sizes["candidate"]:
        figures += [plot_trajectories(result, prompt=number) for number in range(len(texts))]
    if parts:
        split = component_lens(model, list(texts), positions=[-1])
        figures += [plot_component_lens(split, prompt=number) for number in range(len(texts))]
    return figures
