"""Every figure at real size: of a large model and of one layer, laid out wide and for one column, nothing lies upon anything else."""

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from conftest import random_tokens, tiny
from enlarged import HEADS, LAYERS, TOKENS, enlarged
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

import analyses
from analyses import cascade, plots
from analyses.plots.browser import browser
from analyses.plots.fit import fit, how_to_read, letters, nice_step, wrapped
from analyses.plots.kinds import kinds
from analyses.plots.labels import axis
from analyses.plots.sizes import fitting, sized
from analyses.plots.theme import INK, PALE, PALE_DIVERGING, TALLEST, WIDEST, look
from analyses.plots.theme import figure as empty

OVERLAP = (Path(__file__).parent / "overlap.js").read_text(encoding="utf-8")
MOST_TICKS = 260
"""Labels of ticks in a figure, of all its panels together."""

OWN = {
    "attention_patterns": [lambda result: plots.plot_head(result, layer=0, head=1)],
    "logit_lens": [
        lambda result: plots.plot_lens_pair(result, result),
        lambda result: plots.plot_lens_curves({str(number): result for number in range(8)}),
    ],
    "embedding_structure": [plots.plot_positions],
}
"""Figures that are drawn by a function of their own, by the kind of result that they show."""


def drawn(result):
    """Every figure of a result, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [analyses.plot(result), *(draw(result) for draw in OWN.get(result.attrs["kind"], []))]


def laid_out(page, figure: go.Figure) -> dict:
    """Faults of a figure as a browser draws it, and how many labels its axes have."""
    page.evaluate(
        "text => { const one = JSON.parse(text), graph = document.getElementById('graph'); Plotly.purge(graph);"
        " graph.style.width = `${one.layout.width}px`; graph.style.height = `${one.layout.height}px`;"
        " return Plotly.newPlot('graph', one.data, one.layout, {staticPlot: true}); }",
        figure.to_json(),
    )
    found: dict = page.evaluate(f"({OVERLAP})(document.getElementById('graph'))")
    return found


@pytest.fixture(scope="module")
def canvas():
    """A page that draws figures one after the other."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = launched.new_page()
        page.set_content("<div id='graph'></div>")
        page.add_script_tag(content=get_plotlyjs())
        yield page
        launched.close()


@pytest.mark.browser
def test_what_lies_upon_something_is_found(canvas):
    bad = empty("A title", 300, 200)
    bad.add_scatter(x=[0, 1], y=[0, 1])
    bad.update_xaxes(tickvals=[0, 0.05, 1], ticktext=["one label", "another", "third"], tickangle=0)
    assert laid_out(canvas, bad)["faults"] == ["one label | another"]
    fit(bad)
    assert laid_out(canvas, bad)["faults"] == []
    bad.add_annotation(text="far out", x=4, y=0.5, xref="paper", yref="paper", showarrow=False)
    assert "far out | cut off" in laid_out(canvas, bad)["faults"]


@pytest.mark.browser
@pytest.mark.parametrize("kind", kinds())
def test_figures_of_a_large_model_have_room_for_all_they_say(kind, canvas, measured):
    for wide in drawn(enlarged(measured(kind))):
        for figure in [wide] if fitting(wide, "single") == "double" else [wide, sized(wide, "single")]:
            assert figure.layout.width <= WIDEST
            assert figure.layout.height <= TALLEST
            found = laid_out(canvas, figure)
            assert found["faults"] == []
            assert found["ticks"] <= MOST_TICKS


def one_layer():
    """A result of each kind that measures layers, of a model of one layer."""
    model = tiny(config=replace(tiny().config, n_layers=1, init_std=0.4))
    tokens, other = random_tokens(6, 8, seed=1), random_tokens(6, 8, seed=2)
    asked = {"answer": [3] * 6, "wrong": [4] * 6}
    gain, null = (cascade.gain(one, tokens, n_directions=1) for one in (model, cascade.random_twin(model)))
    return [
        analyses.logit_lens(model, tokens), analyses.attention_patterns(model, tokens), analyses.residual_stream(model, tokens),
        analyses.component_lens(model, tokens), analyses.direct_logit_attribution(model, tokens, **asked),
        analyses.composition(model), analyses.detect_heads(model, count=1, length=6),
        analyses.activation_patching(model, tokens, other, **asked, smallest_gap=0.0),
        analyses.path_patching(model, tokens, other, **asked, smallest_gap=0.0),
        gain, cascade.mean_field(cascade.random_twin(model), tokens), cascade.internal_verdict(gain, null=null),
        analyses.head_table(model, count=1, length=6),
        cascade.light_cone(model, tokens, n_directions=1), cascade.ledger(model, tokens, other),
        cascade.lyapunov(model, tokens, k=4), cascade.damping(model, tokens, n_directions=1), cascade.participation(model, tokens[:1]),
    ]  # fmt: skip


@pytest.mark.browser
def test_figures_of_one_layer_draw_something_in_every_panel(canvas):
    for result in one_layer():
        for figure in drawn(result):
            kind = result.attrs["kind"]
            assert (kind, laid_out(canvas, figure)["faults"]) == (kind, [])
            assert (kind, empty_panels(figure)) == (kind, [])


def empty_panels(figure: go.Figure) -> list[str]:
    """Panels in which nothing is a number, and nothing is said."""
    values: dict[str, list[np.ndarray]] = {}
    for trace in figure.data:
        shown = trace.z if trace.type == "heatmap" else trace.y if trace.y is not None else trace.x
        there = [value for value in np.ravel(np.asarray(shown, dtype=object)) if value is not None and value == value]
        values.setdefault(trace.xaxis or "x", []).append(np.array(there, dtype=object))
    said = {note.xref.split()[0] for note in figure.layout.annotations if note.yref != "paper"}
    return [panel for panel, found in values.items() if not sum(map(len, found)) and panel not in said]


def test_the_shape_of_enlarged_results(measured):
    result = enlarged(measured("attention_patterns"))
    assert (result.sizes["layer"], result.sizes["head"], result.sizes["query"]) == (LAYERS, HEADS, TOKENS)
    assert json.loads(result.attrs["model_config"])["n_layers"] == LAYERS
    picture = analyses.plot(result)
    (trace,) = picture.data
    assert len(picture.to_json()) < 6_000_000
    assert (len(trace.x), len(trace.y)) == (HEADS * 25 - 1, LAYERS * 25 - 1)
    tile = np.array(trace.z)[:24, :24]
    pattern = result["pattern"][0, 0, 0].to_numpy()
    np.testing.assert_allclose(tile[5, 2], pattern[25:30, 10:15].max(), atol=1e-3)  # five by five tokens in each cell
    assert np.isnan(tile[2, 5])  # keys after the query
    np.testing.assert_allclose(np.array(trace.x)[[12, 37]], [0, 1], atol=0.03)  # in the middle of a head


def test_labels_are_thinned_to_the_room_and_those_in_bold_stay():
    shown = empty("title", 400, 300)
    words = [f"word {number}" for number in range(100)]
    words[37] = "<b>other</b>"
    shown.add_heatmap(z=np.zeros((2, 100)))
    shown.update_xaxes(tickvals=list(range(100)), ticktext=words, tickangle=-60)
    fit(shown)
    assert "<b>other</b>" in shown.layout.xaxis.ticktext
    assert 10 <= len(shown.layout.xaxis.ticktext) <= 30
    again = go.Figure(shown)
    fit(again)
    assert again.layout == shown.layout


def test_a_logarithmic_axis_has_ticks_within_a_decade():
    for low, high in ((3.1, 4.4), (2.0, 9.0), (1e-9, 1e3)):
        shown = empty("title", 400, 300)
        shown.add_scatter(x=[0, 1], y=[low, high])
        shown.update_yaxes(type="log", dtick=1)
        fit(shown)
        inside = [tick for tick in shown.layout.yaxis.tickvals if low * 0.8 <= tick <= high * 1.2]
        assert 1 <= len(inside) <= 8, (low, high)


def test_titles_are_wrapped_with_room_for_their_lines():
    long = "A title of very many words that no narrow figure could hold in a single line of its own"
    shown = go.Figure(
        layout={"title": {"text": f"{long}<br><sup>{long} <b>and</b> more</sup>"}, "width": 400, "height": 300}
    )
    before = shown.layout.height
    fit(shown)
    lines = letters(shown.layout.title.text)
    assert " ".join(lines) == f"{long} {long} and more"
    assert max(map(len, lines)) < 70
    assert shown.layout.height - before == pytest.approx(shown.layout.margin.t - 56)
    assert wrapped("short &lt;b&gt;", 200.0, 8.0) == ["short &lt;b&gt;"]


def test_steps_and_captions():
    assert [nice_step(one) for one in (0.2, 1.0, 1.5, 3.0, 6.0, 12.0, 60.0)] == [1, 1, 2, 5, 10, 20, 100]
    assert (
        how_to_read("One\n    two.\n\n    Bands are three.\n\n    Args:\n        x: y") == "One two. Bands are three."
    )
    tokens = axis(["<|a token that is very long indeed|>"])
    assert len(letters(tokens["ticktext"][0])[0]) == 16


def test_words_in_cells_have_contrast_and_curves_differ():
    def luminance(color):
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for scale in (PALE, PALE_DIVERGING):
        for (_, one), (_, other) in pairwise(scale):
            for share in np.linspace(0, 1, 11):
                mixed = [
                    round((1 - share) * int(one[at : at + 2], 16) + share * int(other[at : at + 2], 16))
                    for at in (1, 3, 5)
                ]
                between = "#" + "".join(f"{part:02x}" for part in mixed)
                assert (luminance(between) + 0.05) / (luminance(INK) + 0.05) >= 4.5
    looks = [(line["color"], line["dash"]) for line, _ in map(look, range(30))]
    assert len(set(looks)) == 30


def test_a_figure_of_several_prompts_says_which():
    model, tokens = tiny(dtype=torch.float32), random_tokens(3, 6)
    for result in (
        analyses.logit_lens(model, tokens),
        analyses.attention_patterns(model, tokens),
        analyses.component_lens(model, tokens),
    ):
        assert "prompt 2 of 0 to 2" in analyses.plot(result, prompt=2).layout.title.text
        assert "prompt" not in analyses.plot(result.isel(prompt=[0])).layout.title.text


def test_the_median_texts_are_shown(measured):
    result = measured("cascade_coupled")
    changed = np.sort(result["damage"].sum("time").to_numpy().ravel())
    title = analyses.plot(result).layout.title.text
    assert f"{changed[len(changed) // 2]} changed token" in title
    assert f"the median of {len(changed)} runs" in title
    assert "prompt 1, seed 2:" in analyses.plot(result, prompt=1, seed=2).layout.title.text


def test_a_long_prompt_is_shown_in_part():
    model = tiny(dtype=torch.float32, config=replace(tiny().config, n_ctx=40))
    result = analyses.logit_lens(model, random_tokens(1, 40))
    assert "positions 24 to 39 of 40" in analyses.plot(result).layout.title.text
    begin = analyses.plot(result, start=0)
    assert "positions 0 to 15 of 40" in begin.layout.title.text
    np.testing.assert_allclose(begin.data[0].z, result["top_probability"][0, :, :16, 0])
