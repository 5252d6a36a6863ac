"""Numbers that say how far a run has moved from one answer to another, read at the position where the answer stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InterpError, is_known, nearest
from interp.metrics import kl_divergence, log_probabilities, pick, rank
from interp.model import Transformer
from interp.sweep.readouts import AtPosition, Logits

Custom = Callable[[Float[Tensor, "row vocab"], Int[Tensor, " row"]], Float[Tensor, " row"]]
"""From logits and each row's prompt to a number for each row."""


@dataclass(frozen=True)
class Truth:
    """What the metrics compare a run with.

    Args:
        answer, wrong: [prompt], ids; without a wrong answer there is no logit difference.
        log_p: [prompt, vocab], log-probabilities of the clean run; None where no metric compares with them.
        first: the number of the first of these prompts among all pairs.
    """

    answer: Int[Tensor, " prompt"]
    wrong: Int[Tensor, " prompt"] | None
    log_p: Float[Tensor, "prompt vocab"] | None = None
    first: int = 0


@dataclass(frozen=True)
class Metric:
    """A number for each run.

    Args:
        of: from logits [row, vocab], each row's prompt [row] and the truth to [row].
        smallest_gap: a difference between the baselines below which a normalised effect would be noise divided by nothing.
        columns: whether the logits of answer and wrong answer are all that it needs.
        compares: whether it needs a wrong answer.
        distribution: whether it needs the clean run's distribution.
        differentiable: whether it has a gradient.
    """

    name: str
    long_name: str
    units: str
    smallest_gap: float
    of: Callable[[Tensor, Tensor, Truth], Tensor]
    columns: bool = False
    compares: bool = False
    distribution: bool = False
    differentiable: bool = True


def _difference(logits: Tensor, prompts: Tensor, truth: Truth) -> Tensor:
    assert truth.wrong is not None
    return pick(logits, truth.answer[prompts]) - pick(logits, truth.wrong[prompts])


def _kl(logits: Tensor, prompts: Tensor, truth: Truth) -> Tensor:
    assert truth.log_p is not None
    return kl_divergence(truth.log_p[prompts], log_probabilities(logits))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("logit_difference", "logit difference", "logits", 0.05, _difference, columns=True, compares=True),
        Metric("logit", "logit of the answer", "logits", 0.05, lambda x, p, t: pick(x, t.answer[p]), columns=True),
        Metric(
            "probability",
            "probability of the answer",
            "1",
            1e-3,
            lambda x, p, t: pick(log_probabilities(x), t.answer[p]).exp(),
        ),
        Metric(
            "log_probability",
            "log-probability of the answer",
            "nats",
            0.05,
            lambda x, p, t: pick(log_probabilities(x), t.answer[p]),
        ),
        Metric(
            "cross_entropy",
            "cross-entropy of the answer",
            "nats",
            0.05,
            lambda x, p, t: -pick(log_probabilities(x), t.answer[p]),
        ),
        Metric(
            "kl",
            "KL divergence from the clean run's distribution",
            "nats",
            0.01,
            _kl,
            distribution=True,
        ),
        Metric(
            "rank",
            "tokens above the answer",
            "tokens",
            0.5,
            lambda x, p, t: rank(x, t.answer[p]).to(torch.promote_types(x.dtype, torch.float32)),
            differentiable=False,
        ),
    )
}


def metric_of(given: str | Custom) -> Metric:
    """The metric of that name, or one that wraps a function. Raises InterpError for an unknown name."""
    if callable(given):
        name = getattr(given, "__name__", "metric")
        return Metric(name, name, "1", 1e-6, lambda logits, prompts, truth: given(logits, prompts + truth.first))
    if not is_known(given, METRICS):
        raise InterpError(f"patching: unknown metric {given!r}. {nearest(given, list(METRICS))}")
    return METRICS[given]


@dataclass(frozen=True, eq=False)
class MetricReadout(AtPosition):
    """Several metrics of one run: [row, metric]."""

    metrics: Sequence[Metric]
    truth: Truth

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, "row metric"]:
        truth = self.truth
        if all(metric.columns for metric in self.metrics):
            # Two columns of the vocabulary are all that is read: number 0 is the answer, 1 the wrong one.
            pair = torch.stack([truth.answer, truth.answer if truth.wrong is None else truth.wrong], dim=1)
            logits = Logits(pair).read(model, normed, prompts)
            zeros = torch.zeros_like(truth.answer)
            truth = Truth(zeros, None if truth.wrong is None else zeros + 1, truth.log_p)
        else:
            logits = model.to_logits(normed)[:, 0]
        found = [metric.of(logits, prompts, truth) for metric in self.metrics]
        for metric, values in zip(self.metrics, found, strict=True):
            if values.shape != prompts.shape:
                raise InterpError(
                    f"patching: the metric {metric.name} returned shape {tuple(values.shape)}; expected ({len(prompts)},)."
                )
        return torch.stack([values.to(logits.dtype) for values in found], dim=1)
