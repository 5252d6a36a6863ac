"""What `interp patch` and `interp attribution` are asked: pairs, answers, and options that go together."""

from typing import Any

from analyses.answers import top_predictions
from interp.errors import InterpError
from interp.model import Transformer
from interp.readouts import positions_of
from interp.zoo import DEFAULT_PAIR, task


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the function's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def refuse(mode: str, **options: Any) -> None:
    """Raise InterpError for an option that a mode would not heed."""
    if given := [f"--{name.replace('_', '-')}" for name in chosen(**options)]:
        raise InterpError(f"patch: {', '.join(given)} cannot be combined with {mode}.")


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
    position: int = -1,
) -> dict[str, Any]:
    """Arguments `clean`, `corrupt`, `answer` and `wrong` of the patching functions.

    They are drawn from the task where one is named, else as given; nothing given is the default pair. An answer that is not given is
    the model's top prediction at the position. Raises InterpError where the arguments do not go together.
    """
    given = {"PROMPT": prompt, "--corrupt": corrupt, "--answer": answer, "--wrong": wrong}
    named = [name for name, value in given.items() if value is not None]
    if task_name is not None and named:
        raise InterpError(f"patch: --task draws its own pairs; leave out {', '.join(named)}.")
    if task_name is not None or not named:
        pairs = [DEFAULT_PAIR] if task_name is None else task(task_name).sample(count, seed, model.tokenizer)
        return {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}
    if prompt is None or corrupt is None:
        missing = "PROMPT" if prompt is None else "--corrupt"
        raise InterpError(f"patch: two prompts are needed; give {missing} too, or --trace with a single prompt.")
    right, other = (
        top_prediction(model, text, position) if known is None else known
        for text, known in ((prompt, answer), (corrupt, wrong))
    )
    if right == other:
        raise InterpError(
            f"patch: the answers of the clean and the corrupt prompt are the same, {right!r}. Give --answer and --wrong, or "
            "prompts on which the model differs."
        )
    return {"clean": [prompt], "corrupt": [corrupt], "answer": [right], "wrong": [other]}


def top_prediction(model: Transformer, prompt: str, position: int = -1) -> int:
    """The id of the most probable token after a position of a prompt. Raises ResultError where the logits there are no numbers."""
    tokens = model.to_tokens(prompt)
    places = positions_of(position, [tokens.shape[1]], "the top prediction")
    return top_predictions(model, tokens, places, "the top prediction")[0]
