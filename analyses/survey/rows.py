"""Rows of a data set as what an analysis takes: those that it cannot take are put aside with the reason, the others go by length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses.survey.surveyed import Surveyed
from interp.errors import InterpError, TokenError
from interp.model import Transformer
from interp.whole_numbers import whole_number, whole_numbers

PADDING = 8
"""A batch's shortest prompt lacks at most an eighth of its longest's tokens."""

COLUMNS = ("prompt", "clean", "corrupt", "answer", "wrong")


@dataclass(frozen=True)
class Ready:
    """A row that an analysis can take.

    Args:
        number: of the row in the data set.
        ids: token ids by role, `prompt` or `clean` and `corrupt`; `answer` and `wrong` are one id.
        length: tokens of the longest prompt.
    """

    number: int
    ids: Mapping[str, Any]
    length: int


def roles_of(about: Surveyed, columns: Sequence[str]) -> dict[str, str]:
    """Which column has each role. Raises InterpError where one lacks.

    A data set of pairs has prompts too: its clean ones.
    """
    prompts = ("clean", "corrupt") if about.takes == "pair" else ("prompt",)
    found = {role: role for role in prompts if role in columns}
    if prompts == ("prompt",) and not found and "clean" in columns:
        found = {"prompt": "clean"}
    needed = (*prompts, *(("answer",) if about.takes == "pair" else ()))
    if about.takes != "prompt":
        found |= {role: role for role in ("answer", "wrong") if role in columns}
    if lacking := [role for role in needed if role not in found]:
        raise InterpError(
            f"survey: the data set has no column {lacking[0]!r}, which this analysis needs. It has {', '.join(columns)}."
        )
    return found


def ready(model: Transformer, row: Mapping[str, Any], number: int, roles: Mapping[str, str], bos: bool | None) -> Ready:
    """A row's token ids. Raises InterpError, whose text is the reason, where an analysis cannot take it."""
    ids: dict[str, Any] = {}
    for role, column in roles.items():
        value = row[column]
        if is_missing(value):
            raise TokenError(f"{column} is missing.")
        if role in ("answer", "wrong"):
            whole = isinstance(value, float) and value.is_integer()  # ids of a column in which some are missing
            value = int(value) if whole else value
            ids[role] = model.to_single_token(value if isinstance(value, str) else whole_number(value, column))
        else:
            ids[role] = prompt_ids(model, value, column, bos)
    prompts = [role for role in ids if role not in ("answer", "wrong")]
    lengths = [len(ids[role]) for role in prompts]
    if len(set(lengths)) > 1:
        raise TokenError(f"the clean prompt has {lengths[0]} tokens and the corrupt one {lengths[1]}.")
    return Ready(number, ids, max(lengths))


def is_missing(value: Any) -> bool:
    """Whether a table has no value here: null, or NaN, as pandas writes it."""
    return value is None or (isinstance(value, float) and value != value)


def prompt_ids(model: Transformer, value: Any, column: str, bos: bool | None) -> list[int]:
    """The token ids of a prompt: a text, or a list of ids. Raises TokenError for anything else, such as several prompts in one row."""
    if is_missing(value):
        raise TokenError(f"{column} is missing.")
    if not isinstance(value, str):
        if not isinstance(value, list) or any(isinstance(one, (str, bytes, list, dict)) for one in value):
            raise TokenError(f"{column} must be a text or a list of token ids, got {str(value)[:40]}.")
        if not value:
            raise TokenError(f"{column} is empty: give it at least one token.")
        value = whole_numbers(value, f"each token id of {column}")
    ids: list[int] = model.to_tokens(value, bos=bos)[0].tolist()
    return ids


def batches(rows: Sequence[Ready], model: Transformer, max_bytes: int, most: int | None) -> Iterator[list[Ready]]:
    """Rows of nearly the same length together, the shortest first, as many as fit into so many bytes; which ones depends on nothing else.

    Args:
        most: rows of a batch at most; None is as many as fit.
    """
    some: list[Ready] = []
    for row in sorted(rows, key=lambda one: (one.length, one.number)):
        wide = some and row.length - some[0].length > some[0].length // PADDING
        full = some and (len(some) + 1) * _bytes(model, row.length) > max_bytes
        if wide or full or (most is not None and len(some) == most):
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def _bytes(model: Transformer, length: int) -> int:
    """About what one row holds while an analysis runs: streams and heads of every layer in two runs, patterns, two rows of logits."""
    config = model.config
    of_layer = 6 * length * config.d_model + 2 * config.n_heads * length**2
    return model.W_E.element_size() * (2 * config.n_layers * of_layer + 4 * config.d_vocab)


def by_column(rows: Sequence[Ready]) -> dict[str, list[Any]]:
    """The ids of several rows by role."""
    return {role: [row.ids[role] for row in rows] for role in rows[0].ids}


def reason_of(error: InterpError) -> str:
    """Why a row was put aside, in one line."""
    return str(error).split("\n")[0]
