"""What the figures of circuits draw."""

import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from conftest import TINY, random_tokens, tiny

import analyses
from analyses import Circuit
from analyses.circuits.circuit import graph
from analyses.circuits.edges import Shape
from analyses.plots import circuit_methods, plot_circuit
from analyses.plots.circuit import _scores
from analyses.plots.estimators import MOST, looks
from interp.errors import InterpError, ResultError

SHAPE = Shape(3, 2, 2)
SCORES = {"input->a0.h0<v>": 2.0, "a0.h0->a1.h1<q>": -0.5, "a1.h1->m1": 0.1, "a0.h0->a2.h0<k>": 0.02, "m1->logits": 1.0}


def prompts(pairs: int) -> dict:
    return {
        "clean": random_tokens(pairs, 6),
        "corrupt": random_tokens(pairs, 6, seed=5),
        "answer": [3] * pairs,
        "wrong": [4] * pairs,
    }


@pytest.fixture(scope="module")
def model():
    return tiny(config=replace(TINY, n_layers=2))


@pytest.fixture(scope="module", params=[1, 7], ids=["one pair", "seven pairs"])
def asked(request):
    return prompts(request.param)


@pytest.fixture(scope="module")
def exact(model, asked):
    return analyses.edge_patching(model, **asked, smallest_gap=0.0)


@pytest.fixture(scope="module")
def circuit(exact):
    return Circuit.from_scores(exact, count=25).pruned()


@pytest.fixture(scope="module")
def several(model):
    return analyses.edge_patching(model, **prompts(7), smallest_gap=0.0)


def trace(figure: go.Figure, name: str, **of) -> go.Scatter:
    (found,) = [one for one in figure.data if one.name == name and all(one[key] == value for key, value in of.items())]
    return found


def named_traces(figure: go.Figure, name: str) -> list:
    return [one for one in figure.data if one.name == name]


def title(figure: go.Figure) -> str:
    return figure.layout.title.text.replace("<br>", " ")  # wherever it is wrapped


def test_a_graph_labels_the_nodes_of_the_circuit_alone_and_says_its_edges():
    figure = plot_circuit(Circuit(SHAPE, frozenset(SCORES), SCORES), exact={"a1.h1->m1": 0.25})
    assert {note.text for note in figure.layout.annotations} == {"input", "0.0", "1.1", "2.0", "m1", "logits"}
    said = set(trace(figure, "edges").customdata)
    assert len(said) == 5
    assert "a1.h1-&gt;m1<br>score 0.1<br>exact 0.25" in said
    assert "a0.h0-&gt;a1.h1&lt;q&gt;<br>score -0.5" in said
    head = next(text for text in trace(figure, "nodes").customdata if text.startswith("<b>a0.h0</b>"))
    assert head.index("2 out") < head.index("a1.h1&lt;q&gt;  -0.5") < head.index("a2.h0&lt;k&gt;  0.02")
    assert "<br>1 in<br>input-&gt;a0.h0&lt;v&gt;  2<br>" in head
    dots = trace(figure, "not in the circuit")
    assert len(dots.x) == 1 + 3 * 3 + 1 - 6
    assert "largest 2 at input-&gt;a0.h0&lt;v&gt;" in title(figure)


def test_lines_run_from_the_source_up_to_the_reader_and_are_wider_and_stronger_where_more_is_scored():
    figure = plot_circuit(Circuit(SHAPE, frozenset(SCORES), SCORES))
    places = {note.text: (note.x, note.y) for note in figure.layout.annotations}
    lines = [one for one in figure.data if one.mode == "lines" and one.x[0] is not None]
    assert sum(np.isnan(one.x).sum() for one in lines) == 5
    hurting = [one for one in lines if one.name == "hurts"]
    assert len(hurting) == 1
    assert (hurting[0].x[0], hurting[0].y[0]) == places["0.0"]
    assert hurting[0].y[-2] < places["1.1"][1]
    assert np.all(np.diff(hurting[0].y[:-1]) > 0)
    widths = [one.line.width for one in lines]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
    assert {one.name for one in figure.data if one.showlegend is None} == {
        "helps",
        "hurts",
        "into q",
        "into k",
        "into v",
    }


def test_edges_without_a_score_are_grey_and_an_empty_circuit_can_be_drawn():
    figure = plot_circuit(Circuit.of(SHAPE, SCORES))
    assert {one.name for one in figure.data if one.mode == "lines"} == {"no score"}
    assert "no score" in trace(figure, "edges").customdata[0]
    assert title(figure).startswith(f"Circuit of 5 of {len(graph(SHAPE))} edges, 6 nodes")
    assert "<sup>" not in title(figure)
    assert not plot_circuit(Circuit.none(SHAPE)).layout.annotations
    partly = plot_circuit(Circuit.of(SHAPE, SCORES), scores={"a1.h1->m1": np.nan, "m1->logits": 1.0})
    assert {one.name for one in partly.data if one.mode == "lines"} == {"no score", "helps"}


@pytest.mark.parametrize(
    "shape", [Shape(6, 4, 4), Shape(12, 12, 12), Shape(30, 9, 3, "gated"), Shape(4, 20, 4, "none", True)]
)
def test_two_hundred_edges_take_few_traces_and_labels_have_room(shape):
    names = list(graph(shape))
    scores = dict(zip(names, np.random.default_rng(0).standard_t(2, len(names)), strict=True))
    figure = plot_circuit(Circuit.from_scores(scores, model=shape, count=200))
    assert len(figure.data) < 30
    layout = figure.layout
    across = layout.width - layout.margin.l if layout.margin.l else layout.width - 88
    column = across / np.ptp(layout.xaxis.range)
    row = (layout.height - layout.margin.t - layout.margin.b) / np.ptp(layout.yaxis.range)
    notes = [(note.x * column, note.y * row, 6.2 * len(note.text) + 6) for note in layout.annotations]
    for number, (x, y, wide) in enumerate(notes):
        for other_x, other_y, other_wide in notes[:number]:
            assert abs(x - other_x) >= (wide + other_wide) / 2 or abs(y - other_y) >= 18


def test_shared_keys_have_a_line_to_each_head_of_the_circuit_that_reads_them():
    shape = Shape(2, 4, 2)
    names = ["input->a0.h0<v>", "a0.h0->a1.h1<k>", "a1.h2->logits", "a1.h3->logits"]
    figure = plot_circuit(Circuit.of(shape, names))
    (ports,) = [one for one in named_traces(figure, "into k") if one.x[0] is not None]
    assert [round(x) for x in ports.x] == [2, 3]
    head = next(text for text in trace(figure, "nodes").customdata if text.startswith("<b>a1.h3</b>"))
    assert "1 in<br>a0.h0-&gt;a1.h1&lt;k&gt;" in head


def test_a_result_gives_scores_and_exact_effects_of_a_circuit(exact, circuit):
    figure = analyses.plot(circuit, exact=exact, scores=exact, title="<script>alert(1)</script>")
    assert "&lt;script&gt;" in title(figure)
    assert "<script" not in figure.to_json()
    scores = analyses.edge_scores(exact)
    first = circuit.listed[0].name
    plain = [one.replace("&lt;", "<").replace("&gt;", ">") for one in trace(figure, "edges").customdata]
    assert f"{first}<br>score {scores[first]:.4g}<br>exact {scores[first]:.4g}" in plain


def test_what_a_graph_cannot_take_is_named(model, exact, circuit, asked):
    with pytest.raises(ResultError, match="of another shape"):
        plot_circuit(Circuit.none(SHAPE), scores=exact)
    estimated = analyses.edge_attribution(model, **asked, verify=0)
    with pytest.raises(ResultError, match="only estimates"):
        plot_circuit(circuit, exact=estimated)
    with pytest.raises(ResultError, match="'m9->logits', which is no edge"):
        plot_circuit(circuit, scores={"m9->logits": 1.0})
    with pytest.raises(ResultError, match="not list"):
        _scores(circuit, [1.0], "scores")
    with pytest.raises(ResultError, match="has no option 'top'"):
        analyses.plot(circuit, top=3)


def test_faithfulness_of_each_circuit_beside_pairs_and_random_ones(model, asked, circuit):
    names = {"<script>mine": circuit, "whole": Circuit.whole(model)}
    result = analyses.faithfulness(model, **asked, circuits=names, random=3, smallest_gap=0.0)
    figure = analyses.plot(result)
    pairs, means, drawn = (
        [one for one in figure.data if one.legendgroup == group] for group in ("pairs", "mean", "random")
    )
    for number in range(2):
        assert means[number].x[0] == pytest.approx(float(result["faithfulness_of_means"][number]))
        np.testing.assert_allclose(
            np.array(pairs[number].customdata)[:, 1].astype(float), result["faithfulness"][:, number]
        )
        np.testing.assert_allclose(drawn[number].x, result["random_faithfulness"][:, number])
    several = result.sizes["prompt"] > 1
    assert (means[0].error_x.array is not None) == several
    if several:
        low, high = result["faithfulness_of_means_interval"][:, 0].to_numpy()
        assert means[0].x[0] - means[0].error_x.arrayminus[0] == pytest.approx(low)
        assert means[0].x[0] + means[0].error_x.array[0] == pytest.approx(high)
    assert [line.x0 for line in figure.layout.shapes] == [0, 1]
    assert f"{len(circuit)} edges" in figure.layout.yaxis.ticktext[0]
    assert "&lt;script&gt;mine" in figure.layout.yaxis.ticktext[0]
    assert "grey: 3 random circuits each" in title(figure)
    none = analyses.faithfulness(model, **asked, circuits=circuit, random=0, smallest_gap=0.0)
    assert "no random circuits" in title(analyses.plot(none))


def test_pairs_far_away_are_at_the_end_of_the_axis_and_counted(model):
    asked = prompts(7)
    result = analyses.faithfulness(model, **asked, circuits=Circuit.whole(model), random=2, smallest_gap=0.0)
    result["faithfulness"][2, 0] = 500.0
    figure = analyses.plot(result)
    far = next(one for one in figure.data if one.legendgroup == "pairs")
    high = figure.layout.xaxis.range[1]
    assert high < 50
    assert max(far.x) == high
    assert far.marker.symbol[2] == "triangle-right"
    assert "1 value of single pairs beyond" in title(figure)
    assert "pair %{customdata[0]}: %{customdata[1]:.3f}" in far.hovertemplate


def test_curves_say_their_areas_and_are_drawn_over_the_share_of_edges(model, asked, exact):
    result = analyses.faithfulness_curve(
        model,
        **asked,
        scores={"exact": exact, "<script>": exact},
        shares=[0.0, 0.1, 0.5, 1.0],
        random=2,
        smallest_gap=0.0,
    )
    figure = analyses.plot(result)
    for panel, ranking in (("x", "signed"), ("x2", "absolute")):
        drawn = next(one for one in figure.data if one.legendgroup == "exact" and one.xaxis == panel)
        np.testing.assert_allclose(drawn.y, result["faithfulness"].sel(estimator="exact", ranking=ranking))
        np.testing.assert_allclose(drawn.x, [0.1 / 3, 0.1, 0.5, 1])
        assert [row[1] for row in drawn.customdata] == result["n_edges"].sel(
            estimator="exact", ranking=ranking
        ).to_numpy().tolist()
    cpr, cmd = float(result["cpr"][0]), float(result["cmd"][0])
    legend = next(one.name for one in figure.data if one.legendgroup == "exact")
    assert legend.startswith(f"exact: CPR {cpr:.2f}")
    assert f"CMD {cmd:.2f}" in legend
    several = result.sizes["prompt"] > 1
    assert ("[" in legend) == ("bands" in title(figure)) == several
    every = len(graph(Shape.of(model.config)))
    assert figure.layout.xaxis.ticktext[-1] == f"1<br>{every}"
    assert figure.layout.xaxis.ticktext[0] == "0<br>0"
    assert "<script" not in figure.to_json()
    assert len({one.legendgroup for one in analyses.plot(result, estimators=["exact"]).data} - {None}) == 2
    alone = analyses.plot(result.isel(draw=[]), estimators="exact")
    assert {one.legendgroup for one in alone.data} - {None} == {"exact"}
    assert "random" not in title(alone)
    with pytest.raises(ResultError, match="estimators \\['eap'\\]; there are exact"):
        analyses.plot(result, estimators=["eap"])


def test_more_estimators_than_can_be_told_apart_are_refused():
    names = [f"method {number}" for number in range(MOST)]
    assert len({(look.color, look.symbol) for look in looks(names, "it").values()}) == MOST
    with pytest.raises(ResultError, match="choose up to 8"):
        looks([*names, "exact"], "it")


@pytest.fixture(scope="module")
def compared(model, asked):
    return analyses.compare_methods(
        model, **asked, methods=["eap", "relp"], counts=[5, 10], shares=[0.1, 0.5, 1.0], random=1, smallest_gap=0.0
    )


def test_estimates_against_exact_effects(compared):
    figure = analyses.plot(compared)
    titles = [note.text for note in figure.layout.annotations]
    for number, method in enumerate(("eap", "relp")):
        one = compared.sel(estimator=method)
        assert titles[number].startswith("EAP<br>" if method == "eap" else "RelP<br>")
        assert f"rank correlation {float(one['rank_correlation']):.2f}" in titles[number]
        assert f"same sign {float(one['same_sign']):.0%}" in titles[number]
        assert (" [" in titles[number]) == (compared.sizes["prompt"] > 1)
        panel = "x" if number == 0 else "x2"
        points = [
            row
            for trace in figure.data
            if trace.xaxis == panel and trace.customdata is not None
            for row in trace.customdata
        ]
        drawn = {row[0].replace("&lt;", "<").replace("&gt;", ">"): (row[1], row[2]) for row in points}
        assert len(drawn) == compared.sizes["edge"]
        exact = compared["score"].sel(estimator="exact")
        for at, name in enumerate(compared["edge"].to_numpy()):
            assert drawn[name] == (float(exact[at]), float(one["score"][at]))
        same = next(t for t in figure.data if t.xaxis == panel and t.name == "same sign")
        assert all(row[1] * row[2] > 0 for row in same.customdata)
    assert "all edges" in title(figure)


def test_of_many_edges_the_largest_and_a_sample_are_drawn(compared, monkeypatch):
    monkeypatch.setattr(circuit_methods, "MOST_POINTS", 40)
    figure = analyses.plot(compared, estimators=["eap"])
    points = [row for one in figure.data if one.customdata is not None for row in one.customdata]
    assert len(points) == 40
    sizes = sorted((max(abs(row[1]), abs(row[2])) for row in points), reverse=True)
    every = np.abs(compared["score"].sel(estimator=["exact", "eap"])).max("estimator").to_numpy()
    np.testing.assert_allclose(sizes[:20], np.sort(every)[::-1][:20])
    assert f"20 largest of {compared.sizes['edge']:,} edges, 20 at random" in title(figure)


def test_small_edges_are_seen_beside_large_ones(compared):
    heavy = compared.copy(deep=True)
    heavy["score"][:] = np.sign(compared["score"]) * np.geomspace(1e-3, 100, compared.sizes["edge"])
    figure = analyses.plot(heavy)
    assert "logarithmic away from 0" in title(figure)
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    points = [one for one in figure.data if one.name == "same sign" and one.customdata is not None]
    x, exact = points[0].x, [row[1] for row in points[0].customdata]
    assert np.interp(ticks["1"], np.sort(x), np.sort(exact)) == pytest.approx(1, rel=0.1)
    even = compared.copy(deep=True)
    even["score"][:] = np.sign(compared["score"])
    assert "logarithmic" not in title(analyses.plot(even))


def test_overlap_and_curves_of_methods(compared):
    figure = analyses.plot(compared, what="overlap")
    drawn = trace(figure, "RelP")
    np.testing.assert_allclose(drawn.y, compared["overlap"].sel(estimator="relp"))
    assert list(drawn.x) == [5, 10]
    np.testing.assert_allclose(trace(figure, "chance").y, np.array([5, 10]) / compared.sizes["edge"])
    assert ("bands" in title(figure)) == (compared.sizes["prompt"] > 1)
    curves = analyses.plot(compared, what="curves")
    eap = next(one for one in curves.data if one.legendgroup == "eap")
    np.testing.assert_allclose(eap.y, compared["faithfulness"].sel(estimator="eap", ranking="signed"))
    with pytest.raises(ResultError, match="what='scatter'"):
        analyses.plot(compared, what="scatter")
    with pytest.raises(ResultError, match="compared with nothing"):
        analyses.plot(compared, estimators=["exact"])


def test_stability_shows_what_is_chosen_most_often(several):
    result = analyses.circuit_stability(several, count=10, draws=50)
    ever = int((result["frequency"] > 0).sum())
    figure = analyses.plot(result, top=200)
    bars = [one for one in figure.data if isinstance(one, go.Bar)]
    by_name = dict(zip(result["edge"].to_numpy(), result["frequency"].to_numpy(), strict=True))
    shown = {
        row[0].replace("&lt;", "<").replace("&gt;", ">"): x
        for bar in bars
        for row, x in zip(bar.customdata, bar.x, strict=True)
    }
    assert shown == {name: value for name, value in by_name.items() if value > 0}
    filled = trace(figure, "chosen from all pairs")
    assert len(filled.x) == 10
    heights = sorted((y, x) for bar in bars for x, y in zip(bar.x, bar.y, strict=True))
    assert [x for _, x in heights] == sorted(x for _, x in heights)
    (histogram,) = [one for one in figure.data if isinstance(one, go.Histogram)]
    np.testing.assert_allclose(histogram.x, result["overlap"])
    assert figure.layout.shapes[0].x0 == pytest.approx(float(result["overlap"].mean()))
    assert f"exact effects by size; of 50 resamples: {ever} edges in some" in title(figure)
    assert "shown" not in title(figure)
    assert "3 shown" in title(analyses.plot(result, top=3))
    signed = analyses.plot(analyses.circuit_stability(several, count=10, draws=5, absolute=False))
    assert "exact effects with their sign" in title(signed)
    with pytest.raises(ResultError, match="top=0"):
        analyses.plot(result, top=0)


@pytest.mark.parametrize("method", ["eap", ["eap"], ["eap", "relp"]])
def test_stability_names_the_method(model, method):
    estimated = analyses.edge_attribution(model, **prompts(2), method=method, verify=0)
    chosen = "eap" if len(method) == 2 else None
    assert ", EAP by size" in title(
        analyses.plot(analyses.circuit_stability(estimated, count=5, draws=3, method=chosen))
    )


def test_completeness_of_every_set(model, asked, circuit):
    result = analyses.completeness(model, **asked, circuit=circuit, draws=3)
    result["knocked_out"] = [f"<script>{name}" for name in result["knocked_out"].to_numpy()]
    figure = analyses.plot(result)
    several = result.sizes["prompt"] > 1
    suffix = "_mean" if several else ""
    model_value, circuit_value = (
        result[f"{name}{suffix}"].to_numpy().reshape(-1) for name in ("model_value", "circuit_value")
    )
    single = result["n_nodes"].to_numpy() == 1
    for name, which in (("one node", single), ("several nodes", ~single)):
        points = trace(figure, name)
        np.testing.assert_allclose(points.x, model_value[which])
        np.testing.assert_allclose(points.y, circuit_value[which])
        assert (points.error_x.array is not None) == several
        assert ("95 % interval" in points.customdata[0][1]) == several
    assert 1 <= sum(bool(text) for text in trace(figure, "one node").text) <= 3
    assert ("mean over 7 pairs" if several else "one pair") in title(figure)
    assert "<script" not in figure.to_json()
    line = trace(figure, "complete")
    assert list(line.x) == list(line.y)
    if several:
        np.testing.assert_allclose(
            trace(analyses.plot(result, prompt=2), "one node").x, result["model_value"][2].to_numpy()[single]
        )


def test_minimality_of_every_node(model, asked, circuit):
    result = analyses.minimality(model, **asked, circuit=circuit, draws=3)
    figure = analyses.plot(result)
    (points,) = figure.data
    order = np.argsort(-np.abs(result["largest"].to_numpy()), kind="stable")[::-1]
    np.testing.assert_allclose(points.x, result["largest"].to_numpy()[order])
    assert list(figure.layout.yaxis.ticktext) == list(result["source"].to_numpy()[order])
    sets = [row[1].replace("<br>", " ") for row in points.customdata]
    assert sets == list(result["largest_knocked_out"].to_numpy()[order])
    several = result.sizes["prompt"] > 1
    assert (points.error_x.array is not None) == several
    if several:
        at = {name: number for number, name in enumerate(result["knocked_out"].to_numpy())}
        low = [float(result["change_interval"][0, at[name], node]) for name, node in zip(sets, order, strict=True)]
        np.testing.assert_allclose(np.array(points.x) - points.error_x.arrayminus, low)
        np.testing.assert_allclose(
            sorted(np.abs(analyses.plot(result, prompt=3).data[0].x))[-1], np.nanmax(np.abs(result["change"][3]))
        )
    assert "the first 2 of" in title(analyses.plot(result, top=2))
    assert "the first" not in title(figure)
    with pytest.raises(ResultError, match="top=0"):
        analyses.plot(result, top=0)


def test_each_says_where_the_answer_was_read(model, asked):
    pairs = len(asked["clean"])
    result = analyses.completeness(model, **asked, circuit=Circuit.whole(model), draws=0, position=[3] * pairs)
    assert "at position 3" in title(analyses.plot(result))
    assert json.loads(result.attrs["parameters"])["position"] == [3] * pairs


def test_what_cannot_be_compared_is_named_by_its_own_call():
    model, clean, corrupt = tiny(), random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    for asked, said in (
        ({"methods": ["none"]}, "unknown method"), ({"methods": []}, "methods is empty"), ({"methods": ["eap", "eap"]}, "named twice"),
        ({"methods": ["eap"], "counts": [10, 10**6]}, "counts must be 1 to"),
        ({"methods": ["eap"], "counts": [0]}, "counts must be 1 to"),
    ):  # fmt: skip
        with pytest.raises(InterpError, match=f"compare_methods: .*{said}"):
            analyses.compare_methods(model, clean, corrupt, answer=1, wrong=2, **asked)
