"""What each kind of figure draws, against what is kept in `figures.json`; and the same again from a saved result.

After a change that is meant, look at the figures (`python docs/gallery.py`) and keep the new ones:
`KEEP_FIGURES=1 pytest -n 0 tests/test_figures.py`.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from gallery import OTHERS

import analyses
from analyses.plots.kinds import kinds

KEPT = Path(__file__).parent / "figures.json"
PROCESSOR = {"cascade_precision": 0.1}
"""How far apart two processors may be where rounding itself is what is measured; h in bfloat16 was 3.5 % apart."""

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def words(text: Any) -> str:
    """A text without its numbers, which are measured."""
    return NUMBER.sub("#", str(text or ""))


def extent(values: Any) -> Any:
    """How many values, and the least and the largest; of texts, the first and last."""
    if values is None:
        return None
    flat = np.asarray(values).ravel()
    if flat.dtype.kind not in "fiub":
        try:
            flat = flat.astype(float)
        except (TypeError, ValueError):
            return [len(flat), words(flat[0]), words(flat[-1])] if len(flat) else [0]
    flat = flat[np.isfinite(flat.astype(float))]
    return [len(flat), float(flat.min()), float(flat.max())] if len(flat) else [0]


def drawn(figure: go.Figure) -> dict[str, Any]:
    layout = figure.layout
    axes = {
        name: {"title": words(layout[name].title.text), "type": layout[name].type, "range": extent(layout[name].range)}
        for name in sorted(layout.to_plotly_json())
        if re.fullmatch(r"[xy]axis\d*", name)
    }
    traces = [
        {"type": trace.type, "name": words(trace.name), **{key: extent(trace[key]) for key in "xyz" if key in trace}}
        for trace in figure.data
    ]
    return {
        "title": words(layout.title.text),
        "size": [layout.width, layout.height],
        "axes": axes,
        "traces": traces,
        "notes": sorted({words(note.text) for note in layout.annotations}),
    }


def same(found: Any, kept: Any, where: str, rel: float = 0.02) -> None:
    """Numbers to 2 %, as threads and processors add in other orders; everything else exactly."""
    if isinstance(kept, dict):
        assert found.keys() == kept.keys(), where
        for key in kept:
            same(found[key], kept[key], f"{where}.{key}", rel)
    elif isinstance(kept, list):
        assert len(found) == len(kept), where
        for number, (one, other) in enumerate(zip(found, kept, strict=True)):
            same(one, other, f"{where}[{number}]", rel)
    elif isinstance(kept, float):
        assert found == pytest.approx(kept, rel=rel, abs=1e-4), where
    else:
        assert found == kept, where


def held(name: str, figure: go.Figure) -> None:
    """A figure is as it was kept; or is kept now, if that was asked for."""
    found = json.loads(json.dumps(drawn(figure)))
    if not os.environ.get("KEEP_FIGURES"):
        same(found, json.loads(KEPT.read_text(encoding="utf-8"))[name], name, PROCESSOR.get(name, 0.02))
        return
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    lines = [
        f"{json.dumps(one)}: {json.dumps(what, ensure_ascii=False)}"
        for one, what in sorted((kept | {name: found}).items())
    ]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@pytest.mark.parametrize("kind", kinds())
def test_it_draws_what_it_drew_and_the_same_after_a_file(kind, measured, tmp_path):
    result = measured(kind)
    assert result.attrs["kind"] == kind
    figure = analyses.plot(result)
    analyses.save(result, tmp_path / "result.nc")
    assert analyses.plot(analyses.load(tmp_path / "result.nc")).to_json() == figure.to_json()
    held(kind, figure)


@pytest.mark.parametrize(
    "name", ["plot_circuit", "plot_head", "plot_lens_curves", "plot_lens_pair", "plot_positions", "plot_trajectories"]
)
def test_so_do_those_with_a_function_of_their_own(name, examples):
    assert tuple(examples.others()) == OTHERS
    held(name, examples.others()[name]())
