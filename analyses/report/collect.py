"""Run every analysis that a report shows."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from analyses.attention import attention_patterns, head_table
from analyses.attribution import direct_logit_attribution
from analyses.cascade.disturbances import Disturbance
from analyses.embeddings import embedding_structure
from analyses.lenses import logit_lens, tuned_lens
from analyses.lenses.translators import is_shipped
from analyses.patching import activation_patching, compare_patching
from analyses.patching.methodology import METHODS
from analyses.report.inside import inside_steps
from analyses.report.outside import outside_steps
from analyses.report.patch import top_prediction
from analyses.report.steps import Step, run_steps
from analyses.residual import residual_stream
from interp.errors import InterpError
from interp.model import Transformer

SEQUENCES = 6
"""Random sequences on which heads are scored; fewer have no interval."""

LOOKED_AT = 12
"""Tokens of the prompt whose embeddings are shown."""

COMPARED = [method for method in METHODS if method[2] == "logit_difference"]
"""One metric, so that a pair which can be patched at all can be patched by each."""


def collect(
    model: Transformer,
    clean: str,
    *,
    corrupt: str | None = None,
    answer: str | None = None,
    wrong: str | None = None,
    outside: tuple[Sequence[str], Disturbance] | None = None,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, xr.Dataset]:
    """The results of a report, by section.

    Args:
        clean: the prompt to look into.
        corrupt: a prompt of equal token length that differs in what matters; without it nothing is patched.
        answer, wrong: single tokens; default, the model's top prediction after the clean and the corrupt prompt.
        outside: prompts and a disturbance, whose cascade outside is measured too; it takes a minute or more.
        folder: where the finished parts of that are kept; a run that was stopped goes on from there.
        seed: of the injected directions, and of the random-init twin.
        progress: show a progress bar on standard error.

    Returns:
        `lens`, `trajectory` (the answers, at the last position), `attention`, `head_table`, `attribution` (not of a post-norm model),
        `stream`, `embeddings`, and those of `analyses.report.inside`, with `outside` those of
        `analyses.report.outside`; for a model with a shipped tuned lens `tuned`;
        with a corrupt prompt also `lens_corrupt`, `patching` (stream), `heads` (z), `heads_by_position`, and `methods` (heads by several
        methods).

    Raises:
        InterpError: an answer without a corrupt prompt; both prompts predict the same token and no answer is given; or
            what the analyses raise.
        ResultError: a prediction that is no number; it names the first hook point that is none.
    """
    if corrupt is None and (answer is not None or wrong is not None):
        raise InterpError("report: an answer is used in patching, which needs a corrupt prompt; give --corrupt too.")
    for text in (clean, *([] if corrupt is None else [corrupt])):
        top_prediction(model, text)  # which checks that the model predicts numbers, before any work
    results: dict[str, xr.Dataset] = {}
    is_sum = model.config.norm_placement == "pre" or model.config.norm == "none"
    steps: list[Step] = [("lens", partial(logit_lens, model, clean, top_k=min(10, model.config.d_vocab)))]
    if corrupt is not None:
        steps.append(("lens_corrupt", partial(logit_lens, model, corrupt, top_k=min(10, model.config.d_vocab))))
        steps.append(
            ("patching", lambda: activation_patching(model, clean, corrupt, **_answers(answer, wrong, results)))
        )
        steps.append(("heads", lambda: activation_patching(model, clean, corrupt, site="z", **_patched(results))))
        at_each = partial(activation_patching, model, clean, corrupt, site="z", by_position=True)
        steps.append(("heads_by_position", lambda: at_each(**_patched(results))))
        steps.append(
            ("methods", lambda: compare_patching(model, clean, corrupt, methods=COMPARED, **_patched(results)))
        )
    followed = partial(logit_lens, model, clean, positions=[-1])
    steps.append(("trajectory", lambda: followed(candidates=list(_asked(results).values()))))
    if is_shipped(model):
        steps.append(("tuned", partial(tuned_lens, model, clean)))
    steps.append(("attention", partial(attention_patterns, model, clean)))
    steps.append(("head_table", partial(head_table, model, count=SEQUENCES, seed=seed)))
    if is_sum:
        steps.append(("attribution", lambda: direct_logit_attribution(model, clean, **_asked(results))))
    steps.append(("stream", partial(residual_stream, model, clean)))
    steps.append(
        ("embeddings", lambda: embedding_structure(model, _tokens(results), top_k=min(8, model.config.d_vocab - 1)))
    )
    run_steps(steps, results, title="report", progress=progress)
    inside = inside_steps(
        model, [clean], [] if corrupt is None else [corrupt], results, answers=_asked(results), seed=seed
    )
    run_steps(inside, results, title="cascade inside", progress=progress)
    if outside is not None:
        followed_out = outside_steps(
            model, *outside, results, seeds=8, steps=64, temperature=1.0, seed=seed, folder=folder
        )
        run_steps(followed_out, results, title="cascade outside", progress=progress)
    return results


def _answers(answer: str | None, wrong: str | None, results: dict[str, xr.Dataset]) -> dict[str, Any]:
    """The answers to tell the prompts apart by: those given, else the model's top predictions."""
    right, other = (
        given if given is not None else int(results[lens]["top_id"][0, -1, -1, 0])
        for given, lens in ((answer, "lens"), (wrong, "lens_corrupt"))
    )
    if answer is None and wrong is None and right == other:
        token = str(results["lens"]["top_token"][0, -1, -1, 0].item())
        raise InterpError(
            f"report: the model predicts {token!r} after both prompts, so there is no answer to tell them apart by. "
            "Give --answer and --wrong, or prompts on which it differs."
        )
    return {"answer": right, "wrong": other}


def _asked(results: dict[str, xr.Dataset]) -> dict[str, Any]:
    """What is asked about: the answers that were patched, else the top prediction."""
    return _patched(results) if "patching" in results else {"answer": int(results["lens"]["top_id"][0, -1, -1, 0])}


def _tokens(results: dict[str, xr.Dataset]) -> list[int]:
    """The answers and the prompt's last different tokens."""
    ids = [int(i) for i in results["lens"]["token_id"][0].to_numpy()]
    return list(dict.fromkeys([*_asked(results).values(), *reversed(ids)]))[:LOOKED_AT]


def _patched(results: dict[str, xr.Dataset]) -> dict[str, Any]:
    """The answers that the stream was patched with."""
    return {role: int(results["patching"][f"{role}_id"][0]) for role in ("answer", "wrong")}
