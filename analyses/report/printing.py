"""A page on paper, through a browser."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from analyses.plots.browser import browser
from interp.errors import InterpError
from interp.files import write_whole

PATIENCE = 180.0
"""Seconds that a browser may take."""


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
        command += ["--virtual-time-budget=20000", f"--print-to-pdf={made}", f"{page.resolve().as_uri()}#print"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0 or not made.exists():
            raise InterpError(f"{command[0]} could not print {page}: {done.stderr.strip()[-300:] or 'no reason given'}")
        write_whole(path, lambda temporary: shutil.copyfile(made, temporary), overwrite=overwrite)
