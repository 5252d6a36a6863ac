"""What each figure draws."""

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest

import analyses
from analyses import cascade
from analyses.plots import plot_head, plot_lens_curves, plot_lens_pair, plot_positions, plot_trajectories
from analyses.plots.labels import label, visible
from analyses.plots.theme import figure
from interp.errors import ResultError
from interp.zoo import DEFAULT_PAIR

NASTY = "<script>alert(1)</script>\n<b>John</b> 🎉\t&amp;"
MORE = ["Rose gave a book", "Then Peter and Mary", "The cat sat on"]  # with three others enough for an interval


@pytest.fixture(scope="module")
def results(smalltown):
    pair = {"answer": DEFAULT_PAIR.answer, "wrong": DEFAULT_PAIR.wrong}
    return {
        "lens": analyses.logit_lens(smalltown, [DEFAULT_PAIR.clean, "Mary"]),
        "attention": analyses.attention_patterns(smalltown, [DEFAULT_PAIR.clean, "Mary"]),
        "patching": analyses.activation_patching(smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt, **pair),
        "gain": cascade.gain(smalltown, [DEFAULT_PAIR.clean, "Mary went", "The dogs are", *MORE], n_directions=2),
    }


def heatmap(figure: go.Figure) -> go.Heatmap:
    (trace,) = figure.data
    assert isinstance(trace, go.Heatmap)
    return trace


def test_lens_figure(results):
    figure = analyses.plot(results["lens"])
    trace = heatmap(figure)
    assert np.shape(trace.z) == (13, 15)
    np.testing.assert_allclose(trace.z, results["lens"]["top_probability"][0, ..., 0])
    assert (trace.zmin, trace.zmax) == (0, 1)
    assert trace.text[12][14] == "·Mary"
    assert list(figure.layout.xaxis.ticktext)[:3] == ["&lt;|endoftext|&gt;", "When", "·Mary"]
    assert list(figure.layout.yaxis.ticktext)[:4] == ["0", "0 + attention", "1", "1 + attention"]
    assert figure.layout.yaxis.ticktext[-1] == "output"
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    assert np.shape(heatmap(analyses.plot(results["lens"], prompt=1)).z) == (13, 2)  # padding is not drawn


@pytest.mark.parametrize("color", ["entropy", "rank", "kl"])
def test_lens_colours(results, color):
    one = results["lens"].isel(prompt=0)
    trace = heatmap(analyses.plot(results["lens"], color=color))
    values = {
        "entropy": one["entropy"],
        "rank": np.log10(1 + one["final_rank"]),
        "kl": np.log10(np.maximum(one["kl"], 1e-3)),
    }
    np.testing.assert_allclose(trace.z, values[color])
    assert trace.zmin <= np.min(trace.z) + 1e-6
    assert trace.zmax >= np.max(trace.z)
    assert trace.colorbar.title.text
    with pytest.raises(ResultError, match="no colour 'hue'"):
        analyses.plot(results["lens"], color="hue")


def test_two_lenses_share_a_scale_and_the_layers_that_both_have(results, smalltown):
    tuned = analyses.tuned_lens(smalltown, DEFAULT_PAIR.clean)
    figure = plot_lens_pair(results["lens"], tuned, names=["<i>logit</i> lens", "tuned"])
    assert [np.shape(trace.z) for trace in figure.data] == [(7, 15), (7, 15)]
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [note.text for note in figure.layout.annotations] == ["&lt;i&gt;logit&lt;/i&gt; lens", "tuned"]
    assert {axis.ticktext[-1] for axis in figure.select_yaxes()} == {"output"}
    short = plot_lens_pair(results["lens"], results["lens"], prompt=(1, 1))
    assert [np.shape(trace.z) for trace in short.data] == [(13, 2), (13, 2)]  # beside each other, and without padding


def test_lens_curves_and_trajectories(smalltown):
    prompts = [DEFAULT_PAIR.clean, "Mary went to the", "The dogs near the", *MORE]
    plain = analyses.logit_lens(smalltown, prompts, candidates=[" Mary", " John"])
    figure = plot_lens_curves({"logit": plain, "tuned": analyses.tuned_lens(smalltown, prompts)})
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [len(trace.x) for trace in lines] == [13, 13, 7, 7]
    np.testing.assert_allclose(lines[0].y, plain["kl"].mean("position").mean("prompt"))
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 4
    assert (np.array(bands[0].y)[:13] >= lines[0].y).all()
    one = plot_trajectories(plain)
    np.testing.assert_allclose(one.data[0].y, np.exp(plain["candidate_log_probability"][0, :, 14, 0]))
    assert [trace.name for trace in one.data if trace.showlegend] == ["·Mary", "·John"]
    with pytest.raises(ResultError, match="follows no tokens"):
        plot_trajectories(analyses.logit_lens(smalltown, "Mary"))


def test_component_lens_figure(smalltown):
    result = analyses.component_lens(smalltown, DEFAULT_PAIR.clean, top_k=3, heads=True)
    trace = heatmap(analyses.plot(result))
    assert np.shape(trace.z) == (result.sizes["component"], 6)
    assert (trace.zmid, trace.zmin) == (0, -trace.zmax)
    last = result.isel(prompt=0, position=-1)
    np.testing.assert_allclose(np.array(trace.z)[:, 5], last["top_logit"][:, 0])
    np.testing.assert_allclose(np.array(trace.z)[:, 0], last["bottom_logit"][:, 0])


def test_embedding_figures(smalltown):
    result = analyses.embedding_structure(smalltown, [" Mary", " store", "<|endoftext|>"], top_k=4)
    figure = analyses.plot(result)
    near, likeness, cloud, own = figure.data
    assert (np.shape(near.z), np.shape(likeness.z)) == ((3, 4), (3, 3))
    assert len(cloud.x) == smalltown.config.d_vocab
    np.testing.assert_allclose(own.x, result["candidate_coordinate"][:, 0])
    assert own.text[2] == "&lt;|endoftext|&gt;"
    positions = plot_positions(result)
    assert [len(trace.x) for trace in positions.data] == [256] * 5


def test_stream_figure_shows_what_each_part_writes(smalltown):
    result = analyses.residual_stream(smalltown, DEFAULT_PAIR.clean)
    bars = [trace for trace in analyses.plot(result).data if isinstance(trace, go.Bar)]
    assert [trace.name for trace in bars] == ["attention", "MLP"] * 2
    assert bars[0].x == tuple(f"{layer}.attn" for layer in range(6))
    expected = result["written_norm"][0, 1::2, 1:].astype(float).mean("position")
    np.testing.assert_allclose(bars[0].y, expected)


def test_attention_figures(results):
    grid = analyses.plot(results["attention"])
    assert len(grid.data) == 24
    assert {trace.coloraxis for trace in grid.data} == {"coloraxis"}
    assert (grid.layout.coloraxis.cmin, grid.layout.coloraxis.cmax) == (0, 1)
    one = heatmap(plot_head(results["attention"], layer=2, head=1))
    z = np.array(one.z, dtype=float)
    assert np.isnan(z[np.triu_indices(15, 1)]).all()
    np.testing.assert_allclose(
        z[np.tril_indices(15)], results["attention"]["pattern"][0, 2, 1].to_numpy()[np.tril_indices(15)]
    )


def test_patching_figure_is_centred_on_zero(results):
    figure = analyses.plot(results["patching"])
    trace = heatmap(figure)
    assert trace.zmin == -trace.zmax
    assert trace.zmid == 0
    assert list(figure.layout.xaxis.ticktext)[10] == "<b>·Mary → ·John</b>"
    np.testing.assert_allclose(trace.z, results["patching"]["effect"][0])


def test_patching_figure_of_several_pairs_is_their_mean(smalltown):
    pairs = [
        "Mary and John were at the park. John showed a ring to",
        "Mary and John were at the park. Mary showed a ring to",
    ]
    result = analyses.activation_patching(
        smalltown, pairs, pairs[::-1], answer=[" Mary", " John"], wrong=[" John", " Mary"]
    )
    mean = analyses.plot(result)
    np.testing.assert_allclose(heatmap(mean).z, result["effect"].mean("prompt"))
    assert mean.layout.xaxis.ticktext is None
    assert "mean over 2 pairs" in mean.layout.title.text
    np.testing.assert_allclose(heatmap(analyses.plot(result, prompt=1)).z, result["effect"][1])


def test_gain_figure(results, smalltown):
    null = cascade.gain(
        cascade.random_twin(smalltown), [DEFAULT_PAIR.clean, "Mary went", "The dogs are", *MORE], n_directions=2
    )
    figure = analyses.plot(results["gain"], null=null)
    names = [trace.name for trace in figure.data]
    assert names.count("smalltown") == names.count("smalltown at random init") == 3
    line = next(t for t in figure.data if t.name == "smalltown")
    np.testing.assert_allclose(line.y, results["gain"]["log_gain"].mean("prompt"))
    assert "95 % bootstrap" in figure.layout.title.text
    points = next(t for t in figure.data if t.mode == "markers" and t.name == "smalltown")
    assert figure.layout.yaxis3.type == "log"
    np.testing.assert_allclose(np.log(points.y), np.log(results["gain"]["reproduction"].to_numpy()).mean(0)[:-1])
    few = analyses.plot(
        results["gain"].isel(prompt=[0]).assign(log_gain_interval=results["gain"]["log_gain_interval"] * np.nan)
    )
    assert "no confidence interval" in few.layout.title.text
    with pytest.raises(ResultError, match="other layers"):
        analyses.plot(results["gain"], null=null.isel(layer=slice(1, None)))


def test_requests_that_cannot_be(results):
    with pytest.raises(ResultError, match="prompt 5 is not in this result"):
        analyses.plot(results["lens"], prompt=5)
    with pytest.raises(ResultError, match="layer 9"):
        plot_head(results["attention"], layer=9, head=0)


def test_nothing_global_changes(results):
    before = pio.templates.default, list(pio.templates)
    for result in results.values():
        analyses.plot(result)
    assert (pio.templates.default, list(pio.templates)) == before


def test_labels_show_markup_and_white_space_as_text(smalltown):
    assert visible(" a\n\t\0\x1b") == "·a↵⇥\\x00\\x1b"
    assert label("<script>&") == "&lt;script&gt;&amp;"
    figure = analyses.plot(analyses.logit_lens(smalltown, NASTY))
    shown = list(figure.layout.xaxis.ticktext)
    assert not any("<" in text or ">" in text for text in shown)
    assert any("&lt;" in text for text in shown)


def test_an_option_that_a_figure_does_not_take_is_named(smalltown):
    with pytest.raises(ResultError, match="no option 'head'; it takes prompt, layer"):
        analyses.plot(analyses.attention_patterns(smalltown, "Mary went"), head=1)


def test_a_figure_is_as_wide_as_its_title():
    assert figure("short", 300, 200).layout.width == 300
    long = "Attention of head 23.4 · a model with a rather long name"
    assert figure(
        f"{long}<br><sup>beneath it in small letters, however long that is, nothing is asked for</sup>", 300, 200
    ).layout.width > 8 * len(long)
