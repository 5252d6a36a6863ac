"""The `interp` command itself, and what its parts share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import xarray as xr
    from plotly.graph_objects import Figure
    from rich.table import Table

app = typer.Typer(
    name="interp",
    help="Open up GPT-2-style transformers: read every value, patch, and measure whether a disturbance dies away or grows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="An embedded model, a checkpoint directory, or a hub model such as gpt2.")]
Save = Annotated[Path | None, typer.Option(help="Also keep the numbers, as a netCDF file.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


def deliver(
    result: "xr.Dataset",
    table: "Table",
    out: Path,
    save: Path | None,
    force: bool,
    figures: "list[Figure] | None" = None,
) -> None:
    """Write a result's figures (default: the one of its kind) and, if asked, its numbers; print its table."""
    import analyses
    from analyses.report.html import write_figures

    write_figures(figures or [analyses.plot(result)], out, overwrite=force)
    if save is not None:
        analyses.save(result, save, overwrite=force)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Figure: {escape(str(out))}", soft_wrap=True)
