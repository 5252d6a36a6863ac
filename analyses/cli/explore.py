"""`interp explore`: The model in a browser, live."""

from typing import Annotated

import typer
from rich.console import Console

from analyses.cli.app import app


@app.command()
def explore(
    prompt: Annotated[str | None, typer.Argument(help="The clean text. Default: a prompt pair made for smalltown.")] = None,
    corrupt: Annotated[str, typer.Option(help="A text that differs in what matters.")] = "",
    model: Annotated[str, typer.Option(help="To begin with; the page offers every model that `interp models` lists.")] = "smalltown",
    host: Annotated[
        str, typer.Option(help="Where to listen; with another than this, other machines reach the page by its token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes one that is free.", min=0, max=65535)] = 8050,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in the browser.")] = True,
) -> None:  # fmt: skip
    """Open a page on which a model answers at once: click a cell and see what changes. Needs the extra `explore`; Ctrl-C ends it."""
    import webbrowser

    from analyses.explorer.serve import Server, check_installed
    from analyses.explorer.state import State
    from interp import load
    from interp.loading.listing import models
    from interp.zoo import DEFAULT_PAIR

    check_installed()
    if prompt is None and corrupt:
        raise typer.BadParameter("--corrupt is compared with PROMPT; give that too")
    here = [one.name for one in models() if one.config is not None and one.revision is None]
    given = {} if model in here else {model: load(model)}
    start = State(model=model, clean=DEFAULT_PAIR.clean, corrupt=DEFAULT_PAIR.corrupt)
    start = start if prompt is None else State(model=model, clean=prompt, corrupt=corrupt)
    server = Server(start, given=given, host=host, port=port)
    console = Console(highlight=False)
    console.print(f"The page: {server.address}", soft_wrap=True)
    if server.elsewhere:
        console.print(f"From another machine: {' or '.join(server.elsewhere)}", soft_wrap=True)
    console.print("Ctrl-C ends it.")
    if open_page:
        webbrowser.open(server.address)
    try:
        server.serve()
    except KeyboardInterrupt:
        console.print("Ended.")
