"""Where there is a browser, where there is none, and where one does not start."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyses.plots import browser as module
from analyses.plots.browser import browser, check_pictures, renderer
from interp.errors import InterpError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Sets BROWSER_PATH to a program that does what is asked."""

    def name(script: str) -> Path:
        path = tmp_path / f"chrome-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("BROWSER_PATH", str(path))
        return path

    return name


def test_one_that_starts_draws_pictures_and_stays_open(named, monkeypatch):
    opened = []
    monkeypatch.setattr(module, "keep_open", lambda: opened.append(True))
    path = named("echo Chromium 140.0")
    assert browser() == str(path)
    assert renderer() == "plotly_mimetype+png"
    assert opened == [True]


@pytest.mark.browser
def test_one_browser_draws_all_figures_of_a_process():
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import choreographer, plotly.graph_objects as go\n"
        "from analyses.plots.browser import keep_open\n"
        "opened, start = [], choreographer.Browser.open\n"
        "async def count(self): opened.append(self); return await start(self)\n"
        "choreographer.Browser.open = count\n"
        "keep_open(); keep_open()\n"
        "pictures = [go.Figure(go.Scatter(y=[1, n])).to_image('png') for n in (2, -3)]\n"
        "print(len(opened), [picture[1:4] for picture in pictures], len(set(pictures)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.stderr) == ("1 [b'PNG', b'PNG'] 2", "")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error while loading shared libraries: libnss3.so' >&2; exit 127", r"does not start: .*libnss3\.so"),
        ("exit 3", "does not start: exit status 3"),
    ],
)
def test_one_that_does_not_start_is_none(named, script, said):
    named(script)
    with pytest.raises(InterpError, match=said):
        browser()
    assert renderer() == "plotly_mimetype"


def test_a_machine_without_one(monkeypatch, tmp_path):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(
        InterpError, match=r"found at BROWSER_PATH=.*none.*make browser.*apt install chromium.*plotly_get_chrome"
    ):
        check_pictures()
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path))  # a folder
    assert renderer() == "plotly_mimetype"
    monkeypatch.delenv("BROWSER_PATH")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "choreographer" else object())
    with pytest.raises(InterpError, match="was found on this machine"):
        browser()


def test_without_kaleido_the_message_installs_it_anywhere(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InterpError, match=r"python -m pip install 'kaleido>=1'"):
        check_pictures()
    assert renderer() == "plotly_mimetype"


@pytest.mark.parametrize(("required", "status", "said"), [("", 0, r"7 skipped"), ("1", 1, r"7 errors")])
def test_the_suite_skips_what_needs_one_and_counts_it(tmp_path, required, status, said):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"BROWSER_PATH": str(tmp_path / "none"), "BROWSER_REQUIRED": required}
    options = [
        "-o",
        "addopts=",
        "-p",
        "no:dash",
        "-p",
        "no:cacheprovider",
        "-m",
        "browser",
    ]  # types are checked by the run around this one
    command = [sys.executable, "-m", "pytest", *options, "tests/test_viewer.py"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout
    assert re.search(said, done.stdout)
    counted = (
        "7 tests that need a browser were skipped, and notebooks drew no pictures: no Chrome or Chromium was found"
    )
    assert (counted in done.stdout) == (status == 0)
