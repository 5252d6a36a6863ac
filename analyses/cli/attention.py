"""`interp attention`: Patterns, the viewer, and what every head does."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, Save, app, free, refuse, seed_option


@app.command()
def attention(
    prompt: Annotated[str | None, typer.Argument(help="The text. Default: one made for smalltown.")] = None,
    sort: Annotated[str, typer.Option(help="The score that the table of heads is sorted by.")] = "induction",
    task: Annotated[str | None, typer.Option(help="A task (ioi, induction, ...) whose loss without each head is measured too.")] = None,
    pairs: Annotated[int | None, typer.Option(help="How many pairs of the task. Default: 20.", min=1)] = None,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the viewer and the figures to.")] = Path("attention.html"),
    save: Save = None,
    seed: Annotated[int, seed_option("Of the random sequences and of the pairs.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Look through every head's attention, from the head with the largest score on, and score what every head does."""
    import analyses
    from analyses.report.heads import check_sort, first_head, head_rows
    from analyses.report.html import write_figures
    from analyses.report.viewer import attention_viewer
    from interp import load
    from interp.zoo import DEFAULT_PAIR
    from interp.zoo import task as task_of

    if task is None:
        refuse("is for --task", pairs=pairs)
    free(out, save, force=force)
    check_sort(sort, with_task=task is not None)
    chosen = None if task is None else task_of(task)
    loaded = load(model)
    drawn = [] if chosen is None else chosen.sample(20 if pairs is None else pairs, seed, loaded.tokenizer)
    shown_pair = drawn[0] if drawn else DEFAULT_PAIR
    texts = {"clean": shown_pair.clean, "corrupt": shown_pair.corrupt} if prompt is None else {"prompt": prompt}
    for text in texts.values():
        loaded.to_tokens(text)  # whether it can be read
    asked: dict[str, Any] = {
        name: [getattr(pair, name) for pair in drawn] for name in ("clean", "corrupt", "answer", "wrong")
    }
    table = analyses.head_table(loaded, seed=seed, progress=True, **(asked if drawn else {}))
    shown = head_rows(table, sort)
    patterns = {name: analyses.attention_patterns(loaded, text) for name, text in texts.items()}
    layer, head = first_head(table, sort)
    viewer = attention_viewer(patterns, layer=layer, head=head)
    figures = [analyses.plot(table), analyses.plot(analyses.composition(loaded, seed=seed))]
    about = {"heads": table, **{f"attention, {name}": one for name, one in patterns.items()}}
    write_figures(figures, out, about=about, overwrite=force, above=viewer.html)
    if save is not None:
        analyses.save(table, save, overwrite=force)
    console = Console(highlight=False)
    console.print(shown)
    console.print(f"Viewer and figures: {escape(str(out))}", soft_wrap=True)
