"""Every notebook runs from top to bottom, and is committed with what it showed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from analyses.plots.browser import renderer

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NUMBERED = [f"{number:02d}" for number in range(14)]
FIGURE = "application/vnd.plotly.v1+json"
WITHOUT_FIGURES = ("01_tokenization", "13_gpt2")  # what is arithmetic, or needs weights that are not there


def test_all_are_there_and_small():
    assert [path.name[:2] for path in NOTEBOOKS] == NUMBERED
    assert sum(path.stat().st_size for path in NOTEBOOKS) <= 10_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_it_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, 4)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.match(r"# \w", prose[0])
    assert not any(
        line.startswith("# ") for text in prose for line in text.split("\n")[1:]
    )  # one title, no comment signs
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    figures = [output.data for output in outputs if FIGURE in output.get("data", {})]
    assert all("image/png" in data for data in figures)  # a picture where nothing is run
    assert figures or path.stem in WITHOUT_FIGURES
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_it_runs(path, monkeypatch):
    """Also where there is no browser: its figures then have no pictures beside them."""
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # a kernel beside each test worker: their threads would wait for each other
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GPT2", raising=False)
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    drawn = [
        output.data for cell in notebook.cells for output in cell.get("outputs", []) if FIGURE in output.get("data", {})
    ]
    assert drawn or path.stem in WITHOUT_FIGURES
    assert all(("image/png" in data) == ("png" in renderer()) for data in drawn)
