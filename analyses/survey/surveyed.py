"""The analyses that can be asked of a data set: what each takes of a row, and what of it depends on the other rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import analyses
from analyses.results import as_json
from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.strict_json import parse
from interp.whole_numbers import whole_number

TOGETHER = ("mean", "mean_by_position")
"""Replacements that are taken over all prompts of a call, where no reference is given."""

OURS = (
    "prompt",
    "prompts",
    "clean",
    "corrupt",
    "answer",
    "wrong",
    "other",
    "progress",
    "max_bytes",
    "folder",
    "keep",
    "align",
)
"""Arguments that a survey gives itself; pairs of unequal length are put aside, since their positions have nothing in common."""


@dataclass(frozen=True)
class Surveyed:
    """An analysis of a data set.

    Args:
        takes: `pair`: columns clean, corrupt, answer and perhaps wrong; `answered`: prompt and perhaps answer and wrong; `prompt`.
        fixed: options that have to be this, because anything else would choose by a mean over the prompts of a call.
        alone: one prompt in each call, because what is drawn for one depends on those before it.
        draws: how many random generators a prompt has, as an option says; row r of a data set has seed + r * draws.
        means: what is averaged over prompts, by the name that its mean has, where that is not its own; see `Averaged`.
        shares: names of variables that are shares of what was counted.
        geometric: variables whose mean over prompts is that of their logarithm.
    """

    takes: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    draws: Callable[[Mapping[str, Any]], int] | None = None
    means: Mapping[str, str] = field(default_factory=dict)
    shares: Sequence[str] = ()
    geometric: Sequence[str] = ()


_LENS = Surveyed("prompt", means={f"mean_{name}": name for name in ("kl", "entropy", "cross_entropy")})
_GAIN = ("reproduction", "relative_reproduction")

SURVEYED: dict[str, Surveyed] = {
    "activation_patching": Surveyed("pair"),
    "attribution_patching": Surveyed("pair", fixed={"verify": 0}),
    "edge_attribution": Surveyed("pair", fixed={"verify": 0}),
    "edge_patching": Surveyed("pair"),
    "direct_logit_attribution": Surveyed("answered", fixed={"top_neurons": 0}),
    "logit_lens": _LENS,
    "tuned_lens": _LENS,
    "detect_heads": Surveyed("prompt"),
    "attention_patterns": Surveyed("prompt"),
    "residual_stream": Surveyed("prompt"),
    "cascade.gain": Surveyed(
        "prompt", alone=True, draws=lambda options: 1, means={"log_reproduction": "reproduction"}, geometric=_GAIN
    ),
    "cascade.ledger": Surveyed("prompt", alone=True),
    "cascade.coupled": Surveyed(
        "prompt",
        alone=True,
        draws=lambda options: whole_number(options.get("seeds", 8), "cascade.coupled: seeds", InterpError),
        shares=("damage", "aligned_damage"),
    ),
}


def surveyed(name: str) -> Surveyed:
    """The analysis of that name. Raises InterpError for one that cannot be asked of a data set."""
    if not is_known(name, SURVEYED):
        raise InterpError(f"survey: {name!r} is no analysis of a data set. {nearest(name, SURVEYED)}")
    return SURVEYED[name]


def function_of(name: str) -> Callable[..., Any]:
    """The public function of that name."""
    found: Any = analyses
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def check_options(given: Any, what: str) -> None:
    """Raise InterpError for what is no dictionary of options."""
    if not isinstance(given, Mapping):
        raise InterpError(f"survey: {what} must be a dictionary of values by name, got {given!r}.")


def checked_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an analysis as JSON values, those that are fixed among them.

    Raises:
        InterpError: an option that the analysis does not have or that a survey gives itself; one with which a row's numbers would
            depend on the other rows; a value that is no JSON.
    """
    about = surveyed(name)
    check_options(given, "options")
    taken = [p.name for p in signature(function_of(name)).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    taken = [option for option in taken if option not in OURS]
    for option in given:
        if option in OURS:
            raise InterpError(
                f"survey: {option} is no option of an analysis here: the data set or the survey gives it."
            )
        if option not in taken:
            raise InterpError(f"survey: {name} has no option {option!r}. {nearest(option, taken)}")
    try:
        options: dict[str, Any] = parse(as_json({**about.fixed, **given}))
    except ValueError as error:
        raise InterpError(f"survey: an option of {name} has no JSON value: {error}.") from error
    for option, value in about.fixed.items():
        if options[option] != value:
            raise InterpError(
                f"survey: {name} takes {option}={value} over a data set: what it chooses otherwise depends on which prompts run together."
            )
    for option in ("replacement", "ablation"):
        if is_known(options.get(option), TOGETHER) and not options.get("reference"):
            said = "give reference= texts" if "reference" in taken else "choose another"
            raise InterpError(
                f"survey: {option} {options[option]!r} is a mean over prompts that run together, so a row would depend on others; {said}."
            )
    return options


def call(
    model: Transformer,
    name: str,
    options: Mapping[str, Any],
    rows: Mapping[str, Sequence[Any]],
    first: int,
    max_bytes: int,
) -> Any:
    """The analysis of some rows: what a user would call for them.

    Args:
        rows: by column, `prompt` or `clean` and `corrupt` as token ids, `answer` and `wrong` as ids.
        first: the number of the first row, by which random numbers are drawn.
    """
    about, function = surveyed(name), function_of(name)
    given = dict(options)
    if "max_bytes" in signature(function).parameters:
        given["max_bytes"] = max_bytes
    if about.draws is not None:
        seed = whole_number(given.get("seed", 0), f"{name}: seed", InterpError)
        given["seed"] = seed + first * about.draws(options)
    given |= {role: list(rows[role]) for role in ("answer", "wrong") if role in rows}
    prompts = [list(rows[role]) for role in (("clean", "corrupt") if about.takes == "pair" else ("prompt",))]
    return function(model, *prompts, **given)
