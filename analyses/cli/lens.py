"""`interp lens`: The lenses, and training one."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, Save, app, deliver, free, refuse, seed_option

TOKENS = 2**17
"""What a model writes to train on."""


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
    source: Annotated[Path | None, typer.Argument(help="A text file, or a .zarr folder of `interp collect`.", exists=True)] = None,
    own_words: Annotated[bool, typer.Option("--own-words", help="In place of a file: text that the model writes itself.")] = False,
    tokens: Annotated[int | None, typer.Option(help="How much it writes, in whole rows.  [default: 131072]", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="At which it writes; positive.  [default: 1.0]")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="A text file on which both lenses are then measured.", exists=True)] = None,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")] = Path("tuned_lens.safetensors"),
    steps: Annotated[int, typer.Option(help="At most this many batches.", min=1)] = 1000,
    rows: Annotated[int, typer.Option(help="Rows of a batch.", min=1)] = 8,
    length: Annotated[int, typer.Option(help="Tokens of a row.", min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(help="At the first step.")] = 3e-3,
    seed: Annotated[int, seed_option("Of the order of rows, and of its own words.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Train a tuned lens. Killed, the same command goes on from the last validation, and from the last batch of its own words.

    With --own-words both lenses are measured on 32 rows more that the model writes afterwards; with --evaluate, on up to 32 rows of that
    text, spread over it. Rows that hold a run of tokens that was trained on, or that chose the best translators, are left out.
    """
    import analyses
    from analyses.activations import SUFFIX
    from analyses.lenses.tuning import check_training, text_of, training_rows
    from analyses.lenses.writing import check_own_words
    from analyses.report.lens import EXAMINED, held_out_rows, unseen_rows
    from analyses.report.tables import lens_training
    from interp import load

    if own_words == (source is not None):
        raise typer.BadParameter("give either a text file to train on, or --own-words.")
    if not own_words:
        refuse("is for --own-words.", tokens=tokens, temperature=temperature)
    count = -(-(TOKENS if tokens is None else tokens) // length)
    warmth = 1.0 if temperature is None else temperature
    words = out.with_name(out.name + ".words")
    free(out, force=force)
    check_training(steps=steps, rows=rows, learning_rate=learning_rate)
    check_own_words(temperature=warmth)
    if own_words and count < 2:
        raise typer.BadParameter(
            f"--tokens {tokens} is one row of {length}; one to train on and one kept out are the least."
        )
    if source is not None and source.suffix != SUFFIX:
        text_of(source)  # whether it can be read
    if evaluate is not None:
        text_of(evaluate)
    loaded = load(model)
    examined = {} if evaluate is None else {evaluate.name: held_out_rows(loaded, evaluate, length)}
    material: Any = source
    if own_words:
        material = analyses.own_words(
            loaded, rows=count, length=length, temperature=warmth, seed=seed, keep=words, progress=True
        )
    seen = training_rows(loaded, material, length)
    examined = {name: unseen_rows(rows_of_it, seen) for name, rows_of_it in examined.items()}
    trained = analyses.train_tuned_lens(
        loaded,
        material,
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
    for name, held_out in examined.items():
        _compare(console, loaded, trained, name, held_out)
    if own_words:
        words.unlink(missing_ok=True)
        new = analyses.own_words(loaded, rows=EXAMINED, length=length, temperature=warmth, seed=seed + 1, progress=True)
        _compare(console, loaded, trained, "its own words", unseen_rows(new.tokens, seen))


def _compare(console: Console, model: Any, lens: Any, name: str, rows: Any) -> None:
    """Print both lenses on rows that the tuned one has not seen."""
    from analyses import compare_lenses
    from analyses.report.tables import lens_comparison

    said = f"{name}, {len(rows)} rows that the lens has not seen"
    console.print(lens_comparison(compare_lenses(model, rows, lens=lens), said))
