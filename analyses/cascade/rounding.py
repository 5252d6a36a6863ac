"""How often rounding alone makes two draws differ, against how often a disturbance does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cascade.agreement import disagreement
from analyses.cascade.disturbances import Disturbance, Nudge, stacked
from analyses.cascade.injection import LARGEST_ROUNDING
from interp.errors import ResultError
from interp.hooks import HookPoint
from interp.metrics import scaled
from interp.model import Transformer
from interp.names import block_name
from interp.tokenizer import PAD

LOOKED_AT = 16
"""Prompts that rounding is measured on, at most."""

NEGLIGIBLE = 1e-4
"""h by rounding that is let pass beside tokens that differ, however little these do; beside a nudge, which may be as small as one likes,
none is."""

MOST = 1e-3
"""h by rounding that is let pass beside no disturbance: texts that go on side by side would part by it."""


@contextmanager
def jittered(model: Transformer, rows: Int[Tensor, " row"]) -> Iterator[None]:
    """Within the block, each number of these rows' embeddings is one rounding up or down, so that all roundings after it fall otherwise."""

    def jitter(value: Tensor, hook: HookPoint) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        up = torch.randint(0, 2, value[rows].shape, generator=generator).to(value) * 2 - 1
        value = value.clone()
        value[rows] = value[rows] * (1 + torch.finfo(value.dtype).eps * up)
        return value

    with model.hooks({block_name(0, "hook_resid_pre"): jitter}):
        yield


@torch.no_grad()
def check_rounding(
    model: Transformer,
    clean: Int[Tensor, "prompt position"],
    other: Int[Tensor, "prompt other_position"],
    disturbance: Disturbance,
    temperature: float,
    who: str,
) -> float:
    """h after the prompts when nothing but rounding differs, the mean over 16 of them at most.

    Raises:
        ResultError: it is more than 2 % of what the disturbance gives there, or more than `MOST`.
    """
    clean, other = clean[:LOOKED_AT], other[:LOOKED_AT]
    n = len(clean)
    tokens = stacked([clean, clean, other])
    lengths, rows = (tokens != PAD).sum(1), torch.arange(3 * n, device=tokens.device)
    at_once = replace(disturbance, step=0) if isinstance(disturbance, Nudge) else disturbance
    with (
        jittered(model, rows[n : 2 * n]),
        at_once.attached(model, rows[2 * n :], rows[:n], lengths[2 * n :]),
    ):
        stream = model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    logits = model.unembed(stream[rows, lengths - 1][:, None])[:, 0]
    own, rounded, disturbed = scaled(logits, temperature or 1.0).log_softmax(-1).chunk(3)
    floor, effect = (float(disagreement(own, one).mean()) for one in (rounded, disturbed))
    wanted = not isinstance(disturbance, Nudge) or not disturbance.is_nothing
    check_share(
        model, floor, effect if wanted else float("inf"), who, 0.0 if isinstance(disturbance, Nudge) else NEGLIGIBLE
    )
    return floor


@torch.no_grad()
def rounding_along(
    model: Transformer, text: Int[Tensor, " position"], temperature: float
) -> Float[Tensor, " position"]:
    """h at each position of a text when nothing but rounding differs."""
    tokens = text.expand(2, -1)
    with jittered(model, torch.ones(1, dtype=torch.long, device=tokens.device)):
        log_p, log_q = scaled(model(tokens), temperature).log_softmax(-1)
    return disagreement(log_p, log_q)


def check_share(model: Transformer, floor: float, effect: float, who: str, tolerated: float = NEGLIGIBLE) -> None:
    """Raise ResultError where rounding is a share of a disturbance's effect that matters; logits that are no numbers are for others to
    name."""
    if floor > min(max(LARGEST_ROUNDING * effect, tolerated), MOST):
        raise ResultError(
            f"{who}: in {model.dtype} rounding alone makes draws differ with probability {floor:.2g}, the disturbance with {effect:.2g}. "
            "Load the model in float32 or float64, or disturb it more."
        )
