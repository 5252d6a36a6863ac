"""`interp lens`: The lenses, and training one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, Save, app, deliver, free, seed_option


@app.command()
def lens(
    prompt: Annotated[str | None, typer.Argument(help="The text. Default: one made for smalltown.")] = None,
    other: Annotated[str | None, typer.Option(help="A second text, drawn beside the first.")] = None,
    tuned: Annotated[bool, typer.Option("--tuned", help="Beside it, the tuned lens of an embedded model.")] = False,
    lens_file: Annotated[Path | None, typer.Option("--lens", help="Beside it, a lens of train-lens, or a published one's folder.")] = None,
    published: Annotated[str | None, typer.Option(help="Beside it, a tuned lens of the hub, such as gpt2.")] = None,
    parts: Annotated[bool, typer.Option("--parts", help="Also what each part of the model writes at the last position.")] = False,
    color: Annotated[str, typer.Option(help="probability, entropy, rank or kl.")] = "probability",
    follow: Annotated[list[str] | None, typer.Option(help="A token to follow, with its leading space; may be repeated.")] = None,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("lens.html"),
    save: Save = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Read the residual stream at each layer as a prediction."""
    import analyses
    from analyses.plots.lens import check_color
    from analyses.report.lens import check_lens, lens_figures, other_lens
    from analyses.report.tables import lens_rows
    from interp import load
    from interp.zoo import DEFAULT_PAIR

    if sum((tuned, lens_file is not None, published is not None)) > 1:
        raise typer.BadParameter("choose one of --tuned, --lens and --published")
    free(out, save, force=force)
    check_color(color)
    loaded = load(model)
    texts = [DEFAULT_PAIR.clean if prompt is None else prompt, *([] if other is None else [other])]
    check_lens(loaded, texts, follow or (), parts=parts)
    second = other_lens(loaded, tuned=tuned, path=lens_file, published=published)
    result = analyses.logit_lens(loaded, texts, candidates=follow or ())
    figures = lens_figures(loaded, result, texts, second=second, color=color, parts=parts)
    deliver(result, lens_rows(result), out, save, force, figures)


@app.command()
def train_lens(
    source: Annotated[Path, typer.Argument(help="A text file, or a .zarr folder of `interp collect`.", exists=True)],
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")] = Path("tuned_lens.safetensors"),
    steps: Annotated[int, typer.Option(help="At most this many batches.", min=1)] = 1000,
    rows: Annotated[int, typer.Option(help="Rows of a batch.", min=1)] = 8,
    length: Annotated[int, typer.Option(help="Tokens of a row.", min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(help="At the first step.")] = 3e-3,
    seed: Annotated[int, seed_option("Of the order of rows.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Train a tuned lens. Killed, the same command goes on from the last validation."""
    import analyses
    from analyses.activations import SUFFIX
    from analyses.lenses.tuning import check_training, text_of
    from analyses.report.tables import lens_training
    from interp import load

    free(out, force=force)
    check_training(steps=steps, rows=rows, learning_rate=learning_rate)
    if source.suffix != SUFFIX:
        text_of(source)  # whether it can be read
    trained = analyses.train_tuned_lens(
        load(model),
        source,
        out=out,
        steps=steps,
        rows=rows,
        length=length,
        learning_rate=learning_rate,
        seed=seed,
        overwrite=force,
        progress=True,
    )
    console = Console(highlight=False)
    console.print(lens_training(trained))
    console.print(f"Lens: {escape(str(out))}", soft_wrap=True)
