"""`interp survey` and `interp collect`: Data sets."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, app, free


@app.command()
def survey(
    pairs: Annotated[str, typer.Argument(help="A .parquet, .csv or .jsonl file, a directory of `datasets`, or task:NAME:COUNT.")],
    analysis: Annotated[str, typer.Option(help="Of `analyses`, such as activation_patching, logit_lens or cascade.gain.")],
    out: Annotated[Path, typer.Option(help="The folder of the tables.")],
    model: Model = "smalltown",
    settings: Annotated[list[str] | None, typer.Option("--set", help="An option of the analysis, as NAME=VALUE; may be repeated.")] = None,
    workers: Annotated[int | None, typer.Option(help="So many workers of Ray. Default: this process.", min=1)] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster that runs. Default: one is started here.")] = None,
    shard_rows: Annotated[int | None, typer.Option(help="Rows of a shard. Default: 1000.", min=1)] = None,
    most_rejected: Annotated[float | None, typer.Option(
        help="Share of rows put aside beyond which it stops. Default: 0.1.", min=0, max=1
    )] = None,
    by: Annotated[list[str] | None, typer.Option(help="A label by which the summary is made; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option(help="Also keep the summary, as a netCDF file.")] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Ask one analysis of every row of a data set. Killed, the same command goes on from the last shard."""
    import analyses
    from analyses.report.tables import survey_rows

    free(save, force=force)
    given: dict[str, Any] = {"shard_rows": shard_rows, "most_rejected": most_rejected}
    manifest = analyses.survey(
        model,
        pairs,
        analysis,
        out=out,
        options=_settings(settings or []),
        workers=workers,
        address=address,
        progress=True,
        **{name: value for name, value in given.items() if value is not None},
    )
    console = Console(highlight=False)
    console.print(survey_rows(manifest))
    if save is not None:
        analyses.save(analyses.summarise(out, by=by or None), save, overwrite=force)
        console.print(f"Summary: {escape(str(save))}", soft_wrap=True)
    console.print(f"Tables: {escape(str(out))}", soft_wrap=True)


def _settings(given: list[str]) -> dict[str, Any]:
    """Options by name: JSON values, or else texts."""
    from interp.strict_json import parse

    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--set {one}: write NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"--set {name} is given twice")
        try:
            found[name] = parse(value)
        except ValueError:
            found[name] = value
    return found


@app.command()
def collect(
    texts: Annotated[Path, typer.Argument(help="A text file (.txt), or a data set with a column text, prompt or clean.")],
    names: Annotated[list[str] | None, typer.Option(help="Hook points. Default: blocks.*.hook_resid_post; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="The Zarr folder to write.")] = Path("acts.zarr"),
    model: Model = "smalltown",
    positions: Annotated[list[int] | None, typer.Option(
        "--position", help="Only this one of each prompt, negative from its end; may be repeated."
    )] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a row of a text file. Default: 128.", min=2)] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, float32 or float64. Default: the model's.")] = None,
    most_rejected: Annotated[float, typer.Option(help="Share of rows put aside beyond which it stops.", min=0, max=1)] = 0.1,
) -> None:  # fmt: skip
    """Keep activations of a data set, for probes, tuned lenses and SAEs. Killed, the same command goes on."""
    import analyses
    from interp import load

    analyses.collect(
        load(model), texts, names=names or "blocks.*.hook_resid_post", out=out, positions=positions, length=length, dtype=dtype,
        most_rejected=most_rejected, progress=True,
    )  # fmt: skip
    Console(highlight=False).print(f"Activations: {escape(str(out))}", soft_wrap=True)
