"""Activation patching: which value, put from one run into another, moves the answer?"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from torch import Tensor

from analyses.results import make, token_coords
from interp.errors import InterpError, ResultError, TokenError
from interp.metrics import logit_difference
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import patch_stream, streams
from interp.tokenizer import PAD

SITES = ("resid_pre",)
SMALLEST_GAP = 0.05
"""A difference between the baselines, in logits, below which a normalised effect would be noise divided by nothing."""


def activation_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: str | int | Sequence[str | int],
    wrong: str | int | Sequence[str | int],
    site: str = "resid_pre",
    bos: bool | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Denoising: run the corrupt prompt, put in the clean run's value at one layer and position, and read the answer.

    The method is that of Meng et al. 2022 (arXiv 2202.05262) with the corrupt prompt of Wang et al. 2022, and the
    logit difference as metric (Zhang and Nanda 2023, arXiv 2309.16042). It assumes prompts aligned token by token; a position where
    both prompts have the same token and the same past has no effect by construction.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length.
        answer, wrong: the token that is right for the clean prompt, and the one it is compared with; text that is one token,
            or an id; one for all pairs or one per pair.
        site: what is patched; `resid_pre`, the stream entering a layer.
        bos: see `Transformer.to_tokens`.
        progress: show a progress bar on standard error.

    Returns:
        A Dataset. `logit_difference` (prompt, layer, position), logits: that of the patched run at the last position.
        `effect`, the same normalised: 0 at the corrupt baseline, 1 at the clean one. `clean_baseline` and
        `corrupt_baseline` (prompt), logits. Dim `prompt` numbers the pairs; beyond a shorter pair's end is NaN.

    Raises:
        TokenError: a pair of unequal length (both token rows are shown), or an answer of several tokens.
        ResultError: baselines too close together to normalise by.
        InterpError: a site that is not supported.
    """
    if site not in SITES:
        raise InterpError(f"activation_patching: site {site!r} is not supported; choose one of {', '.join(SITES)}.")
    clean_tokens, corrupt_tokens = (model.to_tokens(prompt, bos=bos) for prompt in (clean, corrupt))
    _check_aligned(model, clean_tokens, corrupt_tokens)
    pairs, positions = clean_tokens.shape
    answers, wrongs = (_answers(model, name, given, pairs) for name, given in (("answer", answer), ("wrong", wrong)))
    patched = torch.full((pairs, model.config.n_layers, positions), torch.nan)
    baselines = torch.empty(2, pairs)
    numbers: Sequence[int] = range(pairs)
    bar = track(numbers, "patching", console=Console(stderr=True), disable=not progress)
    for pair in bar:
        length = int((clean_tokens[pair] != PAD).sum())
        rows = (clean_tokens[pair, :length], corrupt_tokens[pair, :length])
        baselines[:, pair], patched[pair, :, :length] = _patch_pair(model, *rows, answers[pair], wrongs[pair])
    gap = baselines[0] - baselines[1]
    _check_gap(gap, baselines)
    effect = (patched - baselines[1][:, None, None]) / gap[:, None, None]
    at = ("prompt", "layer", "position")
    return make(
        "activation_patching",
        {
            "effect": (at, effect, "share of the logit difference restored", "1"),
            "logit_difference": (at, patched, "logit difference of the patched run", "logits"),
            "clean_baseline": (("prompt",), baselines[0], "logit difference of the clean run", "logits"),
            "corrupt_baseline": (("prompt",), baselines[1], "logit difference of the corrupt run", "logits"),
        },
        {
            **token_coords(model, clean_tokens, prefix="clean_"),
            **token_coords(model, corrupt_tokens, prefix="corrupt_"),
            **{f"{role}_id": (("prompt",), ids.numpy()) for role, ids in (("answer", answers), ("wrong", wrongs))},
            "layer": np.arange(model.config.n_layers),
            "position": np.arange(positions),
        },
        model=model,
        prompts={"clean": clean_tokens, "corrupt": corrupt_tokens},
        parameters={
            "site": site,
            "direction": "denoising",
            "answer": answers.tolist(),
            "wrong": wrongs.tolist(),
            "bos": bos,
        },
    )


def _patch_pair(
    model: Transformer,
    clean: Int[Tensor, " position"],
    corrupt: Int[Tensor, " position"],
    answer: Tensor,
    wrong: Tensor,
) -> tuple[Float[Tensor, " two"], Float[Tensor, "layer position"]]:
    """Both baselines (clean, corrupt), and the logit difference for every patched layer and position."""
    clean_streams, corrupt_streams = (streams(model, tokens[None]) for tokens in (clean, corrupt))

    def difference(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
        answers, wrongs = (token.to(logits.device).expand(len(logits)) for token in (answer, wrong))
        return logit_difference(logits, answers, wrongs).cpu().float()

    ends = torch.cat([run[-1][:, -1:] for run in (clean_streams, corrupt_streams)])
    baselines = difference(model.unembed(ends)[:, 0])
    layers = [
        difference(patch_stream(model, base=corrupt_streams[layer][0], source=clean_streams[layer][0], layer=layer))
        for layer in range(model.config.n_layers)
    ]
    return baselines, torch.stack(layers)


def _answers(model: Transformer, role: str, given: str | int | Sequence[str | int], pairs: int) -> Int[Tensor, " pair"]:
    tokens = [given] * pairs if isinstance(given, (str, int)) else list(given)
    if len(tokens) != pairs:
        raise TokenError(
            f"activation_patching: {len(tokens)} values of {role} for {pairs} pairs; give one, or one per pair."
        )
    ids = [model.to_single_token(token) if isinstance(token, str) else int(token) for token in tokens]
    wrong = [i for i in ids if not 0 <= i < model.config.d_vocab]
    if wrong:
        raise TokenError(
            f"activation_patching: {role} id {wrong[0]} is out of range: ids are 0 to {model.config.d_vocab - 1}."
        )
    return torch.tensor(ids)


def _check_aligned(
    model: Transformer, clean: Int[Tensor, "pair position"], corrupt: Int[Tensor, "other position2"]
) -> None:
    if len(clean) != len(corrupt):
        raise TokenError(f"activation_patching: {len(clean)} clean prompts but {len(corrupt)} corrupt ones.")
    for number, (left, right) in enumerate(zip(clean.tolist(), corrupt.tolist(), strict=True)):
        rows = [[i for i in row if i != PAD] for row in (left, right)]
        if len(rows[0]) == len(rows[1]):
            continue
        shown = [model.tokenizer.pieces(row) if model.tokenizer else row for row in rows]
        first = next((i for i, (a, b) in enumerate(zip(*rows, strict=False)) if a != b), min(map(len, rows)))
        raise TokenError(
            f"activation_patching: pair {number}: the clean prompt has {len(rows[0])} tokens and the corrupt one {len(rows[1])}; they must "
            f"match position by position. They first differ at position {first}.\n  clean:   {shown[0]}\n  corrupt: {shown[1]}"
        )


def _check_gap(gap: Float[Tensor, " pair"], baselines: Float[Tensor, "two pair"]) -> None:
    for number in (gap.abs() < SMALLEST_GAP).nonzero().flatten().tolist():
        clean, corrupt = baselines[:, number].tolist()
        raise ResultError(
            f"activation_patching: pair {number}: the clean and corrupt logit differences are nearly the same ({clean:.4f} and "
            f"{corrupt:.4f}), so an effect between them means nothing. Use prompts, or an answer, on which the model differs."
        )
