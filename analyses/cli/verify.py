"""`interp verify`: Is this the model that it is taken for?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, app, free

if TYPE_CHECKING:
    from analyses.verification import Check


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="A checkpoint directory, or a hub model such as gpt2.")] = "gpt2",
    reference: Annotated[str, typer.Option(help="Published figures that come with the package (gpt2), or a file of them.")] = "gpt2",
    write: Annotated[Path | None, typer.Option(help="Compare with nothing: measure this model, and write a reference file.")] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Check a model against published figures: logit differences, attribution and patching by head, known heads, a prediction.

    The exit status is 0 if every figure is within its tolerance, else 1.
    """
    from analyses.verification import read_reference, reference_of, write_reference
    from analyses.verification import verify as verified
    from interp import load
    from interp.zoo import task

    console = Console(highlight=False)
    if write is not None:
        free(write, force=force)
        loaded = load(model)
        pairs = task("ioi").sample(4, 0, loaded.tokenizer)
        prompts = [row for p in pairs for row in ((p.clean, p.answer, p.wrong), (p.corrupt, p.wrong, p.answer))]
        write_reference(reference_of(loaded, prompts), write, overwrite=force)
        console.print(f"Reference: {escape(str(write))}", soft_wrap=True)
        return
    known = read_reference(reference)
    checks = verified(load(model), known)
    _print(console, model, known["source"], checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _print(console: Console, model: str, source: str, checks: "list[Check]") -> None:
    from rich.table import Table

    table = Table(
        title=f"{escape(model)} against its reference",
        title_justify="left",
        caption=escape(source),
        caption_justify="left",
    )
    table.add_column("figure")
    for column in ("reference", "found", "difference", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for check in checks:
        passed = "[green]pass[/]" if check.passed else "[bold red]FAIL[/]"
        numbers = (f"{check.reference:.4f}", f"{check.found:.4f}", f"{check.difference:+.4f}", f"±{check.tolerance:g}")
        table.add_row(escape(check.name), *numbers, passed)
    console.print(table)
    failed = sum(not check.passed for check in checks)
    console.print(f"{len(checks) - failed} of {len(checks)} figures agree.")
