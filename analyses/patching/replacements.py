"""What is put in place of a value: another run's, nothing, a mean, or the value itself with a vector added."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.patching.sites import STREAM, Site
from interp.errors import InterpError, is_known, nearest
from interp.generation import left_aligned
from interp.model import Transformer
from interp.sweep.interventions import Add, Change, Patch
from interp.tokenizer import PAD

REPLACEMENTS = ("resample", "zero", "mean", "mean_by_position", "add")


def check_replacement(replacement: str, site: Site, vector: Tensor | None, model: Transformer, who: str) -> None:
    """Raises InterpError where the site cannot take that replacement."""
    if not is_known(replacement, REPLACEMENTS):
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
    at: Sequence[int],
    *,
    with_gradients: bool = False,
) -> tuple[dict[str, Tensor], Float[Tensor, "batch one d_model"]]:
    """The values of runs at the named hook points, by name, and the final stream at one position of each row after the final norm.

    Args:
        residual: what enters block 0; None is the embedding of the tokens.
        at: that position of each row.
        with_gradients: let gradients reach the values.
    """
    real = model.check_tokens(tokens)
    with model.capture(list(names), with_gradients=with_gradients) as values:
        stream = model.run_blocks(model.embed(tokens) if residual is None else residual, real=real)
    places = torch.arange(len(tokens), device=tokens.device), torch.tensor(list(at), device=tokens.device)
    return values, model.ln_final(stream[places][:, None])


def averages_for(
    model: Transformer,
    replacement: str,
    reference: Int[Tensor, "batch position"],
    longest: int,
    names: Sequence[str],
    who: str,
) -> dict[str, Tensor] | None:
    """The means that a replacement puts in, by hook name: [1, ...], or by position [position, ...]; None where it puts in none.

    Args:
        longest: the number of tokens of the longest prompt that they are put into.

    Raises InterpError where the reference prompts are too short for a mean at each of its positions.
    """
    if not replacement.startswith("mean"):
        return None
    by_position = replacement == "mean_by_position"
    if by_position:
        check_reference(reference, longest, who)
    return means(model, reference, names, by_position)


def check_used(reference: object, replacement: str, who: str) -> None:
    """Raises InterpError where there are reference prompts, but a replacement that takes no mean over them."""
    if reference is not None and not replacement.startswith("mean"):
        raise InterpError(
            f"{who}: reference prompts are what means are taken over; replacement {replacement!r} takes none."
        )


def check_reference(reference: Int[Tensor, "batch position"], longest: int, who: str) -> None:
    """Raises InterpError where reference prompts are too short for a mean at each position of the longest prompt."""
    if (there := int((reference != PAD).sum(1).max())) < longest:
        raise InterpError(
            f"{who}: the longest reference prompt has {there} tokens, so there is no mean at position {there}; use 'mean', or longer "
            "references."
        )


@torch.no_grad()
def means(
    model: Transformer, reference: Int[Tensor, "batch position"], names: Sequence[str], by_position: bool
) -> dict[str, Tensor]:
    """Mean values [position, ...] over reference prompts at the named hook points: one for all positions, or each its own.

    A mean by position is over the prompts that reach there, counted from the start, as position embeddings count.
    """
    reference = left_aligned(reference)
    real = (reference != PAD)[:, :, None]
    found = {}
    for name, value in values_of(model, reference, None, names, [0] * len(reference))[0].items():
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
