"""The `interp` command itself, and what its parts share."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import xarray as xr
    from plotly.graph_objects import Figure
    from rich.table import Table

    from analyses.report.section import Shown

app = typer.Typer(
    name="interp",
    help="Open up GPT-2-style transformers: read every value, patch, and measure whether a disturbance dies away or grows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

MODEL = "An embedded model, a checkpoint directory, or a hub model such as gpt2."
Model = Annotated[str, typer.Option(help=MODEL)]
Save = Annotated[Path | None, typer.Option(help="Also keep the numbers, as a netCDF file.")]
SaveAll = Annotated[Path | None, typer.Option(help="Also keep the numbers, as netCDF files in this folder.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]

LARGEST_SEED = 2**31 - 1


def seed_option(of: str, shown: str | bool = True) -> Any:
    """The option of a seed; `of` says what it decides, `shown` what is said of its default."""
    return typer.Option(help=of, min=0, max=LARGEST_SEED, show_default=shown)


def free(*paths: Path | None, force: bool) -> None:
    """Raise InterpError, before any work, where one of the files asked for could not be written, or two are one."""
    from interp.errors import InterpError
    from interp.files import check_free

    wanted = [path for path in paths if path is not None]
    for number, path in enumerate(wanted):
        check_free(path, overwrite=force, by="--force")
        if any(path.resolve() == other.resolve() for other in wanted[:number]):
            raise InterpError(f"{path} is asked for twice; give each file a name of its own.")


def free_folder(folder: Path | None, *, force: bool) -> None:
    """Raise InterpError, before any work, where results could not be saved in a folder, or would overwrite some."""
    from interp.errors import InterpError
    from interp.files import check_free

    if folder is None:
        return
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        found = "is a file" if there.exists() else "is a link that leads nowhere"
        raise InterpError(f"{folder} cannot be a folder for results: {there} {found}.")
    for path in sorted(folder.glob("*.nc")):
        check_free(path, overwrite=force, by="--force")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InterpError(f"{folder} cannot be written to; choose another folder.")


def refuse(why: str, **options: object) -> None:
    """A usage error for options that were given though they would not be heeded."""
    if told := [
        f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None and value is not False
    ]:
        raise typer.BadParameter(f"{', '.join(told)} {why}")


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

    write_figures(figures or [analyses.plot(result)], out, about={result.attrs["kind"]: result}, overwrite=force)
    if save is not None:
        analyses.save(result, save, overwrite=force)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Figure: {escape(str(out))}", soft_wrap=True)


def save_all(results: "Mapping[str, xr.Dataset]", folder: Path | None, force: bool) -> None:
    """Save each result under its name, if a folder was asked for."""
    import analyses
    from interp.files import make_folder

    if folder is not None:
        make_folder(folder)
        for name, result in results.items():
            analyses.save(result, folder / f"{name}.nc", overwrite=force)


def deliver_all(
    results: "Mapping[str, xr.Dataset]",
    figures: "Sequence[Shown]",
    table: "Table",
    out: Path,
    save: Path | None,
    force: bool,
) -> None:
    """Write the figures of several results with how to read them, save the numbers if asked, print a table."""
    from analyses.report.html import write_figures

    write_figures(figures, out, about=results, overwrite=force)
    save_all(results, save, force)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Figures: {escape(str(out))}", soft_wrap=True)
