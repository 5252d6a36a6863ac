"""The analyses behind the views, by the names that a report gives their results."""

from collections.abc import Callable, Hashable

import xarray as xr

from analyses.attention import attention_patterns
from analyses.attribution import direct_logit_attribution
from analyses.cascade import gain, light_cone
from analyses.explorer.asked import Asked
from analyses.explorer.changes import check, direction
from analyses.explorer.limits import WHO
from analyses.explorer.state import Change, State
from analyses.lenses import logit_lens, tuned_lens
from analyses.lenses.translators import is_shipped
from analyses.patching import activation_patching
from interp.errors import InterpError, nearest
from interp.model import Transformer

TOP = 10
"""Tokens of a lens, as a report has them."""


def _lens(model: Transformer, text: str) -> xr.Dataset:
    return logit_lens(model, text, top_k=min(TOP, model.config.d_vocab))


def _tuned(model: Transformer, text: str) -> xr.Dataset:
    if not is_shipped(model):
        raise InterpError(f"No tuned lens comes with the package for {model.name}; `interp train-lens` trains one.")
    return tuned_lens(model, text)


def _patching(model: Transformer, state: State, asked: Asked) -> xr.Dataset:
    answer, wrong = asked.pair()
    asked.check_aligned()
    how = "noising" if state.base == "clean" else "denoising"
    return activation_patching(
        model, state.clean, state.corrupt, answer=answer, wrong=wrong, site=state.site, direction=how
    )


def disturbance(state: State) -> Change:
    """The last disturbance that is on. Raises InterpError where there is none."""
    on = [one for one in state.changes if one.kind == "inject" and one.on]
    if not on:
        raise InterpError("No disturbance is on: choose “Disturb” and click a cell, or press its button.")
    return on[-1]


def _spreading(measure: Callable[..., xr.Dataset]) -> Callable[[Transformer, State, Asked], xr.Dataset]:
    def spread(model: Transformer, state: State, asked: Asked) -> xr.Dataset:
        one = disturbance(state)
        check(model, asked, state, one)
        assert one.position is not None
        return measure(
            model, state.text, dose=one.amount, layer=one.layer, directions=direction(model, one.seed), n_directions=1,
            positions=[one.position],
        )  # fmt: skip

    return spread


def _corrupt(model: Transformer, state: State, measure: Callable[[Transformer, str], xr.Dataset]) -> xr.Dataset:
    if not state.corrupt:
        raise InterpError("There is no corrupt text.")
    return measure(model, state.corrupt)


Measure = Callable[[Transformer, State, Asked], xr.Dataset]

MEASURES: dict[str, Measure] = {
    "lens": lambda model, state, _: _lens(model, state.clean),
    "lens_corrupt": lambda model, state, _: _corrupt(model, state, _lens),
    "tuned": lambda model, state, _: _tuned(model, state.clean),
    "tuned_corrupt": lambda model, state, _: _corrupt(model, state, _tuned),
    "attention": lambda model, state, _: attention_patterns(model, state.clean),
    "attention_corrupt": lambda model, state, _: _corrupt(model, state, attention_patterns),
    "patching": _patching,
    "attribution": lambda model, state, asked: direct_logit_attribution(
        model, state.clean, answer=asked.answer, wrong=asked.wrong
    ),
    "cone": _spreading(light_cone),
    "gain": _spreading(gain),
}

PROMPT = ("model", "clean", "corrupt")
DEPENDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lens", "tuned", "attention"), ("model", "clean")),
    **dict.fromkeys(("lens_corrupt", "tuned_corrupt", "attention_corrupt"), ("model", "corrupt")),
    "patching": (*PROMPT, "answer", "wrong", "base", "site"),
    "attribution": (*PROMPT, "answer", "wrong"),  # by default the wrong answer is what follows the corrupt text
    "cone": (*PROMPT, "base"),
    "gain": (*PROMPT, "base"),
}
"""What of a state each result depends on, besides the disturbance of the last two."""


def key_of(name: str, state: State) -> Hashable:
    """What a result is kept under. Raises InterpError for a name that is none."""
    if name not in MEASURES:
        raise InterpError(f"{WHO}: there is no view {name[:40]!r}. {nearest(name, MEASURES)}")
    spread = (disturbance(state),) if name in ("cone", "gain") else ()
    return (name, *(getattr(state, one) for one in DEPENDS[name]), *spread)
