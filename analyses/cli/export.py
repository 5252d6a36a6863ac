"""`interp export`: Figures for papers from saved results."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, app


@app.command()
def export(
    source: Annotated[list[Path], typer.Argument(help="Saved results (.nc), or folders of them.")],
    formats: Annotated[str, typer.Option("--format", help="Of html, png, svg, pdf; with commas between.")] = "html,png,svg,pdf",
    size: Annotated[str, typer.Option(help="single or double column, slide, screen.")] = "double",
    out: Annotated[Path | None, typer.Option(help="The folder to write to. Default: beside each result.")] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Write each result's figure, its data as CSV and its provenance as JSON, side by side."""
    from analyses import load
    from analyses.report.export import check_export
    from analyses.report.export import export as write
    from interp.errors import InterpError

    files = [file for one in source for file in (sorted(one.glob("*.nc")) if one.is_dir() else [one])]
    if not files:
        raise InterpError(f"export: no results (.nc) in {', '.join(map(str, source))}.")
    kinds = [name.strip() for name in formats.split(",") if name.strip()]
    places = [(out or file.parent) / file.stem for file in files]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    check_export(places, formats=kinds, size=size, overwrite=force)
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(out or file.parent, []).append(file)
    console = Console(highlight=False)
    for folder, ours in by_folder.items():
        loaded = [(file.stem, load(file)) for file in ours]
        for one in write(loaded, folder, formats=kinds, size=size, overwrite=force):
            why = "" if one.size == size else f" (panels side by side: at {one.size} width)"
            console.print(
                f"{escape(one.name)}{why}: {escape(', '.join(path.name for path in one.files))}", soft_wrap=True
            )
        console.print(f"Written to {escape(str(folder))}", soft_wrap=True)
