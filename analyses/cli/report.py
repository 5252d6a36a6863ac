"""`interp report`: One HTML page about a prompt."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import MODEL, Force, SaveAll, app, free, free_folder, refuse, save_all, seed_option
from analyses.cli.parts import check_whole, goes_on, parts_of

if TYPE_CHECKING:
    from analyses.cascade.disturbances import Disturbance
    from interp.model import Transformer

PAIRS = 32
"""How many pairs of its task are followed outside where no prompt is given."""


@app.command()
def report(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to look into. Default: a prompt pair made for smalltown.")
    ] = None,
    corrupt: Annotated[
        str | None,
        typer.Option(help="A text of equal token length that differs in what matters; patched against PROMPT."),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")
    ] = None,
    wrong: Annotated[
        str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=MODEL, show_default="smalltown")] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    head: Annotated[
        str | None, typer.Option(help="LAYER.HEAD whose pattern is shown large. Default: chosen by its attention.")
    ] = None,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade", help="Also follow disturbances through the model's own words; takes a minute or more."
        ),
    ] = False,
    circuit: Annotated[
        bool,
        typer.Option("--circuit", help="Also patch every edge between the model's parts; minutes on a large model."),
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="A folder of saved results: the page is made from these, and no model is run.")
    ] = None,
    save: SaveAll = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print the page to PDF, through Chrome or Chromium.")] = False,
    seed: Annotated[int | None, seed_option("Of the injected directions and of the random-init twin.", "0")] = None,
    force: Force = False,
) -> None:
    """Write one HTML page about a prompt: predictions, logit lens, attention, patching, cascade.

    Finished parts are kept in OUT.parts until all is done: after a stop, or where something failed, the same command goes on from there.
    """
    asked = {"command": "report", **locals()}
    from analyses.plots.browser import browser
    from analyses.report import collect, summary, write
    from analyses.report.chosen import head_of
    from analyses.report.saved import load_folder, write_saved
    from interp import load
    from interp.zoo import DEFAULT_PAIR

    if results is not None:
        if prompt is not None:
            raise typer.BadParameter("--results takes no PROMPT: what is shown is saved already")
        refuse(
            "not with --results: what is shown is saved already",
            corrupt=corrupt, answer=answer, wrong=wrong, model=model, cascade=cascade, circuit=circuit, save=save, seed=seed,
        )  # fmt: skip
    if prompt is None:
        refuse("given without PROMPT", corrupt=corrupt, answer=answer, wrong=wrong)
    if head is not None and not re.fullmatch(r"[0-9]+\.[0-9]+", head):
        raise typer.BadParameter(f"--head is LAYER.HEAD, such as 3.1; got {head!r}")
    printed = out.with_suffix(".pdf") if pdf else None
    force = force or goes_on(asked, out, printed, save)
    free(out, printed, force=force)
    free_folder(save, force=force)
    if pdf:
        browser()
    if results is not None:
        write_saved(load_folder(results), out, head=head, overwrite=force)
        _tell(out, printed, force)
        return
    if prompt is not None and corrupt is None:
        refuse("compares two runs; give --corrupt too", circuit=circuit)
    own = prompt is not None
    if prompt is None:
        prompt, corrupt = DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt
        answer, wrong = DEFAULT_PAIR.answer, DEFAULT_PAIR.wrong
    loaded, seed = load("smalltown" if model is None else model), 0 if seed is None else seed
    shown = None if head is None else head_of(head, loaded.config.n_layers, loaded.config.n_heads)
    outside, clusters = _outside(loaded, prompt, corrupt, own, seed) if cascade else (None, None)
    with parts_of(out) as parts:
        found = collect(
            loaded, prompt, corrupt=corrupt, answer=answer, wrong=wrong, outside=outside, clusters=clusters, circuit=circuit,
            folder=parts, seed=seed, progress=True,
        )  # fmt: skip
        write(found, out, head=shown, overwrite=force)
        save_all(found, save, force)
        console = Console(highlight=False)
        console.print(f"[bold]{escape(loaded.name)}[/] on {escape(repr(prompt))}")
        for sentence in summary(found):
            console.print(f"  • {escape(sentence)}")
        _tell(out, printed, force)
        check_whole(found, asked, out, printed, save)


def _outside(
    model: "Transformer", prompt: str, corrupt: str | None, own: bool, seed: int
) -> "tuple[tuple[list[str], Disturbance], list[str | None] | None]":
    """The prompts whose cascade outside is followed, and their clusters: the user's own, else pairs of every task."""
    from analyses.cascade import Replace, Swap
    from interp.zoo import every_task

    if own:
        return ([prompt], Swap() if corrupt is None else Replace([corrupt])), None
    pairs = every_task(PAIRS, seed, model.tokenizer)
    texts = [pair.clean for pair in pairs]
    return (texts, Replace([pair.corrupt for pair in pairs])), [pair.cluster for pair in pairs]


def _tell(out: Path, printed: Path | None, force: bool) -> None:
    """Print the page if it is to be printed, and say where everything is."""
    from analyses.report.printing import print_page

    console = Console(highlight=False)
    console.print(f"Report: {escape(str(out))}", soft_wrap=True)
    if printed is not None:
        print_page(out, printed, overwrite=force)
        console.print(f"PDF: {escape(str(printed))}", soft_wrap=True)
