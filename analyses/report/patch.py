"""What `interp patch` and `interp attribution` are asked: pairs, answers, and options that go together."""

from typing import Any

from analyses.answers import top_predictions
from analyses.patching.experiment import Method
from analyses.patching.methodology import METHODS
from analyses.patching.metrics import metric_of
from analyses.patching.pairs import read_pairs
from analyses.results import token_strings
from interp.errors import InterpError
from interp.model import Transformer
from interp.sweep.readouts import given_position, positions_of
from interp.zoo import DEFAULT_PAIR, task


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the function's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def refuse(mode: str, **options: Any) -> None:
    """Raise InterpError for an option that a mode would not heed."""
    if given := [f"--{name.replace('_', '-')}" for name in chosen(**options)]:
        raise InterpError(f"patch: {', '.join(given)} cannot be combined with {mode}.")


def check_options(
    *,
    prompt: str | None,
    corrupt: str | None,
    answer: str | None,
    wrong: str | None,
    task_name: str | None,
    who: str = "patch",
) -> None:
    """Raise InterpError, before a model is loaded, for options that do not go together, or a task that there is not."""
    given = {"PROMPT": prompt, "--corrupt": corrupt, "--answer": answer, "--wrong": wrong}
    named = [name for name, value in given.items() if value is not None]
    if task_name is not None:
        if named:
            raise InterpError(f"{who}: --task draws its own pairs; leave out {', '.join(named)}.")
        task(task_name)
    elif named and (prompt is None or corrupt is None):
        missing = "PROMPT" if prompt is None else "--corrupt"
        otherwise = ", or --trace with a single prompt" if who == "patch" else ""
        raise InterpError(f"{who}: two prompts are needed; give {missing} too{otherwise}.")


def check_method(
    model: Transformer,
    mode: str | None,
    *,
    site: str | None,
    direction: str | None,
    replacement: str | None,
    metric: str | None,
    by_position: bool | None,
    window: int | None,
    position: int | None,
) -> None:
    """Raise InterpError, before the model runs, for a way of patching that there is not or that it cannot take.

    Args:
        mode: `--compare`, `--screen`, `--trace`, or None for plain patching.
    """
    if replacement == "add":
        raise InterpError(
            "patch: the replacement 'add' takes a vector, which only `analyses.activation_patching` can be given."
        )
    default = {"--compare": "z", "--screen": "z", "--trace": "resid_post"}.get(mode or "", "resid_pre")
    ways = [(one, other) for one, other, _ in METHODS] if mode == "--compare" else [(direction, replacement)]
    for one, other in ways:
        asked = chosen(direction=one, replacement=other, by_position=by_position, window=window)
        Method.of(model, site or default, who="patch", **asked)
    found = metric_of(metric or "logit_difference")
    if mode == "--screen" and not found.differentiable:
        raise InterpError(f"patch: the metric {found.name} has no gradient, which --screen follows; choose another.")
    given_position(-1 if position is None else position, "patch")


def pairs_to_patch(
    model: Transformer,
    *,
    prompt: str | None,
    corrupt: str | None,
    answer: str | None,
    wrong: str | None,
    task_name: str | None,
    count: int,
    seed: int,
    align: bool | None = None,
    position: int = -1,
    who: str = "patch",
) -> dict[str, Any]:
    """Arguments `clean`, `corrupt`, `answer` and `wrong` of the patching functions, from options that `check_options` lets pass.

    They are drawn from the task where one is named, else as given; nothing given is the default pair. An answer that is not given is
    the model's top prediction at the position.

    Raises:
        InterpError: prompts that do not match, or an answer of several tokens, before the model runs; then answers that are the same.
    """
    if task_name is not None or prompt is None or corrupt is None:
        pairs = [DEFAULT_PAIR] if task_name is None else task(task_name).sample(count, seed, model.tokenizer)
        return {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}
    check_differ(prompt, corrupt, who)
    read_pairs(model, prompt, corrupt, bos=None, align=align, who=who)
    known = [None if text is None else model.to_single_token(text) for text in (answer, wrong)]
    right, other = (
        top_prediction(model, text, position) if one is None else one
        for text, one in zip((prompt, corrupt), known, strict=True)
    )
    if right == other:
        token = token_strings(model, [right])[0]
        raise InterpError(
            f"{who}: the answers of the clean and the corrupt prompt are the same, {token!r}. Give --answer and --wrong, or "
            "prompts on which the model differs."
        )
    return {"clean": [prompt], "corrupt": [corrupt], "answer": [right], "wrong": [other]}


def check_differ(clean: str, corrupt: str, who: str) -> None:
    """Raise InterpError for a pair of prompts that are the same."""
    if clean == corrupt:
        raise InterpError(
            f"{who}: the clean and the corrupt prompt are the same; patch two that differ in what matters."
        )


def top_prediction(model: Transformer, prompt: str, position: int = -1) -> int:
    """The id of the most probable token after a position of a prompt. Raises ResultError where the logits there are no numbers."""
    tokens = model.to_tokens(prompt)
    places = positions_of(position, [tokens.shape[1]], "the top prediction")
    return top_predictions(model, tokens, places, "the top prediction")[0]
