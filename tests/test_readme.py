"""The README's Python, run as it stands, one block after the other."""

import re
from pathlib import Path

import plotly.graph_objects as go

README = Path(__file__).parents[1] / "README.md"


def test_every_block_runs(monkeypatch):
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) >= 3
    assert [figure.layout.title.text.split(" ·")[0] for figure in shown] == [
        "Patching the stream: clean values into the corrupt run",
        "Without heads 2.3, 3.2, 4.0, 4.1, 4.3, 5.0",
        "Coupled texts",
    ]
    changed = names["swept"]
    assert changed.values.shape[0] == 6
    assert (changed.values != changed.base).any(1).all()
