"""The documentation's Python runs as it stands, page by page; the gallery has every kind of figure."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from gallery import OTHERS
from verdicts import KEPT, PAGE, cells, pasted, read

from analyses.plots.kinds import kinds

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "```python" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])
def test_every_block_runs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: figure.to_dict())
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == path.read_text(encoding="utf-8").count("```python")
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)


def test_the_gallery_has_every_kind():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\(gallery/(\w+)\.png\)", page)
    assert sorted(shown) == sorted([*kinds(), *OTHERS])
    for kind in shown:
        assert (DOCS / "gallery" / f"{kind}.png").stat().st_size > 5000


def test_the_table_of_verdicts_is_what_is_kept():
    page, found = PAGE.read_text(encoding="utf-8"), read(KEPT)
    assert pasted(page, found) == page
    kept = {(one.course, one.offspring, str(one.ratio), one.source, one.prompts, one.clustered) for one in found}
    grid = {(one.course, one.offspring, str(one.ratio), one.source, one.prompts, one.clustered) for one in cells()}
    assert kept <= grid
