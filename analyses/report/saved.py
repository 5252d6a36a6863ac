"""A report from results that were saved: no model is needed."""

from collections.abc import Mapping
from pathlib import Path

import xarray as xr
from markupsafe import Markup

from analyses.plots.kinds import kinds
from analyses.plots.together import NULL, draw
from analyses.report.chosen import parse_head
from analyses.report.html import PROVENANCE, write, write_figures
from analyses.report.section import Shown
from analyses.results import load
from interp.errors import InterpError, ResultError

WHOLE = ("lens", "trajectory", "attention", "head_table", "stream", "embeddings", "gain", "gain_null")
"""Results of `collect` without which the whole page cannot be made."""


def load_folder(folder: Path) -> dict[str, xr.Dataset]:
    """Every result in a folder, by the stem of its file. Raises InterpError where there is none."""
    if not folder.is_dir():
        raise InterpError(f"report: {folder} is no folder of saved results.")
    files = sorted(folder.glob("*.nc"))
    if not files:
        raise InterpError(f"report: {folder} holds no results (.nc). Make some with --save.")
    return {file.stem: load(file) for file in files}


def write_saved(
    results: Mapping[str, xr.Dataset], path: Path, *, head: str | None = None, overwrite: bool = False
) -> None:
    """The whole page where the results of one report are there, all of one model; else a page of each result's figure and provenance.

    Args:
        head: LAYER.HEAD whose pattern the whole page shows large; None chooses one.

    Raises:
        ResultError: not one of the results has a figure, or a head that they do not have, or have no page for. InterpError: the file exists
            and may not be overwritten.
    """
    weights = {
        result.attrs["weight_hash"] for name, result in results.items() if name in WHOLE and not name.endswith(NULL)
    }
    if set(WHOLE) <= set(results) and len(weights) == 1:
        write(results, path, head=None if head is None else parse_head(head, results["attention"]), overwrite=overwrite)
        return
    if head is not None:
        raise ResultError(
            f"report: head {head} is shown large on the page of a whole report, which these results do not make; leave it out."
        )
    shown = {name: result for name, result in results.items() if result.attrs["kind"] in kinds()}
    if not shown:
        raise ResultError("report: none of these results has a figure.")
    figures = [Shown(name, draw(name, shown), _from(name, result)) for name, result in shown.items()]
    write_figures(figures, path, about=shown, overwrite=overwrite)


def _from(name: str, result: xr.Dataset) -> Markup:
    """Of what a figure is: results of one folder may be of several models."""
    told = "; ".join(f"{key.replace('_', ' ')} {result.attrs[key]}" for key in PROVENANCE if key in result.attrs)
    return Markup("<b>{}</b> ({}): {}").format(name, result.attrs["kind"], told)
