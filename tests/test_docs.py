"""The documentation's Python runs as it stands, page by page; the gallery has every kind of figure."""

import ast
import builtins
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from gallery import OTHERS
from gallery_code import SETUP, snippets
from site_hooks import captions, commands, told
from typer.main import get_command
from verdicts import KEPT, PAGE, cells, pasted, read

from analyses.cli import app
from analyses.plots.kinds import kinds

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if "```python" in path.read_text(encoding="utf-8") and path.stem != "gallery"
]


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


def test_beside_each_figure_of_the_gallery_stands_the_code_that_draws_it():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    exec(compile(SETUP, "gallery", "exec"), names)
    assert f"```python\n{SETUP.strip()}\n```" in page
    code = snippets()
    assert sorted(code) == sorted([*kinds(), *OTHERS])
    for name, snippet in code.items():
        assert f"(gallery/{name}.png)\n\n```python\n{snippet}\n```\n" in page
        tree = ast.parse(snippet)
        assert [type(one) for one in tree.body] == [ast.Expr]
        own = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        used = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)} - own
        assert used <= names.keys() | vars(builtins).keys(), name
    assert isinstance(eval(code["logit_lens"], names), go.Figure)
    assert isinstance(eval(code["plot_positions"], names), go.Figure)


def test_pictures_of_the_documentation_have_words():
    for path in sorted(DOCS.rglob("*.md")):
        for words in re.findall(r"!\[([^\]]*)\]\([^)]*\)", path.read_text(encoding="utf-8")):
            assert len(words) >= 12, path


def test_the_reference_of_the_command_line_has_every_command_and_option():
    page = commands()
    found = list(get_command(app).commands.items())
    assert len(found) > 10
    for name, command in found:
        part = page.split(f"## `interp {name}`")[1]
        for option in (word for parameter in command.params for word in parameter.opts if word.startswith("--")):
            assert option in part


def test_pictures_of_a_notebook_get_their_captions():
    figure = {
        "image/png": "",
        "application/vnd.plotly.v1+json": {"layout": {"meta": {"caption": "Growth &amp; <b>decay</b>"}}},
    }
    titled = {"image/png": "", "application/vnd.plotly.v1+json": {"layout": {"title": {"text": "A title<br>below"}}}}
    cells = [{"outputs": [{"data": {"text/plain": "1"}}, {"data": figure}]}, {}, {"outputs": [{"data": titled}]}]
    words = captions({"cells": cells})
    assert [" ".join(one.split()) for one in words] == ["Growth & decay", "A title below"]
    pictures = '<img alt="No description" class="" src="data:image/png;base64,x"/><img src="logo.svg"><img src="data:image/png;base64,y">'
    page = told(pictures, ['Growth & "decay"', "A title"])
    assert page.count("alt=") == 2
    assert 'alt="Growth &amp; &quot;decay&quot;"' in page
    assert 'alt="A title"' in page
    with pytest.raises(ValueError, match="1 pictures, its page 2"):
        told(pictures, ["one"])
