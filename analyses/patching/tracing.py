"""Causal tracing: noise on the subject's embeddings, and the clean run's values put back one at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.answers import Tokens, top_predictions
from analyses.intervals import over_prompts
from analyses.patching.experiment import Experiment, Method
from analyses.patching.grid import check_gap, coordinates, left_out, left_out_variable, normalised
from analyses.patching.metrics import Custom, metric_of
from analyses.patching.pairs import Pairs, read_answers
from analyses.results import Variable, make
from interp.errors import InterpError, TokenError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD
from interp.whole_numbers import Wholes, is_one, one_or_several, takes_whole, whole_numbers

WHO = "causal_tracing"

Subject = str | Wholes
"""A part of the prompt's text, or token positions: a list, a range, an array, a tensor."""


@takes_whole("draws", "window", "seed", several=["layers"])
def causal_tracing(
    model: Transformer,
    prompt: Prompt,
    *,
    subject: Subject | Sequence[Subject],
    answer: Tokens | None = None,
    wrong: Tokens | None = None,
    site: str = "resid_post",
    sigma: float = 3.0,
    draws: int = 10,
    metric: str | Custom = "probability",
    position: Position = -1,
    by_position: bool | None = None,
    layers: Sequence[int] | None = None,
    window: int = 1,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Blur the subject with noise and restore one value of the clean run at a time (Meng et al. 2022, arXiv 2202.05262, section 2).

    It assumes that noise takes away what the model knows of the subject and nothing else. Noise also takes the run away from what
    the model was trained on, so results can depend on its size; a corrupt prompt has not that fault (Zhang and Nanda 2023, arXiv
    2309.16042, section 3), see `activation_patching`.

    Args:
        prompt: one or several.
        subject: the part that is blurred: text that stands once in the prompt, or token positions; one for all prompts, or one each.
        answer: the token that is followed; None is the clean run's top prediction.
        site: what is restored, as in `activation_patching`. Meng et al. restore `resid_post`, and `mlp_out` and `attn_out` with
            `window=10`.
        sigma: size of the noise, in standard deviations of all entries of the token embeddings.
        draws: of the noise for each prompt. A prompt's noise depends on `seed` and its place among the prompts alone.
        metric, position, by_position, layers, window, smallest_gap, bos, max_bytes, progress: as in `activation_patching`.

    Returns:
        A Dataset. `effect` (prompt, layer, ...): from means over draws, 0 in the corrupt run, 1 in the clean one. `value` (prompt, draw,
        layer, ...), `corrupt_baseline` (prompt, draw) and `clean_baseline` (prompt), in the metric's units. `blurred` (prompt, position);
        `left_out` (prompt), whether both baselines are equal. With several prompts also `effect_mean`, `effect_standard_error` and
        `effect_interval`, over prompts of unequal length by `position_from_end`, see `activation_patching`.

    Raises:
        TokenError: a subject that is not in its prompt, or more than once.
        InterpError: a number of draws or a sigma that is not positive, or as `activation_patching`.
    """
    if draws < 1 or not 0 < sigma < float("inf"):
        raise InterpError(f"{WHO}: need at least one draw and a positive sigma; got draws={draws}, sigma={sigma}.")
    check_gap(smallest_gap, WHO)
    read = given_position(position, WHO)
    method = Method.of(model, site, by_position=by_position, layers=layers, window=window, who=WHO)
    chosen = metric_of(metric)
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    subject = _plain(subject)
    blurred = _blurred(model, prompt, tokens, subject, bos)
    lengths = (tokens != PAD).sum(1).tolist()
    places = positions_of(read, lengths, WHO)
    if answer is None:
        answer = top_predictions(model, tokens, places, WHO)
    answers, wrongs = read_answers(model, answer, wrong, [chosen], len(tokens), WHO)
    every = tokens.repeat_interleave(draws, 0)
    matched = [[(i, i) for i in range(int((row != PAD).sum()))] for row in every]
    run = Experiment(
        model,
        Pairs(every, every, matched),
        answers.repeat_interleave(draws),
        None if wrongs is None else wrongs.repeat_interleave(draws),
        [at for at in places for _ in range(draws)],
        max_bytes,
        WHO,
        corrupt_stream=_blur(model, tokens, blurred, sigma, draws, seed),
    )
    values, baselines = run.patch(method, [chosen], None, "tracing" if progress else None)
    value = values[0].reshape(len(tokens), draws, *values.shape[2:])
    baseline = baselines[0].reshape(2, len(tokens), draws)
    means = baseline.mean(2)
    effect = normalised(value.mean(1), means, chosen, smallest_gap, WHO)
    one = Experiment(model, Pairs(tokens, tokens, matched[::draws]), answers, wrongs, places, max_bytes, WHO)
    dims, share = method.site.dims, f"share of the {chosen.long_name} that is restored"
    variables: dict[str, Variable] = {
        "effect": (("prompt", *dims), effect, share, "1"),
        "value": (("prompt", "draw", *dims), value, f"{chosen.long_name} of the patched run", chosen.units),
        "clean_baseline": (("prompt",), baseline[0, :, 0], f"{chosen.long_name} of the clean run", chosen.units),
        "corrupt_baseline": (("prompt", "draw"), baseline[1], f"{chosen.long_name} of the blurred run", chosen.units),
        "blurred": (("prompt", "position"), blurred.cpu().numpy(), "whether the token's embedding is blurred", "1"),
        "left_out": left_out_variable(means),
    }
    if len(tokens) > 1:
        kept = ~left_out(means).numpy()
        variables |= over_prompts("effect", effect.numpy(), dims, share, "1", kept=kept, lengths=lengths)
    return make(
        "causal_tracing",
        variables,
        coordinates(one, method) | {"draw": np.arange(draws)},
        model=model,
        prompts={"prompt": tokens},
        parameters={**method.parameters(), "metric": chosen.name, "position": read, "sigma": sigma, "draws": draws, "bos": bos,
                    "subject": subject},
        seed=seed,
    )  # fmt: skip


@torch.no_grad()
def _blur(
    model: Transformer,
    tokens: Int[Tensor, "prompt position"],
    blurred: Tensor,
    sigma: float,
    draws: int,
    seed: int,
) -> Float[Tensor, "run position d_model"]:
    """What enters block 0 with noise on the token embeddings of the subject, draw by draw for each prompt."""
    stream = model.embed(tokens).repeat_interleave(draws, 0)
    size = sigma * model.config.embed_scale * model.W_E.double().std()
    for number, where in enumerate(blurred):
        generator = torch.Generator().manual_seed(seed + number)
        shape = (draws, int(where.sum()), model.config.d_model)
        noise = size.cpu() * torch.randn(shape, generator=generator, dtype=torch.float64)
        stream[number * draws : (number + 1) * draws, where] += noise.to(stream)
    return stream


def _plain(subject: Any) -> str | list[Any]:
    """A subject or several as text and lists of whole numbers. Raises TokenError for anything else."""
    if isinstance(subject, str):
        return subject
    what = f"{WHO}: a position of the subject"
    parts = one_or_several(subject, what)
    return whole_numbers(parts, what) if all(map(is_one, parts)) else [_plain(part) for part in parts]


def _blurred(
    model: Transformer,
    prompt: Prompt,
    tokens: Int[Tensor, "prompt position"],
    subject: str | list[Any],
    bos: bool | None,
) -> Tensor:
    """Which tokens belong to each prompt's subject: [prompt, position]."""
    single = isinstance(subject, str) or all(isinstance(part, int) for part in subject)
    subjects = [subject] * len(tokens) if single else list(subject)
    if len(subjects) != len(tokens):
        raise TokenError(
            f"{WHO}: {len(subjects)} subjects for {len(tokens)} prompts; give one, or one for each prompt."
        )
    found = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
    for row, part in enumerate(subjects):
        length = int((tokens[row] != PAD).sum())
        if isinstance(part, str):
            text = prompt if isinstance(prompt, str) else prompt[row]
            positions = _named(model, part, text if isinstance(text, str) else tokens[row], bos)
        else:
            positions = part
        wrong = [position for position in positions if not 0 <= position < length]
        if wrong or not positions:
            raise TokenError(f"{WHO}: subject positions {positions}: the prompt has positions 0 to {length - 1}.")
        found[row, positions] = True
    return found


def _named(model: Transformer, text: str, prompt: str | Tensor, bos: bool | None) -> list[int]:
    try:
        return model.positions_of(text, prompt, bos=bos)
    except TokenError as error:
        raise TokenError(
            f"{WHO}: subject {error}\n  Give a part that stands in the prompt once; from Python also its token positions."
        ) from error
