"""Render a report's results as one self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analyses.plots import plot, plot_head, plot_lens_pair, plot_positions, plot_trajectories
from analyses.plots.labels import visible
from analyses.report.inside import figures as inside_figures
from analyses.report.outside import figures as outside_figures
from analyses.report.pages import environment
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

PROVENANCE = ("model", "source", "weight_hash", "tokenizer_hash", "dtype", "device", "versions", "created")


def render(results: Mapping[str, xr.Dataset], *, head: tuple[int, int] | None = None) -> str:
    """A page with every result of `collect`: figures, how to read them, and provenance. It loads nothing from outside.

    Args:
        head: (layer, head) whose attention pattern is shown large; None chooses one, see `chosen_head`.
    """
    lens, attention = results["lens"], results["attention"]
    patching = results.get("patching")
    asked = patching if patching is not None else results.get("attribution")
    answer_id = int(lens["top_id"][0, -1, -1, 0]) if asked is None else int(asked["answer_id"][0])
    automatic = head is None
    head = head or chosen_head(attention, answer_id)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            model=lens.attrs["model"],
            shape=_shape(lens),
            prompts=_prompts(results),
            predictions=_predictions(results),
            lens_sentence=lens_sentence(lens),
            lens=_div(plot(lens)),
            lens_corrupt=_div(_pair(results, "lens", "lens_corrupt", ["clean", "corrupt"]))
            if "lens_corrupt" in results
            else None,
            trajectory=_div(plot_trajectories(results["trajectory"])),
            tuned=_div(_pair(results, "lens", "tuned", ["logit lens", "tuned lens"])) if "tuned" in results else None,
            attribution_sentence=attribution_sentence(results["attribution"]) if "attribution" in results else "",
            attribution=_div(plot(results["attribution"])) if "attribution" in results else None,
            stream_sentence=stream_sentence(results["stream"]),
            stream=_div(plot(results["stream"])),
            embeddings=_div(plot(results["embeddings"])),
            positions=_div(plot_positions(results["embeddings"]))
            if "position_coordinate" in results["embeddings"]
            else None,
            head=f"{head[0]}.{head[1]}",
            head_is_automatic=automatic,
            answer=quoted(_token(attention, answer_id)),
            pattern=_div(plot_head(attention, layer=head[0], head=head[1])),
            viewer=Markup(attention_viewer(attention, layer=head[0], head=head[1]).html),
            head_table=_div(plot(results["head_table"])),
            heads_found=detectors_sentence(results["head_table"]),
            patching_sentence=patching_sentence(patching) if patching is not None else "",
            patching=_div(plot(patching)) if patching is not None else None,
            heads_sentence=heads_sentence(results["heads"], results["methods"]) if patching is not None else "",
            heads=_div(plot(results["heads"])) if patching is not None else None,
            heads_by_position=_div(plot(results["heads_by_position"])) if patching is not None else None,
            methods=_div(plot(results["methods"])) if patching is not None else None,
            gain_sentence=gain_sentence(results["gain"]),
            outside=[(_div(figure), read) for figure, read in outside_figures(results)],
            outside_sentence=external_sentence(results["external"]) if "external" in results else "",
            inside=[(_div(figure), read) for figure, read in inside_figures(results, injection=_injection(results))],
            provenance=[(name.replace("_", " "), said) for name in PROVENANCE if (said := lens.attrs.get(name))],
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
    write_whole(Path(path), lambda temporary: temporary.write_text(page, encoding="utf-8"), overwrite=overwrite)


def write_figures(
    figures: Sequence[go.Figure], path: Path, *, read: Sequence[str] = (), overwrite: bool = False, above: str = ""
) -> None:
    """Write one figure or several as a page that loads nothing from outside, whole or not at all.

    Args:
        read: how to read each, written beneath it.
        above: HTML to put before them; not escaped.
    """
    page = (
        environment()
        .get_template("figures.html.j2")
        .render(
            title=str(figures[0].layout.title.text).split("<br>")[0],
            figures=[(_div(f), text) for f, text in zip_longest(figures, read, fillvalue="")],
            plotly=Markup(get_plotlyjs()),
            above=Markup(above),
        )
    )
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"), overwrite=overwrite)


def _brief(parameters: str) -> str:
    """Parameters without what would fill a page, such as the course of a training; the saved result has them whole."""
    return parameters if len(parameters) <= LONGEST else f"{parameters[:LONGEST]} …"


def _pair(results: Mapping[str, xr.Dataset], first: str, second: str, names: Sequence[str]) -> go.Figure:
    return plot_lens_pair(results[first], results[second], names=names)


def _injection(results: Mapping[str, xr.Dataset]) -> int | None:
    """Where the disturbance that is shown is injected: at the first token in which the prompts differ, if there is one there."""
    if "lens_corrupt" in results:
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


def _div(figure: go.Figure) -> Markup:
    figure.update_layout(autosize=False)
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": False})
    )


def _prompts(results: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """The tokens of each prompt, with a mark on those in which the two differ."""
    names = {"lens": "clean" if "lens_corrupt" in results else "prompt", "lens_corrupt": "corrupt"}
    ids = {name: results[name]["token_id"][0].to_numpy() for name in names if name in results}
    rows = []
    for name, row in ids.items():
        others = [other for key, other in ids.items() if key != name and len(other) == len(row)]
        tokens = results[name]["token"][0].to_numpy()
        chips = [
            {
                "text": visible(str(token)),
                "id": int(i),
                "position": place,
                "differs": any(other[place] != i for other in others),
            }
            for place, (token, i) in enumerate(zip(tokens, row, strict=True))
        ]
        rows.append({"name": names[name], "tokens": chips})
    return rows


def _predictions(results: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    tables = []
    for name, title in (("lens", "clean" if "lens_corrupt" in results else "prompt"), ("lens_corrupt", "corrupt")):
        if name in results:
            last = results[name].isel(prompt=0, layer=-1, position=-1)
            pairs = zip(last["top_token"].to_numpy(), last["top_probability"].to_numpy(), strict=True)
            tables.append({"name": title, "rows": [(visible(str(token)), float(p)) for token, p in pairs]})
    return tables


def _token(attention: xr.Dataset, token_id: int) -> str:
    keys = attention["key_token_id"][0].to_numpy()
    return str(attention["key_token"][0].to_numpy()[keys == token_id][0]) if (keys == token_id).any() else ""
