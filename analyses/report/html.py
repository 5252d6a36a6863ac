"""Render a report's results as one self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup

from analyses.report.alternative import plain_title
from analyses.report.bundle import packed
from analyses.report.inside import is_of_twin
from analyses.report.pages import environment
from analyses.report.section import Section, Shown
from analyses.report.sections import sections
from analyses.report.steps import LeftOut, check_any
from analyses.report.summary import lead
from interp.files import write_whole

LONGEST = 400
"""Characters of parameters that a page shows."""

PROVENANCE = ("model", "source", "weight_hash", "tokenizer_hash", "dtype", "device", "versions", "created")


def render(results: Mapping[str, xr.Dataset], *, head: tuple[int, int] | None = None) -> str:
    """A page with every result of `collect`: what was found, then section by section figures, how to read them, and provenance. It loads
    nothing from outside.

    Where a result was left out, the reason stands in its place.

    Args:
        head: (layer, head) whose attention pattern is shown large; None chooses one, see `chosen_head`.

    Raises:
        InterpError: there is no result at all.
    """
    check_any(results, "report")
    one, parts = _about(results), sections(results, head)
    return _page(
        "report.html.j2",
        parts,
        title=f"{one.attrs['model']}: report",
        model=one.attrs["model"],
        shape=_shape(one),
        lead=lead(results),
        **provenance(one, results),
    )


def write(
    results: Mapping[str, xr.Dataset], path: str | Path, *, head: tuple[int, int] | None = None, overwrite: bool = False
) -> None:
    """Render and write a report, whole or not at all. Raises InterpError where the file exists and may not be overwritten."""
    _write(render(results, head=head), Path(path), overwrite)


def write_figures(
    figures: Sequence[go.Figure | LeftOut | Shown],
    path: Path,
    *,
    about: Mapping[str, xr.Dataset] | None = None,
    overwrite: bool = False,
    above: str = "",
) -> None:
    """Write one figure or several as a page that loads nothing from outside, whole or not at all.

    Args:
        figures: `Shown` says how to read one; in the place of one that could not be computed stands why.
        about: the results that are drawn, by name, whose provenance stands beneath.
        above: HTML to put before them; not escaped.
    """
    given = [
        one if isinstance(one, Shown) else Shown(f"figure-{number}", one) for number, one in enumerate(figures, start=1)
    ]
    title = next((plain_title(one.figure) for one in given if isinstance(one.figure, go.Figure)), "")
    told = provenance(_about(about), about) if about else {"provenance": [], "parameters": []}
    page = _page(
        "figures.html.j2", [Section("Figures", figures=given, folded=False)], title=title, above=Markup(above), **told
    )
    _write(page, path, overwrite)


def provenance(one: xr.Dataset, results: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Where results came from: what they share, by one of them, and how each was made."""
    return {
        "provenance": [(name.replace("_", " "), value) for name in PROVENANCE if (value := one.attrs.get(name))],
        "parameters": [
            (
                name.replace("_", " "),
                result.attrs["kind"],
                _brief(result.attrs.get("parameters", "")),
                result.attrs.get("seed"),
            )
            for name, result in results.items()
        ],
    }


def _page(template: str, parts: Sequence[Section], **given: Any) -> str:
    """A page of sections; figures are put into it as data, which its script draws when they come into view."""
    figures = [one.figure for part in parts for one in part.figures if isinstance(one.figure, go.Figure)]
    page = environment().get_template(template)
    return str(
        page.render(
            sections=parts,
            plotly=packed(figures) if figures else "",
            **given,
        )
    )


def _write(page: str, path: Path, overwrite: bool) -> None:
    write_whole(
        path,
        lambda temporary: temporary.write_text(page, encoding="utf-8", errors="backslashreplace"),
        overwrite=overwrite,
    )


def _brief(parameters: str) -> str:
    """Parameters without what would fill a page, such as the course of a training; the saved result has them whole."""
    return parameters if len(parameters) <= LONGEST else f"{parameters[:LONGEST]} …"


def _shape(result: xr.Dataset) -> str:
    config = json.loads(result.attrs["model_config"])
    return "{n_layers} layers of {n_heads} heads, width {d_model}, {d_vocab:,} tokens, context {n_ctx}.".format(
        **config
    )


def _about(results: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """A result of the model itself, for its name and provenance; of its random-init twin where there is no other."""
    own = (result for name, result in results.items() if not is_of_twin(name))
    return next(own, next(iter(results.values())))
