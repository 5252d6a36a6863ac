"""`interp tasks`: What a model can do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Model, app, seed_option

if TYPE_CHECKING:
    from rich.table import Table

    from interp.zoo.evaluation import Score


@app.command()
def tasks(
    names: Annotated[list[str] | None, typer.Argument(help="Which tasks. Default: all.")] = None,
    model: Model = "smalltown",
    pairs: Annotated[int, typer.Option(help="How many pairs of each.", min=1)] = 100,
    seed: Annotated[int, seed_option("Of the pairs that are drawn.")] = 0,
    unsuited: Annotated[bool, typer.Option("--unsuited", help="Name everything that made pairs unsuitable, not a few examples.")] = False,
) -> None:  # fmt: skip
    """Measure a model on the tasks: how often a right answer leads all tokens, and how often it is above the wrong one.

    Only pairs that suit the model's tokenizer are asked; why others did not is said below the table.
    """
    from interp import load
    from interp.progress import progress_bar
    from interp.zoo import TASKS, task
    from interp.zoo.evaluation import score

    chosen = [task(name) for name in names or TASKS]
    loaded = load(model)
    scores = {}
    with progress_bar(True) as bar:
        for one in bar.track(chosen, description="Asking"):
            scores[one.name] = score(loaded, one, pairs, seed)
    console = Console(highlight=False)
    console.print(_table(loaded.name, scores))
    console.print(
        "first: a right answer leads all tokens; above: it is above the wrong one. 95 % intervals (Wilson).\n",
        soft_wrap=True,
    )
    for name, found in scores.items():
        console.print(f"{name}: {escape(TASKS[name].description)}", soft_wrap=True)
        if found.drawn.unsuited:
            why = escape(found.drawn.why(None if unsuited else 4))
            console.print(
                f"  {len(found.drawn.pairs)} of {found.drawn.tried} pairs suit this tokenizer; not {why}.",
                soft_wrap=True,
            )


def _table(model: str, scores: "dict[str, Score]") -> "Table":
    from rich.table import Table

    table = Table("task", title=escape(model), title_justify="left")
    for column in ("pairs", "first", "above"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in scores.items():
        table.add_row(name, str(len(found.drawn.pairs)), share(found.first), share(found.above))
    return table


def share(hits: Sequence[bool]) -> str:
    """A share with its interval."""
    from analyses.intervals import wilson

    if not hits:
        return "-"
    low, high = wilson(sum(hits), len(hits))
    return f"{sum(hits) / len(hits):.3f} ({low:.3f} to {high:.3f})"
