"""The tuned lens (Belrose et al. 2023, arXiv 2303.08112, section 3): as the logit lens, after an affine translator for each layer."""

from pathlib import Path

import torch
import xarray as xr

from analyses.answers import Tokens
from analyses.lenses.reading import read_steps
from analyses.lenses.translators import TunedLens, load_lens, shipped_lens
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import after_block, streams
from interp.whole_numbers import Wholes, takes_whole


@torch.no_grad()
@takes_whole("top_k")
def tuned_lens(
    model: Transformer,
    prompt: Prompt,
    *,
    lens: TunedLens | str | Path | None = None,
    top_k: int | None = None,
    candidates: Tokens = (),
    positions: Wholes | None = None,
    centred: bool = False,
    bos: bool | None = None,
) -> xr.Dataset:
    """What the stream entering each layer says of the prediction, after the translator of that layer.

    A translator is trained to predict what the model will; what it finds need not be what the model uses.

    Args:
        lens: trained for this model, or a file of `save_lens`; None is the one that comes with the package (embedded models only).

    The other arguments, and what is returned, are those of `logit_lens`; its steps are whole layers here.

    Raises:
        CheckpointError: no lens, or one that belongs to another model.
        TokenError: as `logit_lens`.
    """
    chosen = _resolved(lens, model)
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    n_layers = model.config.n_layers
    labels = ["embed", *(after_block(model.config, layer) for layer in range(n_layers))]

    def decode(number: int, stream: torch.Tensor) -> torch.Tensor:
        translated = stream if number == n_layers else chosen.translate(number, stream)
        normed: torch.Tensor = model.ln_final(translated[None])[0]
        return normed

    return read_steps(
        "tuned_lens",
        model,
        tokens,
        dict(zip(labels, streams(model, tokens), strict=True)),
        [float(layer) for layer in range(n_layers + 1)],
        decode,
        top_k=top_k,
        candidates=candidates,
        positions=positions,
        centred=centred,
        parameters={"bos": bos, "lens": {name: said for name, said in chosen.about.items() if name != "architecture"}},
    )


def _resolved(lens: TunedLens | str | Path | None, model: Transformer) -> TunedLens:
    if lens is None:
        return shipped_lens(model)
    return lens.check(model) if isinstance(lens, TunedLens) else load_lens(lens, model)
