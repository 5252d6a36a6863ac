"""What a page carries of plotly.js, and pages of one figure."""

import base64
import gzip
import re

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs, get_plotlyjs_version
from test_report import fits, watch

import analyses
from analyses.plots.kinds import kinds
from analyses.report import bundle
from analyses.report.alternative import alternative
from analyses.report.bundle import CARTESIAN, bundled, packed
from analyses.report.html import write_figures
from analyses.report.section import Shown


def unpacked(figures):
    return gzip.decompress(base64.b64decode(packed(figures))).decode()


def test_the_bundle_is_that_of_plotlys_own_version(monkeypatch):
    assert get_plotlyjs_version() == bundle.VERSION
    assert f"plotly.js (cartesian - minified) v{bundle.VERSION}" in gzip.decompress(bundled())[:200].decode()
    assert len(bundled()) < 500_000
    monkeypatch.setattr(bundle, "VERSION", "0.0.0")
    assert unpacked([go.Figure(go.Bar(x=[1], y=[1]))]) == get_plotlyjs()


def test_what_it_cannot_draw_gets_the_whole():
    assert "cartesian" in unpacked([go.Figure(go.Heatmap(z=[[1]])), go.Figure(go.Bar(x=[1], y=[1]))])[:100]
    assert unpacked([go.Figure(go.Bar(x=[1], y=[1])), go.Figure(go.Surface(z=[[1]]))]) == get_plotlyjs()
    listed = gzip.decompress(bundled()).decode()
    for kind in CARTESIAN:
        assert f'"{kind}"' in listed, kind


@pytest.mark.parametrize("kind", kinds())
def test_every_figure_is_drawn_by_it_and_told_in_words(measured, kind):
    figure = analyses.plot(measured(kind))
    assert {trace.type for trace in figure.data} <= CARTESIAN
    words = alternative(figure)
    title = re.sub("<.*?>", " ", figure.layout.title.text.split("<br>")[0])
    assert words.startswith(" ".join(title.split()).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert not re.search("<(br|sup|b)>", words)
    assert len(words) > len(title) + 10


def test_a_figure_in_words():
    figure = go.Figure(
        go.Heatmap(z=[[0.25, None], [1, 2]]), layout={"title": {"text": "A &lt;b&gt;<br><sup>two</sup>"}}
    )
    figure.update_xaxes(title="head")
    figure.update_yaxes(title="layer")
    assert alternative(figure) == "A <b>. two. Across: head, upward: layer. 1 × heatmap, values from 0.25 to 2."
    assert alternative(go.Figure(go.Scatter(y=[1], name="one", showlegend=True))) == "1 × lines or dots, named one."


@pytest.mark.browser
def test_a_page_of_one_figure_is_light_and_says_where_it_is_from(measured, page, tmp_path):
    result = measured("logit_lens")
    write_figures(
        [Shown("lens", analyses.plot(result), "How to read it.")], tmp_path / "one.html", about={"lens": result}
    )
    assert (tmp_path / "one.html").stat().st_size < 900_000
    seen = watch(page)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto((tmp_path / "one.html").as_uri())
    page.locator("#lens .main-svg").first.wait_for()
    assert page.locator("h1").inner_text().startswith("Logit lens")
    assert page.locator("figure#lens figcaption").inner_text() == "How to read it."
    assert result.attrs["weight_hash"] in page.inner_text("main")
    assert fits(page)
    assert seen == []
    write_figures([], tmp_path / "none.html")
    assert 'id="plotly"' not in (tmp_path / "none.html").read_text()
