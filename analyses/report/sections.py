"""The sections of a report, in their order."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from analyses.plots import plot, plot_head, plot_positions
from analyses.plots.attention import is_causal
from analyses.plots.labels import visible
from analyses.plots.together import PAIRS, draw
from analyses.report.cascade_sentences import (
    control_sentence,
    external_sentence,
    gain_sentence,
    internal_sentence,
    picture_sentence,
)
from analyses.report.chosen import chosen_head
from analyses.report.circuit import circuit_sentence
from analyses.report.circuit import figures as circuit_figures
from analyses.report.inside import figures as inside_figures
from analyses.report.outside import figures as outside_figures
from analyses.report.pages import environment
from analyses.report.section import Section, Shown, said, shown
from analyses.report.sentences import (
    attribution_sentence,
    detectors_sentence,
    heads_sentence,
    lens_sentence,
    patching_sentence,
    quoted,
    stream_sentence,
)
from analyses.report.steps import LeftOut, left_out
from analyses.report.viewer import attention_viewer

Results = Mapping[str, xr.Dataset]
Head = tuple[int, int] | None

PICTURE = "wavefront"
"""The result that leads the cascade."""

PATCHED = ("patching", "heads", "heads_by_position", "methods")
"""Results of patching."""

TOKENS = {
    "prompt": (("lens", ""), ("attention", "key_"), ("stream", ""), ("patching", "clean_")),
    "corrupt": (("lens_corrupt", ""), ("attention_corrupt", "key_"), ("patching", "corrupt_")),
}
"""Results that hold the tokens of each prompt, and what their names begin with there."""

READ = {
    "lens": (
        "Each cell is the token that the model would predict at that position if everything above were left out: before each layer, "
        "and after its attention; the colour is its probability. Read a column from the bottom up to see a prediction form. Point at "
        "a cell for the runners-up."
    ),
    "lens_corrupt": "The same for both prompts, on one scale: where the two part.",
    "trajectory": "The tokens that are asked about, at the last position: whether one takes the lead, and where.",
    "tuned": (
        "Beside the logit lens the tuned lens, which first takes the stream through an affine map trained for its layer. Low layers "
        "speak a language of their own; the map translates it. It shows what can be read there, not what the model reads."
    ),
    "viewer": (
        "Every head over the text. A dark diagonal attends to the token itself, one just below it to the previous token; a dark first"
        " column means that a head rests on the first token."
    ),
    "head_table": (
        "What every head does on random tokens repeated, where only copying helps: the attention that falls on the token before, on "
        "earlier occurrences of the token, on what followed them, on the token itself, on the first token; how spread and how far its"
        " attention is. From its weights: whether it copies (1) or suppresses (−1) what it reads, and how much, above chance, its "
        "query, key and value read what some lower head writes."
    ),
    "patching": (
        "The corrupt prompt is run, and at one layer and position the stream is replaced by that of the clean run. Red restores the "
        "clean answer (1 is all of it), blue pushes away from it, the middle of the scale does nothing. Follow the red upward to see "
        "where the information that decides the answer sits, and when it moves to the last token."
    ),
    "heads": (
        "The same with the output of one attention head at all positions (z, before its output weights). Heads that move the answer "
        "when patched alone are candidates for the circuit, not the whole of it."
    ),
    "heads_by_position": "The same heads, patched at one position at a time: where in the prompt each of them does what it does.",
    "methods": (
        "The same heads by several methods. Denoising asks what suffices to restore the answer, noising what is needed to keep it; "
        "zero and mean ablation put in no other run's value at all. Where the rankings beneath disagree, a finding hangs on the "
        "method."
    ),
    "attribution": (
        "The stream is a sum, so the answer is one too: each bar is what one part wrote towards it, with the final norm's scale held,"
        " and together they end in the total. Below, what each head wrote, what is lost when it is taken out, and the first less the "
        "second: red where later parts made up for a loss, blue where a head works through later parts."
    ),
    "stream": (
        "How long the stream is after each half block, how far it turns, and what attention and MLP write. A negative change means "
        "that a part writes against what is there."
    ),
    "embeddings": (
        "Tokens of the prompt and the answers: their nearest neighbours in the embedding, their likeness to each other, and their "
        "place among all tokens on the two axes with most variance."
    ),
    "positions": "What the model knows of places: the position embedding on its main axes, and how alike any two positions are.",
}
"""How to read each figure that is not of the circuit or the cascade."""


def sections(results: Results, head: Head = None) -> list[Section]:
    """What a report of these results shows; `head` as for `render`."""
    outside = outside_figures(results)
    return [
        _prompt(results),
        _predictions(results),
        _lens(results),
        _attention(results, head),
        _patching(results),
        *_circuit(results),
        _attribution(results),
        _stream(results),
        _embeddings(results),
        *_picture(results, [one for one in outside if one.name == PICTURE]),
        _inside(results),
        _outside(results, [one for one in outside if one.name != PICTURE]),
    ]


def _prompt(results: Results) -> Section:
    rows = _prompts(results)
    read = "One box a token, as the model reads them; “·” is a space."
    read += " Where the two prompts differ, the box is orange and underlined." if len(rows) > 1 else ""
    return Section(
        "Prompt", figures=[Shown("tokens", _html("tokens.html.j2", prompts=rows), read)] if rows else [], plain=True
    )


def _predictions(results: Results) -> Section:
    titles = {"lens": _first(results), "lens_corrupt": "corrupt"}
    figures = [
        one
        for name, title in titles.items()
        for one in shown(results, f"next-{name}", "", partial(_table, title), name)
    ]
    read = "The most probable tokens after the last token of each prompt, at temperature 1."
    told = any(not isinstance(one.figure, LeftOut) for one in figures)
    return Section("Next-token predictions", figures=figures, plain=True, note=read if told else "")


def _lens(results: Results) -> Section:
    figures = [one for name in ("lens", "lens_corrupt", "trajectory", "tuned") for one in _own(results, name)]
    return Section("Logit lens", said(results, lens_sentence, "lens"), figures, folded=False)


def _attention(results: Results, head: Head) -> Section:
    figures = []
    if "attention" in results:
        answer_id, automatic = _answer_id(results), head is None
        layer, number = chosen_head(results["attention"], answer_id) if head is None else head
        at: dict[str, Any] = {"layer": layer, "head": number}
        why = _why(results["attention"], answer_id) if automatic else ""
        read = f"Head {layer}.{number}{why}. A row shows how one token shares its attention, which sums to 1, over {_seen(results)}."
        figures += shown(results, "pattern", read, partial(plot_head, **at), "attention")
        figures += shown(results, "viewer", READ["viewer"], lambda *_: _viewer(results, at), "attention")
    else:
        figures += shown(results, "pattern", "", plot, "attention")
    figures += [Shown(one.name, one) for one in left_out(results) if one.name == "attention_corrupt"]
    figures += _own(results, "head_table")
    return Section("Attention", said(results, detectors_sentence, "head_table"), figures)


def _patching(results: Results) -> Section:
    title = "Activation patching"
    if _known(results).isdisjoint(PATCHED):
        why = Markup("Not shown: patching compares two prompts. Give a second one with <code>--corrupt</code>.")
        return Section(title, absent=why)
    found = [said(results, patching_sentence, "patching"), said(results, heads_sentence, "heads", "methods")]
    return Section(
        title, " ".join(one for one in found if one), [one for name in PATCHED for one in _own(results, name)]
    )


def _circuit(results: Results) -> list[Section]:
    figures = circuit_figures(results)
    found = said(results, circuit_sentence, "circuit_edges", "circuit_faithfulness")
    return [Section("Circuit", found, figures)] if figures else []


def _attribution(results: Results) -> Section:
    title = "Direct logit attribution"
    if "attribution" not in _known(results):
        why = "Not shown: a post-norm model rescales its stream after each addition, so its stream is no sum of parts."
        return Section(title, absent=why)
    return Section(title, said(results, attribution_sentence, "attribution"), _own(results, "attribution"))


def _stream(results: Results) -> Section:
    return Section("The residual stream", said(results, stream_sentence, "stream"), _own(results, "stream"))


def _embeddings(results: Results) -> Section:
    figures = _own(results, "embeddings")
    if "embeddings" in results and "position_coordinate" in results["embeddings"]:
        figures += shown(results, "positions", READ["positions"], plot_positions, "embeddings")
    return Section("Embeddings", figures=figures)


def _picture(results: Results, figures: Sequence[Shown]) -> list[Section]:
    found = said(results, picture_sentence, PICTURE)
    return [Section("The cascade in one picture", found, figures, folded=False)] if figures else []


def _inside(results: Results) -> Section:
    found = [
        said(results, gain_sentence, "gain"),
        said(results, internal_sentence, "verdict"),
        said(results, control_sentence, "gain"),
    ]
    return Section("Cascade inside", " ".join(one for one in found if one), inside_figures(results))


def _outside(results: Results, figures: Sequence[Shown]) -> Section:
    title = "Cascade outside"
    if not figures:
        why = "Not shown: what becomes of a disturbance as the model reads its own words takes many texts. "
        return Section(title, absent=Markup(why + "Ask for it with <code>--cascade</code>."))
    return Section(title, said(results, external_sentence, "external"), figures)


def _own(results: Results, name: str) -> list[Shown]:
    """The figure of a result, as `analyses.plots.together` draws it."""
    needs = (PAIRS[name][0], name) if name in PAIRS else (name,)
    return shown(results, name, READ[name], lambda *_: draw(name, results), *needs)


def _known(results: Results) -> set[str]:
    """The results that there are, and those that were left out."""
    return {*results, *(lacking.name for lacking in left_out(results))}


def _html(template: str, **given: Any) -> Markup:
    return Markup(environment().get_template(template).render(**given))


def _table(title: str, lens: xr.Dataset) -> Markup:
    """The most probable next tokens of a prompt."""
    last = lens.isel(prompt=0, layer=-1, position=-1)
    pairs = zip(last["top_token"].to_numpy(), last["top_probability"].to_numpy(), strict=True)
    return _html("predictions.html.j2", name=title, rows=[(visible(str(token)), float(p)) for token, p in pairs])


def _viewer(results: Results, at: dict[str, Any]) -> Markup:
    texts = {_first(results): results["attention"]}
    texts |= {"corrupt": results["attention_corrupt"]} if "attention_corrupt" in results else {}
    return Markup(attention_viewer(texts, **at).html)


def _why(attention: xr.Dataset, answer_id: int | None) -> str:
    """Why `chosen_head` chose as it did."""
    keys = attention["key_token_id"][0].to_numpy()
    there = np.flatnonzero(keys == answer_id)
    if len(there):
        answer = quoted(str(attention["key_token"][0].to_numpy()[there[0]]))
        return f", chosen because its last position attends most to {answer}, the answer's token in the prompt"
    where = "one earlier token" if len(keys) > 2 else "one token"
    return f", chosen because its last position attends most to {where}"


def _seen(results: Results) -> str:
    """What a row of attention is shared over."""
    return "itself and the tokens before it" if is_causal(results["attention"]) else "all tokens"


def _prompts(results: Results) -> list[dict[str, Any]]:
    """The tokens of each prompt, with a mark on those in which the two differ."""
    prompts = {
        title: found
        for title, places in ((_first(results), TOKENS["prompt"]), ("corrupt", TOKENS["corrupt"]))
        if (found := _tokens(results, places)) is not None
    }
    rows = []
    for name, (tokens, row) in prompts.items():
        others = [other for key, (_, other) in prompts.items() if key != name and len(other) == len(row)]
        chips = [
            {
                "text": visible(str(token)),
                "id": int(i),
                "position": place,
                "differs": any(other[place] != i for other in others),
            }
            for place, (token, i) in enumerate(zip(tokens, row, strict=True))
        ]
        rows.append({"name": name, "tokens": chips})
    return rows


def _first(results: Results) -> str:
    """What the prompt is called."""
    return "prompt" if _tokens(results, TOKENS["corrupt"]) is None else "clean"


def _tokens(results: Results, places: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens and ids of a prompt, from the first of several results that is there."""
    for name, prefix in places:
        if name in results:
            return results[name][f"{prefix}token"][0].to_numpy(), results[name][f"{prefix}token_id"][0].to_numpy()
    return None


def _answer_id(results: Results) -> int | None:
    """The id of what was asked about, else of the top prediction."""
    for name in ("patching", "attribution", "heads"):
        if name in results:
            return int(results[name]["answer_id"][0])
    return int(results["lens"]["top_id"][0, -1, -1, 0]) if "lens" in results else None
