"""Run every analysis that a report shows."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analyses.attention import attention_patterns, head_table
from analyses.attribution import direct_logit_attribution
from analyses.cascade.disturbances import Disturbance
from analyses.embeddings import embedding_structure
from analyses.lenses import logit_lens, tuned_lens
from analyses.lenses.translators import is_shipped
from analyses.patching import activation_patching, compare_patching
from analyses.patching.methodology import METHODS
from analyses.patching.pairs import read_pairs
from analyses.report.circuit import circuit_steps, usual_count
from analyses.report.inside import check_inside, inside_steps
from analyses.report.outside import check_outside, outside_asked, outside_steps
from analyses.report.patch import check_differ, top_prediction
from analyses.report.shelf import parts_shelf
from analyses.report.steps import Results, Step, check_any, run_steps
from analyses.residual import residual_stream
from analyses.results import token_strings
from interp.errors import InterpError
from interp.model import Transformer

SEQUENCES = 6
"""Random sequences on which heads are scored; fewer have no interval."""

LOOKED_AT = 12
"""Tokens of the prompt whose embeddings are shown."""

OUTSIDE: dict[str, Any] = {"seeds": 8, "steps": 64, "temperature": 1.0}
"""How texts are continued for the cascade outside."""

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
    clusters: Sequence[Any] | None = None,
    circuit: bool = False,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Results:
    """The results of a report, by section. A step that fails is left out, with its reason in `left_out`, and the others go on.

    Args:
        clean: the prompt to look into.
        corrupt: a prompt of equal token length that differs in what matters; without it nothing is patched.
        answer, wrong: single tokens; default, the model's top prediction after the clean and the corrupt prompt. Without a corrupt prompt
            they are followed through the layers and attributed; nothing is patched.
        outside: prompts and a disturbance, whose cascade outside is measured too; it takes a minute or more.
        clusters: of those prompts, over which intervals are; see `analyses.clustered`.
        circuit: every edge is patched too, which needs a corrupt prompt and takes minutes on a large model.
        folder: where finished parts are kept; a run of the same request that was stopped, or of which a step failed, goes on from there.
        seed: of the injected directions, and of the random-init twin.
        progress: show a progress bar on standard error.

    Returns:
        `lens`, `trajectory` (the answers, at the last position), `attention`, `head_table`, `attribution` (not of a post-norm model),
        `stream`, `embeddings`, and those of `analyses.report.inside`, with `outside` those of
        `analyses.report.outside`; for a model with a shipped tuned lens `tuned`;
        with `circuit` those of `analyses.report.circuit`;
        with a corrupt prompt also `lens_corrupt`, `attention_corrupt`, `patching` (stream), `heads` (z), `heads_by_position`, and `methods`
        (heads by several methods).

    Raises:
        InterpError: before any work: prompts, answers or a disturbance that the model cannot take; answers that are the same, or
            predictions where none is given. At the end: nothing could be computed.
        ResultError: a prediction that is no number; it names the first hook point that is none.
    """
    asked = asked_about(model, clean, corrupt, answer, wrong, outside)
    if circuit and corrupt is None:
        raise InterpError(
            "report: a circuit is what carries the difference between two prompts; give a corrupt one too."
        )
    results = Results()
    about = {
        "what": "report",
        "prompts": [None if text is None else model.to_tokens(text).tolist() for text in (clean, corrupt)],
        "answers": asked,
        "seed": seed,
        "outside": None if folder is None or outside is None else outside_asked(model, *outside, **OUTSIDE),
        "clusters": None if clusters is None else list(clusters),
        "circuit": circuit,
    }
    shelf = parts_shelf(folder, model, about)
    is_sum = model.config.is_sum
    steps: list[Step] = [("lens", partial(logit_lens, model, clean, top_k=min(10, model.config.d_vocab)))]
    if corrupt is not None:
        steps.append(("lens_corrupt", partial(logit_lens, model, corrupt, top_k=min(10, model.config.d_vocab))))
        steps.append(("patching", lambda: activation_patching(model, clean, corrupt, **asked)))
        steps.append(("heads", lambda: activation_patching(model, clean, corrupt, site="z", **asked)))
        at_each = partial(activation_patching, model, clean, corrupt, site="z", by_position=True)
        steps.append(("heads_by_position", lambda: at_each(**asked)))
        steps.append(("methods", lambda: compare_patching(model, clean, corrupt, methods=COMPARED, **asked)))
    followed = partial(logit_lens, model, clean, positions=[-1])
    steps.append(("trajectory", lambda: followed(candidates=list(asked.values()))))
    if is_shipped(model):
        steps.append(("tuned", partial(tuned_lens, model, clean)))
    steps.append(("attention", partial(attention_patterns, model, clean)))
    if corrupt is not None:
        steps.append(("attention_corrupt", partial(attention_patterns, model, corrupt)))
    steps.append(("head_table", partial(head_table, model, count=SEQUENCES, seed=seed)))
    if is_sum:
        steps.append(("attribution", lambda: direct_logit_attribution(model, clean, **asked)))
    steps.append(("stream", partial(residual_stream, model, clean)))
    steps.append(
        (
            "embeddings",
            lambda: embedding_structure(model, _tokens(model, clean, asked), top_k=min(8, model.config.d_vocab - 1)),
        )
    )
    run_steps(steps, results, title="report", progress=progress, keep=shelf.part)
    inside = inside_steps(
        model, [clean], [] if corrupt is None else [corrupt], results, answers=asked, seed=seed, shelf=shelf
    )
    run_steps(inside, results, title="cascade inside", progress=progress)
    if circuit:
        assert corrupt is not None
        pair = {"clean": [clean], "corrupt": [corrupt], **{role: [token] for role, token in asked.items()}}
        keep = None if shelf.folder is None else shelf.folder / "edges"
        edges = circuit_steps(model, pair, results, count=usual_count(model), keep=keep, seed=seed, progress=progress)
        run_steps(edges, results, title="circuit", progress=progress, keep=shelf.part)
    if outside is not None:
        followed_out = outside_steps(
            model, *outside, results, **OUTSIDE, clusters=clusters, seed=seed, folder=shelf.folder
        )
        run_steps(followed_out, results, title="cascade outside", progress=progress, keep=shelf.part)
    check_any(results, "report")
    return results


def asked_about(
    model: Transformer,
    clean: str,
    corrupt: str | None = None,
    answer: str | None = None,
    wrong: str | None = None,
    outside: tuple[Sequence[str], Disturbance] | None = None,
) -> dict[str, Any]:
    """The ids of what is asked about, everything that was asked for being checked first: `answer`, and `wrong` where there is one.

    What is not given is the model's top prediction, of the clean and of the corrupt prompt.
    """
    model.to_tokens(clean)
    if corrupt is not None:
        check_differ(clean, corrupt, "report")
        read_pairs(model, clean, corrupt, bos=None, align=None, who="report")
    known = {
        role: model.to_single_token(text) for role, text in (("answer", answer), ("wrong", wrong)) if text is not None
    }
    if len(known) == 2 and corrupt is not None and known["answer"] == known["wrong"]:
        raise InterpError(f"report: --answer and --wrong are the same, {answer!r}; give two that differ.")
    check_inside(model, [clean])
    if outside is not None:
        check_outside(model, *outside, **OUTSIDE)
    texts = {"answer": clean} | ({} if corrupt is None else {"wrong": corrupt})
    found = {
        role: top_prediction(model, text) for role, text in texts.items()
    }  # and whether it predicts numbers at all
    found |= known
    if corrupt is not None and found["answer"] == found["wrong"]:
        token = token_strings(model, [found["answer"]])[0]
        both = (
            f"the answers of both prompts are {token!r}"
            if known
            else f"the model predicts {token!r} after both prompts"
        )
        raise InterpError(
            f"report: {both}, so there is no answer to tell them apart by. Give --answer and --wrong, or prompts on which it differs."
        )
    return found


def _tokens(model: Transformer, clean: str, asked: dict[str, int]) -> list[int]:
    """The answers and the prompt's last different tokens."""
    ids = model.to_tokens(clean)[0].tolist()
    return list(dict.fromkeys([*asked.values(), *reversed(ids)]))[:LOOKED_AT]
