"""A page on paper, through a browser."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from interp.errors import InterpError
from interp.files import write_whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 180.0
"""Seconds that a browser may take."""


def browser() -> str:
    """The Chrome or Chromium of this machine. Raises InterpError where there is none."""
    for name in (os.environ.get("BROWSER_PATH", ""), *BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    raise InterpError(
        "printing to PDF needs Chrome or Chromium, and none was found. Install one (on Debian or Ubuntu: apt install chromium), or set "
        "BROWSER_PATH to it. Or open the HTML page in any browser and print it there."
    )


def print_page(page: Path, path: Path, *, overwrite: bool = False) -> None:
    """Print an HTML file to PDF, whole or not at all; no figure is cut in two. Raises InterpError where the browser fails."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "page.pdf"
        command = [
            browser(),
            "--headless",
            "--disable-gpu",
            f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer",
        ]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # which root cannot have
        command += ["--virtual-time-budget=20000", f"--print-to-pdf={made}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0 or not made.exists():
            raise InterpError(f"{command[0]} could not print {page}: {done.stderr.strip()[-300:] or 'no reason given'}")
        write_whole(path, lambda temporary: shutil.copyfile(made, temporary), overwrite=overwrite)
