"""Whether an analysis takes the values of its options: asked of a made-up pair, so that no data set is read for one it does not take."""

from collections.abc import Mapping
from typing import Any

from analyses.survey.surveyed import call, surveyed
from interp.errors import InterpError, ResultError
from interp.model import Transformer

TOKENS = 8
"""Of the made-up prompts, where the options do not name a later position."""


def check_values(model: Transformer, name: str, options: Mapping[str, Any], max_bytes: int) -> None:
    """Call the analysis of two prompts of a few tokens.

    Raises:
        InterpError: the analysis' own, for a value that it does not take whatever the prompt.
    """
    positions = [value for option, value in options.items() if "position" in option]
    lengths = {min(length, model.config.n_ctx) for length in (TOKENS, 1 + _largest(positions))}
    for length in sorted(lengths):
        try:
            call(model, name, options, _made_up(model, surveyed(name).takes, length), 0, max_bytes)
            return
        except ResultError:  # of these prompts, such as two that the model does not tell apart
            return
        except InterpError as error:
            said = error
    raise said


def _largest(values: Any) -> int:
    """The largest whole number in lists within lists, however it is signed."""
    if isinstance(values, list):
        return max(map(_largest, values), default=0)
    return abs(values) if isinstance(values, int) else 0


def _made_up(model: Transformer, takes: str, length: int) -> dict[str, list[Any]]:
    ids = model.ordinary_ids()
    clean, corrupt = (
        [[ids[(start + step * place) % len(ids)] for place in range(length)] for start in (0, 1)] for step in (1, 2)
    )
    prompts = {"clean": clean, "corrupt": corrupt} if takes == "pair" else {"prompt": clean}
    answers = {} if takes == "prompt" else {"answer": [ids[0]] * 2, "wrong": [ids[-1]] * 2}
    return prompts | answers
