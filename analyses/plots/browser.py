"""The browser that draws figures as pictures and prints pages."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from plotly.io import defaults

from interp.errors import InterpError

NAMES = ("chrome", "google-chrome", "google-chrome-stable", "chromium", "chromium-browser")
PATIENCE = 20.0
"""Seconds in which a browser must say its version."""

GET_ONE = (
    "Get one: `make browser` in a clone; on Debian or Ubuntu `apt install chromium`; elsewhere Chrome itself, or "
    "`plotly_get_chrome`, which comes with plotly and fetches one. Or set BROWSER_PATH to yours."
)
KALEIDO = "python -m pip install 'kaleido>=1'"

NO_MARGINS = "document.head.insertAdjacentHTML('beforeend', '<style>@page { margin: 0 }</style>');"
"""Run in kaleido's page. It prints PDF with margins that it takes from the figure, which is then scaled to 0.95 and clipped."""


def browser() -> str:
    """The Chrome or Chromium of this machine: BROWSER_PATH where it is set, else what kaleido would take.

    Raises:
        InterpError: there is none, or it does not start; with how to get one.
    """
    named = os.environ.get("BROWSER_PATH")
    path = (named if os.access(named, os.X_OK) and Path(named).is_file() else None) if named else _installed()
    if path is None:
        where = f"at BROWSER_PATH={named}" if named else "on this machine"
        raise InterpError(f"no Chrome or Chromium was found {where}. {GET_ONE}")
    if (fault := _fault(path)) is not None:
        raise InterpError(f"{path} does not start: {fault}. {GET_ONE}")
    return path


def check_pictures() -> None:
    """Raise InterpError where figures cannot be drawn as PNG, SVG or PDF here, for want of kaleido or of a browser."""
    if find_spec("kaleido") is None:
        raise InterpError(f"static figures are drawn by kaleido, which is not installed: {KALEIDO}.")
    browser()


def renderer() -> str:
    """The renderer for a notebook's `plotly.io.renderers.default`: interactive, with a picture beside where one can be drawn here.

    Pictures show where nothing is run, such as on a page that lists notebooks; without a browser a figure is interactive only.
    One browser draws them all and stays open until the kernel ends (`keep_open`).
    """
    try:
        check_pictures()
    except InterpError:
        return "plotly_mimetype"
    keep_open()
    return "plotly_mimetype+png"


def keep_open() -> None:
    """Let one browser draw every figure of this process from now on, instead of one for each: a tenth of the time where there are many."""
    import kaleido

    options = {} if defaults.plotlyjs is None else {"plotlyjs": defaults.plotlyjs}
    kaleido.start_sync_server(silence_warnings=True, mathjax=_script(_kept()), **options)
    warnings.filterwarnings("ignore", "The kopts argument is ignored", UserWarning)  # they are these


@contextmanager
def whole_pages() -> Iterator[None]:
    """Have kaleido print figures to the edge of their pages, and fetch nothing."""
    with tempfile.TemporaryDirectory() as folder:
        before, defaults.mathjax = defaults.mathjax, _script(Path(folder))
        try:
            yield
        finally:
            defaults.mathjax = before


def _script(folder: Path) -> str:
    """What kaleido loads in the place of MathJax, for which our figures have no use: where none is named it takes one from the net."""
    path = folder / "no_mathjax.js"
    path.write_text(NO_MARGINS, encoding="utf-8")
    return path.as_uri()


@cache
def _kept() -> Path:
    """A folder that is there as long as the browser that stays open."""
    folder = tempfile.TemporaryDirectory(prefix="criticalpile-page-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _installed() -> str | None:
    if find_spec("choreographer") is not None:  # kaleido's own: it also knows the one that it fetched
        from choreographer.browsers.chromium import Chromium

        return Chromium.find_browser(skip_local=False)
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@cache
def _fault(path: str) -> str | None:
    """Why a browser does not start, None where it does: one that was fetched may lack a system's libraries."""
    if sys.platform == "win32":
        return None  # where asking for the version opens a window
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = asked.stderr.strip().splitlines()
    return None if asked.returncode == 0 else (said[-1] if said else f"exit status {asked.returncode}")
