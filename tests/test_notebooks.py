"""Every notebook runs from top to bottom, and is committed with what it showed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from analyses.plots.browser import check_pictures
from interp.errors import InterpError

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NUMBERED = [f"{number:02d}" for number in range(15)]
FIGURE = "application/vnd.plotly.v1+json"
PRETRAINED = r"interp.load(\"smollm2-135m\")"
"""What a notebook says that cannot do without the pretrained model."""
SMALLER = {
    "05_the_block": {"steps=200": "steps=30", "range(3000)": "range(400)", "seed in range(3)": "seed in range(1)"},
    "08_logit_lens": {"sample(30": "sample(8"},
    "09_attention_patterns": {"count=6": "count=2"},
    "10_activation_patching": {
        "sample(40": "sample(6",
        "known[:16]": "known[:2]",
        "layers = range(30)": "layers = range(22, 24)",
        "controls=20": "controls=3",
    },
    "11_cascade_inside": {
        "sample(8": "sample(2",
        "n_directions=4": "n_directions=1",
        "sample(12": "sample(4",
        "clean[:4]": "clean[:1]",
    },
    "12_cascade_outside": {
        "sample(8, ": "sample(2, ",
        "steps=32": "steps=8",
        "sample(24": "sample(8",
        "seeds=4": "seeds=2",
        "steps=48": "steps=24",
        "horizon=24": "horizon=12",
        "lengths=(12, 24, 48)": "lengths=(6, 12, 24)",
        "clean[:12]": "clean[:6]",
        "20_000": "2_000",
    },
    "13_real_models": {"pairs=30": "pairs=8", "sample(3, ": "sample(1, ", "n_directions=4": "n_directions=1"},
    "14_circuits": {
        "sample(8": "sample(2",
        '["eap", "eap_ig_inputs", "relp", "atp_star"]': '["eap", "relp"]',
        "count=50)": "count=20)",
        "(500, 2_000, 8_000)": "(500, 600)",
        '"eap_ig_inputs", verify=20': '"eap", verify=2',
    },
}
"""What the slowest do less of here; as written they run with the mark `slow`."""
RUNS = [
    *((path, SMALLER.get(path.stem, {})) for path in NOTEBOOKS),
    *(pytest.param(path, {}, marks=pytest.mark.slow) for path in NOTEBOOKS if path.stem in SMALLER),
]
PICTURES = ("00_tour",)
"""Those that are drawn as pictures in every run, too, which takes seconds for each."""
WITHOUT_FIGURES = ("01_tokenization",)  # what is arithmetic


def pictures() -> bool:
    """Whether figures can be drawn as pictures here."""
    try:
        check_pictures()
    except InterpError:
        return False
    return True


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
    assert any("**Predict" in text for text in prose)
    assert re.fullmatch(r"## Exercises\n\n1\. .+\n2\. .+", prose[-1])
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    figures = [output.data for output in outputs if FIGURE in output.get("data", {})]
    assert all("image/png" in data for data in figures)  # a picture where nothing is run
    assert figures or path.stem in WITHOUT_FIGURES
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8"))


@pytest.fixture
def alone(monkeypatch):
    """No connection, and one thread: a kernel beside each test worker, and their threads would wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GPT2", raising=False)


def run(path: Path, smaller: dict[str, str]) -> nbformat.NotebookNode:
    """A notebook as it is after running, with some of its code made smaller."""
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for written, less in smaller.items():
        assert any(written in cell.source for cell in code)
        for cell in code:
            cell.source = cell.source.replace(written, less)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    return notebook


@pytest.mark.parametrize(
    ("path", "smaller"), RUNS, ids=lambda value: getattr(value, "stem", "less" if value else "whole")
)
def test_it_runs(path, smaller, alone, request, monkeypatch):
    """Also where there is no browser: its figures then have no pictures beside them. With the mark `slow` all have."""
    if path.stem not in PICTURES and request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("BROWSER_PATH", str(FOLDER / "no browser"))
    if PRETRAINED in path.read_text(encoding="utf-8"):
        request.getfixturevalue("smollm2_file")  # else it is skipped
    notebook = run(path, smaller)
    drawn = [
        output.data for cell in notebook.cells for output in cell.get("outputs", []) if FIGURE in output.get("data", {})
    ]
    assert drawn or path.stem in WITHOUT_FIGURES
    assert all(("image/png" in data) == pictures() for data in drawn)


@pytest.mark.slow
def test_real_models_that_cannot_be_had_are_left_out(alone, monkeypatch, tmp_path):
    """Each by the library's own error, which says how to get it; the rest goes on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (path,) = (path for path in NOTEBOOKS if path.stem == "13_real_models")
    notebook = run(path, SMALLER[path.stem])
    said = "".join(output.text for output in notebook.cells[1].outputs)
    assert "smollm2-135m is left out: " in said
    assert "interp get smollm2-135m" in said
    assert "hf download openai-community/gpt2" in said
    assert "hf download EleutherAI/pythia-160m" in said
    assert said.count("layers of") == 1
