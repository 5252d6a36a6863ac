"""The logit lens (nostalgebraist 2020): the residual stream at each half step through the final norm and the unembedding."""

import torch
import xarray as xr

from analyses.answers import Tokens
from analyses.lenses.reading import read_steps
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import half_steps
from interp.whole_numbers import Wholes, takes_whole


@torch.no_grad()
@takes_whole("top_k")
def logit_lens(
    model: Transformer,
    prompt: Prompt,
    *,
    top_k: int | None = None,
    candidates: Tokens = (),
    positions: Wholes | None = None,
    centred: bool = False,
    bos: bool | None = None,
) -> xr.Dataset:
    """What the model would predict if everything above a half step of the residual stream were left out.

    The stream after the embedding, after each attention and after each MLP goes through the final norm and the unembedding. The
    vocabulary is streamed over: logits of a hundred places or so are held at once.

    Args:
        prompt: a text, several texts, or token ids.
        top_k: how many of the most probable tokens to keep; None is 5, or all of a smaller vocabulary.
        candidates: single tokens, or ids, whose logit, rank and log-probability to follow.
        positions: which to read, counted from the end of each prompt where negative; None is all.
        centred: give logits less their mean over the vocabulary, which no probability depends on.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset. Dims: prompt; layer; position; top; candidate. Layer l is the stream entering block l, l + 0.5 that after its
        attention, and the last the model's own output; `step` names each. Variables: `top_id`, `top_token`, `top_probability`,
        `top_logit`; `entropy` (nats); `kl`, KL(final || layer) in nats; `final_rank`, the rank of the final prediction (0 is the top);
        `cross_entropy` of the true next token (nats, NaN at the last position); `candidate_logit`, `candidate_log_probability` (nats) and
        `candidate_rank`. Padding is NaN, -1 or ""; so is what is said of logits that are no numbers. `stands_from` (prompt, position): the
        lowest layer from which on the model's prediction leads. With several prompts `mean_kl`, `mean_entropy` and `mean_cross_entropy`
        over positions, (layer), with standard error and interval over prompts.

    Raises:
        TokenError: a prompt that the model cannot take; a candidate of several tokens; `top_k` or a position out of range.
    """
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    steps = half_steps(model, tokens)
    above = len(steps) - 1
    layers = [0.0, *((1 + at) / above * model.config.n_layers for at in range(above))]
    return read_steps(
        "logit_lens",
        model,
        tokens,
        steps,
        layers,
        lambda _, stream: model.ln_final(stream[None])[0],
        top_k=top_k,
        candidates=candidates,
        positions=positions,
        centred=centred,
        parameters={"bos": bos},
    )
