"""Render a report's results as one self-contained HTML page."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analyses.plots import plot, plot_head, plot_lens_pair, plot_positions, plot_trajectories
from analyses.plots.labels import visible
from analyses.report.circuit import circuit_sentence
from analyses.report.circuit import figures as circuit_figures
from analyses.report.inside import figures as inside_figures
from analyses.report.inside import is_of_twin
from analyses.report.outside import figures as outside_figures
from analyses.report.pages import environment
from analyses.report.steps import LeftOut, check_any, left_out, made_of
from analyses.report.summary import (
    attribution_sentence,
    chosen_head,
    detectors_sentence,
    external_sentence,
    gain_sentence,
    heads_sentence,
    lens_sentence,
    patching_sentence,
    quoted,
    stream_sentence,
)
from analyses.report.viewer import attention_viewer
from interp.files import write_whole

LONGEST = 400
"""Characters of parameters that a page shows."""

PATCHED = ("patching", "heads", "heads_by_position", "methods")
"""Results of patching."""

TOKENS = {
    "prompt": (("lens", ""), ("attention", "key_"), ("stream", ""), ("patching", "clean_")),
    "corrupt": (("lens_corrupt", ""), ("patching", "corrupt_")),
}
"""Results that hold the tokens of each prompt, and what their names begin with there."""

PROVENANCE = ("model", "source", "weight_hash", "tokenizer_hash", "dtype", "device", "versions", "created")


def render(results: Mapping[str, xr.Dataset], *, head: tuple[int, int] | None = None) -> str:
    """A page with every result of `collect`: figures, how to read them, and provenance. It loads nothing from outside.

    Where a result was left out, the reason stands in its place.

    Args:
        head: (layer, head) whose attention pattern is shown large; None chooses one, see `chosen_head`.

    Raises:
        InterpError: there is no result at all.
    """
    check_any(results, "report")

    def drawn(draw: Callable[..., go.Figure], *names: str) -> Markup | LeftOut | None:
        return made_of(results, names, lambda: _div(draw(*(results[name] for name in names))))

    def said(say: Callable[..., str], *names: str) -> str:
        return say(*(results[name] for name in names)) if all(name in results for name in names) else ""

    attention = results.get("attention")
    answer_id = _answer_id(results)
    automatic = head is None
    if head is None and attention is not None:
        head = chosen_head(attention, answer_id)
    at: dict[str, Any] = {} if head is None else {"layer": head[0], "head": head[1]}
    answer = "" if attention is None or answer_id is None else _token(attention, answer_id)
    one = _about(results)
    known = {*results, *(lacking.name for lacking in left_out(results))}
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            model=one.attrs["model"],
            shape=_shape(one),
            prompts=_prompts(results),
            predictions=_predictions(results),
            lens_sentence=said(lens_sentence, "lens"),
            lens=drawn(plot, "lens"),
            lens_corrupt=drawn(partial(_pair, ["clean", "corrupt"]), "lens", "lens_corrupt"),
            trajectory=drawn(plot_trajectories, "trajectory"),
            tuned=drawn(partial(_pair, ["logit lens", "tuned lens"]), "lens", "tuned"),
            attribution_sentence=said(attribution_sentence, "attribution"),
            attribution=drawn(plot, "attribution"),
            stream_sentence=said(stream_sentence, "stream"),
            stream=drawn(plot, "stream"),
            embeddings=drawn(plot, "embeddings"),
            positions=_div(plot_positions(results["embeddings"]))
            if "embeddings" in results and "position_coordinate" in results["embeddings"]
            else None,
            head="" if head is None else f"{head[0]}.{head[1]}",
            head_is_automatic=automatic,
            answer=quoted(answer),
            pattern=drawn(partial(plot_head, **at), "attention"),
            viewer=None if attention is None else Markup(attention_viewer(attention, **at).html),
            head_table=drawn(plot, "head_table"),
            heads_found=said(detectors_sentence, "head_table"),
            patched=not known.isdisjoint(PATCHED),
            patching_sentence=said(patching_sentence, "patching"),
            patching=drawn(plot, "patching"),
            heads_sentence=said(heads_sentence, "heads", "methods"),
            heads=drawn(plot, "heads"),
            heads_by_position=drawn(plot, "heads_by_position"),
            methods=drawn(plot, "methods"),
            circuit=[(_shown(figure), read) for figure, read in circuit_figures(results)],
            circuit_sentence=said(circuit_sentence, "circuit_edges", "circuit_faithfulness"),
            gain_sentence=said(gain_sentence, "gain"),
            outside=[(_shown(figure), read) for figure, read in outside_figures(results)],
            outside_sentence=said(external_sentence, "external"),
            inside=[(_shown(figure), read) for figure, read in inside_figures(results, injection=_injection(results))],
            provenance=[(name.replace("_", " "), value) for name in PROVENANCE if (value := one.attrs.get(name))],
            parameters=[
                (name, result.attrs["kind"], _brief(result.attrs["parameters"]), result.attrs["seed"])
                for name, result in results.items()
            ],
            plotly=Markup(get_plotlyjs()),
        )
    )
    return str(page)


def write(
    results: Mapping[str, xr.Dataset], path: str | Path, *, head: tuple[int, int] | None = None, overwrite: bool = False
) -> None:
    """Render and write a report, whole or not at all. Raises InterpError where the file exists and may not be overwritten."""
    page = render(results, head=head)
    write_whole(
        Path(path),
        lambda temporary: temporary.write_text(page, encoding="utf-8", errors="backslashreplace"),
        overwrite=overwrite,
    )


def write_figures(
    figures: Sequence[go.Figure | LeftOut],
    path: Path,
    *,
    read: Sequence[str] = (),
    overwrite: bool = False,
    above: str = "",
) -> None:
    """Write one figure or several as a page that loads nothing from outside, whole or not at all.

    Args:
        figures: in the place of one that could not be computed stands why.
        read: how to read each, written beneath it.
        above: HTML to put before them; not escaped.
    """
    page = (
        environment()
        .get_template("figures.html.j2")
        .render(
            title=next((str(f.layout.title.text).split("<br>")[0] for f in figures if not isinstance(f, LeftOut)), ""),
            figures=[(_shown(f), text) for f, text in zip_longest(figures, read, fillvalue="")],
            plotly=Markup(get_plotlyjs()),
            above=Markup(above),
        )
    )
    write_whole(
        path,
        lambda temporary: temporary.write_text(page, encoding="utf-8", errors="backslashreplace"),
        overwrite=overwrite,
    )


def _brief(parameters: str) -> str:
    """Parameters without what would fill a page, such as the course of a training; the saved result has them whole."""
    return parameters if len(parameters) <= LONGEST else f"{parameters[:LONGEST]} …"


def _pair(names: Sequence[str], first: xr.Dataset, second: xr.Dataset) -> go.Figure:
    return plot_lens_pair(first, second, names=names)


def _injection(results: Mapping[str, xr.Dataset]) -> int | None:
    """Where the disturbance that is shown is injected: at the first token in which the prompts differ, if there is one there."""
    if "lens" in results and "lens_corrupt" in results:
        ids = [results[name]["token_id"][0].to_numpy() for name in ("lens", "lens_corrupt")]
        if len(ids[0]) == len(ids[1]):
            at = int((ids[0] != ids[1]).argmax())
            cone = results.get("cone")
            if cone is not None and at in cone["injection"] and cone["share"].sel(injection=at).notnull().any():
                return at
    return None


def _shape(result: xr.Dataset) -> str:
    config = json.loads(result.attrs["model_config"])
    return "{n_layers} layers of {n_heads} heads, width {d_model}, {d_vocab:,} tokens, context {n_ctx}.".format(
        **config
    )


def _shown(figure: go.Figure | LeftOut) -> Markup | LeftOut:
    return figure if isinstance(figure, LeftOut) else _div(figure)


def _div(figure: go.Figure) -> Markup:
    figure.update_layout(autosize=False)
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": False})
    )


def _prompts(results: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
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


def _first(results: Mapping[str, xr.Dataset]) -> str:
    """What the prompt is called."""
    return "prompt" if _tokens(results, TOKENS["corrupt"]) is None else "clean"


def _tokens(
    results: Mapping[str, xr.Dataset], places: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens and ids of a prompt, from the first of several results that is there."""
    for name, prefix in places:
        if name in results:
            return results[name][f"{prefix}token"][0].to_numpy(), results[name][f"{prefix}token_id"][0].to_numpy()
    return None


def _answer_id(results: Mapping[str, xr.Dataset]) -> int | None:
    """The id of what was asked about, else of the top prediction."""
    for name in ("patching", "attribution", "heads"):
        if name in results:
            return int(results[name]["answer_id"][0])
    return int(results["lens"]["top_id"][0, -1, -1, 0]) if "lens" in results else None


def _about(results: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """A result of the model itself, for its name and provenance; of its random-init twin where there is no other."""
    own = (result for name, result in results.items() if not is_of_twin(name))
    return next(own, next(iter(results.values())))


def _predictions(results: Mapping[str, xr.Dataset]) -> list[dict[str, Any] | LeftOut]:
    """The most probable next tokens of each prompt, or why they are not known."""

    def table(name: str) -> dict[str, Any]:
        last = results[name].isel(prompt=0, layer=-1, position=-1)
        pairs = zip(last["top_token"].to_numpy(), last["top_probability"].to_numpy(), strict=True)
        return {"name": titles[name], "rows": [(visible(str(token)), float(p)) for token, p in pairs]}

    titles = {"lens": _first(results), "lens_corrupt": "corrupt"}
    tables = (made_of(results, [name], partial(table, name)) for name in titles)
    return [one for one in tables if one is not None]


def _token(attention: xr.Dataset, token_id: int) -> str:
    keys = attention["key_token_id"][0].to_numpy()
    return str(attention["key_token"][0].to_numpy()[keys == token_id][0]) if (keys == token_id).any() else ""
