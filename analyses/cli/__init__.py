"""The `interp` command, a file for each part. Heavy imports happen inside the commands, so that help appears at once."""

import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

# Each registers its commands.
from analyses.cli import (  # noqa: F401
    attention,
    attribution,
    card,
    cascade,
    circuit,
    explore,
    export,
    generate,
    get,
    lens,
    models,
    patch,
    report,
    survey,
    tasks,
    verify,
)
from analyses.cli.app import app


def main() -> None:
    """Run the command. Bad input is told in one message on standard error, with exit status 1.

    A process that is told to end (SIGTERM) tidies up as after Ctrl-C. What the terminal's encoding does not have is printed by its number.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except ValueError as error:
        from interp.errors import InterpError  # here, since it loads torch

        if not isinstance(error, InterpError):
            raise
        _tell(str(error))
    except OSError as error:
        if error.filename is None:  # of no file that the user named
            raise
        _tell(f"{str(error.filename)[:200]!r}: {error.strerror or error}.")
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(message: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(1)
