"""`interp card`: A page on a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, app, free


@app.command()
def card(
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path("card.md"),
    pairs: Annotated[int, typer.Option(help="How many pairs of each task to ask.", min=1)] = 60,
    force: Force = False,
) -> None:
    """Measure a model and write its card: what it can do, its known heads, what it cannot do. Takes a minute or more."""
    from analyses.card import card as written
    from analyses.card import measure
    from interp import load
    from interp.files import write_whole

    free(out, force=force)
    loaded = load(model)
    text = written(loaded, measure(loaded, pairs=pairs, progress=True))
    write_whole(out, lambda path: path.write_text(text, encoding="utf-8"), overwrite=force)
    Console(highlight=False).print(f"Card: {escape(str(out))}", soft_wrap=True)
