"""The logit lens beside a tuned lens, on text that the tuned one has not seen."""

from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from analyses.intervals import FEWEST_PROMPTS
from analyses.lenses.translators import TunedLens
from analyses.lenses.tuned import tuned_lens
from interp.errors import TokenError
from interp.model import Transformer
from interp.prompts import Prompt

LOGIT, TUNED = "logit lens", "tuned lens"
COMPARED = (("mean_kl", "KL"), ("mean_cross_entropy", "cross-entropy"))
"""Variables of both lenses that are set side by side, and their names; nats."""


def compare_lenses(
    model: Transformer, prompt: Prompt, *, lens: TunedLens | str | Path | None = None, bos: bool | None = None
) -> dict[str, xr.Dataset]:
    """Both lenses on the same texts, at whole layers: what `plot_lens_curves` draws.

    The logit lens is the tuned one whose translators change nothing, so that half steps are not computed.

    Args:
        prompt: texts, or rows of token ids; six at least, so that means over them have an interval.
        lens, bos: as `tuned_lens`.

    Returns:
        `logit lens` and `tuned lens`, each a Dataset as `tuned_lens` gives it.

    Raises:
        TokenError: fewer than six texts, or what the model cannot take. CheckpointError: no lens, or one of another model.
    """
    tokens = model.to_tokens(prompt, bos=bos)
    if len(tokens) < FEWEST_PROMPTS:
        raise TokenError(
            f"compare_lenses: {FEWEST_PROMPTS} texts are the least that give an interval; there are {len(tokens)}."
        )
    tuned = tuned_lens(model, tokens, lens=lens, top_k=1)
    plain = TunedLens.identity(model, {"method": "logit lens (nostalgebraist 2020)"})
    return {LOGIT: tuned_lens(model, tokens, lens=plain, top_k=1), TUNED: tuned}


def compared_cells(results: Mapping[str, xr.Dataset]) -> list[list[str]]:
    """A row for each layer and the output: the layer, then of KL and of cross-entropy both lenses' mean with its 95 % interval."""
    rows = []
    for layer in results[TUNED]["layer"].to_numpy():
        cells = [f"{layer:.0f}"]
        for name, _ in COMPARED:
            for which in (LOGIT, TUNED):
                one = results[which].sel(layer=layer)
                low, high = (float(bound) for bound in one[f"{name}_interval"])
                cells.append(f"{float(one[f'{name}_mean']):.3f} ({low:.3f} to {high:.3f})")
        rows.append(cells)
    return rows


def compared_names() -> list[str]:
    """The columns of `compared_cells`."""
    return ["layer", *(f"{name}, {which}" for _, name in COMPARED for which in (LOGIT, TUNED))]


def compared_table(results: Mapping[str, xr.Dataset]) -> str:
    """The same in Markdown."""
    names = compared_names()
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *compared_cells(results)))
