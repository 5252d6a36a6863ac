"""What changes do to the predictions: each alone, and those that are on together, as one sweep."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.explorer.asked import Asked
from analyses.explorer.changes import interventions
from analyses.explorer.state import Change, State
from interp.metrics import kl_divergence, log_probabilities
from interp.model import Transformer
from interp.sweep import Row, sweep
from interp.sweep.readouts import Logits

SHOWN = 8
"""Tokens of a prediction."""


@dataclass(frozen=True)
class Prediction:
    """The most probable next tokens of a run.

    Args:
        tokens: with their probabilities, best first.
        metric: of the run, see `Effects`.
    """

    tokens: tuple[tuple[str, float], ...]
    metric: float


@dataclass(frozen=True)
class Effect:
    """What a change does.

    Args:
        change: which; None is all together.
        metric: of the changed run.
        moved: that less the metric of the run that is changed.
        share: of the way from that run to the other; None where there is no other, or both are the same.
        kl: of the run that is changed against the changed one, nats.
    """

    change: Change | None
    metric: float
    moved: float
    share: float | None
    kl: float


@dataclass(frozen=True)
class Effects:
    """Predictions of every run.

    Args:
        metric: what is measured: the logit difference of answer and wrong answer, or the answer's logit where nothing is compared.
        runs: `clean`, `corrupt` where there is one, and `changed` where something is changed.
        alone: of each change by itself.
        together: of those that are on; None where none is.
    """

    metric: str
    runs: dict[str, Prediction]
    alone: tuple[Effect, ...]
    together: Effect | None


@torch.no_grad()
def effects(model: Transformer, asked: Asked, state: State) -> Effects:
    """The effects of a state's changes; what each run predicts. Raises InterpError for a change that cannot be made."""
    made = interventions(model, asked, state, state.changes)
    on = [one for one, change in zip(made, state.changes, strict=True) if change.on]
    base = asked.log_p[state.base]
    ids = [asked.answer] if asked.wrong is None else [asked.answer, asked.wrong]

    def measured(log_p: Float[Tensor, "... vocab"]) -> Float[Tensor, "..."]:
        picked = log_p[..., ids]
        return picked[..., 0] - picked[..., 1] if len(ids) == 2 else picked[..., 0]

    runs = {which: _prediction(model, log_p, float(measured(log_p))) for which, log_p in asked.log_p.items()}
    metric = "logit difference" if len(ids) == 2 else "log-probability of the answer"
    if not made:
        return Effects(metric, runs, (), None)
    rows = [Row([one]) for one in made] + ([Row(on)] if on else [])
    changed = log_probabilities(sweep(model, asked.tokens[state.base], rows, Logits()).values)
    start = float(measured(base))
    end = next((float(measured(log_p)) for which, log_p in asked.log_p.items() if which != state.base), None)
    told: list[Change | None] = [*state.changes, *([None] if on else [])]
    found = []
    for change, log_p in zip(told, changed, strict=True):
        value = float(measured(log_p))
        share = None if end is None or end == start else (value - start) / (end - start)
        found.append(Effect(change, value, value - start, share, float(kl_divergence(base, log_p))))
    if on:
        runs["changed"] = _prediction(model, changed[-1], found[-1].metric)
    return Effects(metric, runs, tuple(found[: len(made)]), found[-1] if on else None)


def _prediction(model: Transformer, log_p: Float[Tensor, " vocab"], metric: float) -> Prediction:
    top = log_p.topk(min(SHOWN, len(log_p)))
    pieces = model.need_tokenizer().pieces(top.indices.tolist())
    return Prediction(tuple(zip(pieces, top.values.exp().tolist(), strict=True)), metric)
