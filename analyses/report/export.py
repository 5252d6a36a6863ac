"""Figures for papers: a saved result as HTML, PNG, SVG and PDF in a size that is printed, with its data and provenance beside it."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import xarray as xr

from analyses.plots.browser import check_pictures, whole_pages
from analyses.plots.sizes import SIZES, fitting, sized
from analyses.plots.together import draw, unused
from analyses.report.html import write_figures
from analyses.report.section import Shown
from interp.errors import InterpError, is_known, nearest
from interp.files import check_free, make_folder, write_whole

STATIC = ("png", "svg", "pdf")
FORMATS = ("html", *STATIC)


@dataclass(frozen=True)
class Exported:
    """What was written for a result.

    Args:
        name: of the result, the stem of its files.
        size: that it was drawn at: `double` where it has panels side by side, which one column would make unreadable.
        files: all that belong to it: figures, data, provenance.
    """

    name: str
    size: str
    files: Sequence[Path]


def export(
    results: Iterable[tuple[str, xr.Dataset]],
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    size: str = "double",
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> list[Exported]:
    """Write each result's figure, its data as CSV and its caption and provenance as JSON into a folder, all named after it.

    Figures are those of a report: results that belong together stand in one (`analyses.plots.together`).

    Args:
        results: names and results; a result of a kind that has no figure is an error.
        folder: is made where it is not there.
        formats: of `html`, `png`, `svg`, `pdf`. PNG has 300 dots to an inch of the printed size.
        size: a name of `analyses.plots.sizes.SIZES`.
        options: of the figures, such as `prompt` or `position`, for those that take them.

    Raises:
        InterpError: as `check_export`; an option that no figure takes.
    """
    given, options = list(results), dict(options or {})
    check_export([folder / name for name, _ in given], formats=formats, size=size, overwrite=overwrite)
    planned = {name: _files(folder / name, formats) for name, _ in given}
    together = dict(given)
    if lost := unused(together, options):
        raise InterpError(f"export: no figure of these results has an option {lost[0]!r}.")
    plain = {name: draw(name, together, options) for name in together}
    captions = {name: unescape(str(figure.layout.meta["caption"])) for name, figure in plain.items()}
    sizes = {name: fitting(figure, size) for name, figure in plain.items()}
    figures = {name: sized(figure, sizes[name]) for name, figure in plain.items()}
    kinds = [kind for kind in STATIC if kind in formats]
    make_folder(folder)
    static = [(figure, name, kind) for name, figure in figures.items() for kind in kinds]
    _draw(static, folder, sizes, overwrite)
    for name, result in given:
        if "html" in formats:
            shown = Shown(name, figures[name], captions[name])
            write_figures([shown], folder / f"{name}.html", about={name: result}, overwrite=overwrite)
        write_whole(folder / f"{name}.csv", partial(table(result).to_csv, index=False), overwrite=overwrite)
        about = json.dumps({"caption": captions[name], **provenance(result)}, indent=1, ensure_ascii=False)
        write_whole(
            folder / f"{name}.json", partial(Path.write_text, data=about, encoding="utf-8"), overwrite=overwrite
        )
    return [Exported(name, sizes[name], paths) for name, paths in planned.items()]


def check_export(
    places: Sequence[Path], *, formats: Sequence[str], size: str, overwrite: bool = False, by: str = "overwrite=True"
) -> None:
    """Raise InterpError where an export could not be: to be asked before the results are read.

    Args:
        places: of the results, without an ending; a folder that is not there yet will be made.
        by: what the user gives to have files overwritten, for the message.

    Raises:
        InterpError: an unknown format or size, two results in one place, a file that is there already, no kaleido or no browser for
            static formats.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise InterpError(f"export: unknown format {unknown[0]!r}. {nearest(unknown[0], list(FORMATS))}")
    if not is_known(size, SIZES):
        raise InterpError(f"export: unknown size {size!r}. {nearest(size, list(SIZES))}")
    if twice := [place for number, place in enumerate(places) if place in places[:number]]:
        raise InterpError(f"export: two results are named {twice[0].name}; export them to folders of their own.")
    for path in (path for place in places for path in _files(place, formats)):
        if path.parent.exists():
            check_free(path, overwrite=overwrite, by=by)
    if set(formats) & set(STATIC):
        try:
            check_pictures()
        except InterpError as error:
            raise InterpError(f"export: {error} HTML needs neither: --format html.") from error


def _files(place: Path, formats: Sequence[str]) -> list[Path]:
    """All that belongs to a result."""
    return [place.with_name(f"{place.name}.{kind}") for kind in (*dict.fromkeys(formats), "csv", "json")]


def table(result: xr.Dataset) -> pd.DataFrame:
    """Every number of a result, one in a row: variable, where it stands along each dimension, value, units."""
    frames = []
    for name, values in result.data_vars.items():
        kept = [str(dim) for dim in values.dims]
        bare = values.drop_vars([name for name in values.coords if name not in values.dims])
        frame = (
            bare.to_dataframe(name="value").reset_index()[[*kept, "value"]]
            if kept
            else pd.DataFrame({"value": [values.item()]})
        )
        frames.append(frame.assign(variable=str(name), units=str(values.attrs.get("units", ""))))
    whole = pd.concat(frames, ignore_index=True)
    dims = [str(dim) for dim in result.sizes if str(dim) in whole]
    return whole[["variable", *dims, "value", "units"]]


def provenance(result: xr.Dataset) -> dict[str, Any]:
    """The attributes of a result, with what is JSON within them taken apart."""
    taken: dict[str, Any] = {}
    for name, value in result.attrs.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        try:
            taken[str(name)] = json.loads(text)
        except json.JSONDecodeError:
            taken[str(name)] = text
    return taken


def _draw(
    wanted: Sequence[tuple[go.Figure, str, str]], folder: Path, sizes: Mapping[str, str], overwrite: bool
) -> None:
    """All static figures by one browser; each is drawn elsewhere and then put in its place."""
    if not wanted:
        return
    scales = [SIZES[sizes[name]].scale(float(figure.layout.width), kind) for figure, name, kind in wanted]
    try:
        with tempfile.TemporaryDirectory() as place, whole_pages():
            drawn = [Path(place) / f"{number}.{kind}" for number, (*_, kind) in enumerate(wanted)]
            plotly.io.write_images(
                [figure for figure, _, _ in wanted], [str(path) for path in drawn], format=[kind for *_, kind in wanted], scale=scales,
                width=[figure.layout.width for figure, _, _ in wanted], height=[figure.layout.height for figure, _, _ in wanted],
            )  # fmt: skip
            for path, (_, name, kind) in zip(drawn, wanted, strict=True):
                write_whole(folder / f"{name}.{kind}", partial(shutil.copyfile, path), overwrite=overwrite)
    except (ValueError, RuntimeError, ImportError) as error:  # of kaleido or of its browser, which were there
        if isinstance(error, InterpError):
            raise
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InterpError(f"export: kaleido could not draw: {said}. HTML needs neither it nor a browser.") from error
