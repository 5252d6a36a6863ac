"""What the README tells a reader to run, run as it stands: Python block after block, command after command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

from interp.loading import packaged

README = Path(__file__).parents[1] / "README.md"
COMMAND = re.compile(r"^(interp (?:.*\\\n)*.*?)  # (\d+) s$", flags=re.MULTILINE)
QUICK = 6
"""Commands that take more seconds than this run with the mark `slow` only."""
SMALLER = {
    "pairs[:12]": "pairs[:6]",
    "clean[:12]": "clean[:6]",
    "corrupt[:12]": "corrupt[:6]",
    "clean[:32]": "clean[:6]",
    "corrupt[:32]": "corrupt[:6]",
    "seeds=4, steps=64": "seeds=2, steps=24",
}
"""What the blocks do less of here; as written they run with the mark `slow`."""


def commands() -> list[tuple[str, int]]:
    """Every command of the README's list, with the seconds it is said to take."""
    section = README.read_text(encoding="utf-8").partition("## On the command line")[2].partition("\n## ")[0]
    listed = section.split("```")[1]
    found = [(command, int(seconds)) for command, seconds in COMMAND.findall(listed)]
    assert len(found) == len(re.findall(r"^interp ", listed, flags=re.MULTILINE)), "a command without its seconds"
    return found


def run_commands(folder: Path, chosen: list[str]) -> None:
    """Run commands one after another in a folder that holds the README, as a shell with `interp` on PATH would."""
    shutil.copy(README, folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in chosen:
        if "smollm2-135m" in command and packaged.find("smollm2-135m") is None:
            continue
        environment = os.environ | {"PATH": path}
        done = subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_quick_commands_run_in_their_order(tmp_path):
    run_commands(tmp_path, [command for command, seconds in commands() if seconds <= QUICK])
    assert {"trace.html", "patch.html", "lens.html"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_every_command_runs_in_its_order(tmp_path):
    run_commands(tmp_path, [command for command, _ in commands()])
    assert {"report.html", "cascade.html", "outside.html", "card.md"} <= {path.name for path in tmp_path.iterdir()}


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("smaller", [SMALLER, pytest.param({}, marks=pytest.mark.slow)], ids=["less", "as written"])
def test_every_block_runs(smaller, monkeypatch):
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    names: dict[str, object] = {}
    assert all(written in "".join(blocks()) for written in smaller)
    for block in blocks():
        for written, less in smaller.items():
            block = block.replace(written, less)
        exec(compile(block, str(README), "exec"), names)
    assert [figure.layout.title.text.split(" ·")[0] for figure in shown] == [
        "Patching the stream: clean values into the corrupt run",
        "Without heads 4.1, 4.3, 5.0, 5.1",
        "Coupled texts",
    ]
    changed = names["swept"]
    assert changed.values.shape[0] == 6
    assert (changed.values != changed.base).any(1).all()
