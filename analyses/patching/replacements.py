"""What is put in place of a value: another run's, nothing, a mean, or the value itself with a vector added."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.patching.sites import STREAM, Site
from interp.errors import InterpError, nearest
from interp.generation import left_aligned
from interp.interventions import Add, Change, Patch
from interp.model import Transformer
from interp.tokenizer import PAD

REPLACEMENTS = ("resample", "zero", "mean", "mean_by_position", "add")


def check_replacement(replacement: str, site: Site, vector: Tensor | None, model: Transformer, who: str) -> None:
    """Raises InterpError where the site cannot take that replacement."""
    if replacement not in REPLACEMENTS:
        raise InterpError(f"{who}: unknown replacement {replacement!r}. {nearest(replacement, list(REPLACEMENTS))}")
    if replacement.startswith("mean") and site.name == "pattern":
        raise InterpError(f"{who}: a mean pattern means nothing, since its keys differ from prompt to prompt.")
    if (replacement == "add") != (vector is not None):
        raise InterpError(f"{who}: replacement 'add' needs vector=, and nothing else takes one.")
    if vector is not None and (site.name not in STREAM or tuple(vector.shape) != (model.config.d_model,)):
        raise InterpError(
            f"{who}: a vector of shape {tuple(vector.shape)} at {site.name}; it is added to a value in the stream and has shape "
            f"({model.config.d_model},)."
        )


def values_of(
    model: Transformer,
    tokens: Int[Tensor, "batch position"],
    residual: Float[Tensor, "batch position d_model"] | None,
    names: Sequence[str],
    *,
    with_gradients: bool = False,
) -> tuple[dict[str, Tensor], Float[Tensor, "batch one d_model"]]:
    """The values of runs at the named hook points, by name, and the final stream of each row's last token after the final norm.

    Args:
        residual: what enters block 0; None is the embedding of the tokens.
        with_gradients: let gradients reach the values.
    """
    real = model.check_tokens(tokens)
    with model.capture(list(names), with_gradients=with_gradients) as values:
        stream = model.run_blocks(model.embed(tokens) if residual is None else residual, real=real)
    last = (tokens != PAD).sum(1) - 1
    return values, model.ln_final(stream[torch.arange(len(tokens), device=tokens.device), last][:, None])


@torch.no_grad()
def means(
    model: Transformer, reference: Int[Tensor, "batch position"], names: Sequence[str], by_position: bool
) -> dict[str, Tensor]:
    """Mean values [position, ...] over reference prompts at the named hook points: one for all positions, or each its own.

    Beyond the longest reference prompt a mean by position is NaN.
    """
    reference = left_aligned(reference)
    real = (reference != PAD)[:, :, None]
    found = {}
    for name, value in values_of(model, reference, None, names)[0].items():
        rest, flat = value.shape[2:], value.flatten(2).masked_fill(~real, 0.0)
        mean = flat.sum(0) / real.sum(0) if by_position else flat.sum((0, 1))[None] / real.sum()
        found[name] = mean.reshape(-1, *rest)
    return found


def changes(
    replacement: str,
    base: dict[str, Tensor],
    source: dict[str, Tensor],
    row: int,
    matched: Sequence[tuple[int, int]],
    length: int,
    vector: Tensor | None,
) -> dict[str, Change]:
    """What a pair's cells do at each hook point.

    Args:
        base: values of the runs that are changed, by hook name.
        source: those of the other runs for `resample`, or the means [position, ...].
        matched: (position in the base run, position in the source run).
        length: of the base prompt.
    """
    if vector is not None:
        return {name: Add(vector) for name in base}
    found: dict[str, Change] = {}
    into, out_of = (torch.tensor(side, dtype=torch.long) for side in zip(*matched, strict=True))
    for name, values in base.items():
        value = values[row]
        if name.endswith("hook_pattern"):
            donor = value[:, :length, :length]
            donor = source[name][row][:, :length, :length] if replacement == "resample" else torch.zeros_like(donor)
            found[name] = Patch(donor)
            continue
        donor = value[:length].clone()
        if replacement == "zero":
            donor.zero_()
        elif replacement == "resample":
            donor[into] = source[name][row][out_of]
        else:
            donor = source[name][:length].expand_as(donor) if len(source[name]) == 1 else source[name][:length]
        found[name] = Patch(donor)
    return found
