"""`interp export`: Figures for papers from saved results."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, app, free_folder


@app.command()
def export(
    source: Annotated[list[Path], typer.Argument(help="Saved results (.nc), or folders of them.")],
    formats: Annotated[str, typer.Option("--format", help="Of html, png, svg, pdf; with commas between.")] = "html,png,svg,pdf",
    size: Annotated[str, typer.Option(help="single or double column, slide, screen.")] = "double",
    out: Annotated[Path | None, typer.Option(help="The folder to write to. Default: beside each result.")] = None,
    choose: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the figures that take it: prompt=2, position=5, layer=4, head=1 …")
    ] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Write each result's figure, its data as CSV, its caption and provenance as JSON, side by side.

    Figures are those of the report: results of one folder that belong together stand in one.
    """
    import xarray as xr

    from analyses import load
    from analyses.plots.together import chosen
    from analyses.report.export import FORMATS, check_export
    from analyses.report.export import export as write
    from interp.errors import InterpError

    for one in source:
        if not one.exists():
            raise InterpError(
                f"export: there is no {one}; name saved results (.nc), or folders of them, as --save makes them."
            )
    files = [file for one in source for file in (sorted(one.glob("*.nc")) if one.is_dir() else [one])]
    if not files:
        raise InterpError(f"export: no results (.nc) in {', '.join(map(str, source))}.")
    options = chosen(choose or [])
    kinds = list(dict.fromkeys(name.strip() for name in formats.split(",") if name.strip()))
    if not kinds:
        raise InterpError(f"export: no format is named; choose of {', '.join(FORMATS)}.")
    if out is not None:
        free_folder(out, force=True)  # which files would be overwritten is asked next, by name
    check_export(
        [(out or file.parent) / file.stem for file in files], formats=kinds, size=size, overwrite=force, by="--force"
    )
    by_folder: dict[tuple[Path, Path], list[tuple[str, xr.Dataset]]] = {}
    for file in files:
        by_folder.setdefault((file.parent, out or file.parent), []).append((file.stem, load(file)))
    console = Console(highlight=False)
    for (_, folder), results in by_folder.items():
        for done in write(results, folder, formats=kinds, size=size, overwrite=force, options=options):
            why = "" if done.size == size else f" (panels side by side: at {done.size} width)"
            console.print(
                f"{escape(done.name)}{why}: {escape(', '.join(path.name for path in done.files))}", soft_wrap=True
            )
        console.print(f"Written to {escape(str(folder))}", soft_wrap=True)
