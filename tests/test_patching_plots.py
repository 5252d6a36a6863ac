"""What the figures of patching draw."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from interp.errors import ResultError
from interp.zoo import DEFAULT_PAIR, task

PAIR = {"answer": DEFAULT_PAIR.answer, "wrong": DEFAULT_PAIR.wrong}
PROMPTS = (DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt)


@pytest.fixture(scope="module")
def several(smalltown):
    pairs = task("ioi").sample(6, seed=1)
    return {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}


def shown(figure: go.Figure, kind: type) -> list:
    return [trace for trace in figure.data if isinstance(trace, kind)]


def test_heads_by_layer(smalltown):
    result = analyses.activation_patching(smalltown, *PROMPTS, **PAIR, site="z")
    figure = analyses.plot(result)
    (trace,) = shown(figure, go.Heatmap)
    np.testing.assert_allclose(trace.z, result["effect"][0])
    assert trace.zmax == -trace.zmin == pytest.approx(float(np.abs(result["effect"]).max()))
    assert figure.layout.xaxis.title.text == "head"
    assert trace.customdata[4][1][0] == "layer 4, head 1"
    assert "clean values into the corrupt run" in figure.layout.title.text


def test_heads_by_position_are_rows_from_the_top(smalltown):
    result = analyses.activation_patching(smalltown, *PROMPTS, **PAIR, site="z", by_position=True)
    figure = analyses.plot(result)
    (trace,) = shown(figure, go.Heatmap)
    np.testing.assert_allclose(trace.z, result["effect"][0].to_numpy().reshape(24, 15))
    assert list(figure.layout.yaxis.ticktext)[:5] == ["0.0", "0.1", "0.2", "0.3", "1.0"]
    assert figure.layout.yaxis.autorange == "reversed"
    assert list(figure.layout.xaxis.ticktext)[10] == "<b>·Mary → ·John</b>"


def test_noising_is_white_where_nothing_happens_and_shows_intervals(smalltown, several):
    result = analyses.activation_patching(smalltown, **several, site="z", direction="noising")
    (trace,) = shown(analyses.plot(result), go.Heatmap)
    assert trace.zmid == 1
    assert trace.zmax - 1 == pytest.approx(1 - trace.zmin)
    np.testing.assert_allclose(trace.z, result["effect_mean"])
    low, high = result["effect_interval"][:, 4, 1].to_numpy()
    assert trace.customdata[4][1][1] == f"<br>95 % interval {low:.3f} to {high:.3f}"
    assert "%{customdata[1]}" in trace.hovertemplate
    (single,) = shown(analyses.plot(result, prompt=2), go.Heatmap)
    np.testing.assert_allclose(single.z, result["effect"][2])
    with pytest.raises(ResultError, match="prompt 9 is not in this result"):
        analyses.plot(result, prompt=9)


def test_of_neurons_the_strongest_as_bars(smalltown, several):
    result = analyses.activation_patching(smalltown, **several, site="mlp_post", layers=[0])
    (bars,) = shown(analyses.plot(result), go.Bar)
    mean = result["effect_mean"][0].to_numpy()
    order = np.argsort(-np.abs(mean))[:30]
    np.testing.assert_allclose(bars.x, mean[order])
    assert bars.y[0] == f"layer 0, neuron {order[0]}"
    np.testing.assert_allclose(
        np.array(bars.x) - bars.error_x.arrayminus, result["effect_interval"][0, 0].to_numpy()[order]
    )


def test_all_positions_together_and_unequal_prompts_can_be_drawn(smalltown):
    together = analyses.activation_patching(smalltown, *PROMPTS, **PAIR, by_position=False)
    (trace,) = shown(analyses.plot(together), go.Heatmap)
    np.testing.assert_allclose(np.ravel(trace.z), 1, atol=1e-5)
    model = tiny()
    clean, corrupt = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 7, 8, 9, 4, 6]])
    for direction, tokens in (("denoising", corrupt), ("noising", clean)):
        result = analyses.activation_patching(
            model, clean, corrupt, answer=3, wrong=4, align=True, direction=direction, smallest_gap=0.0
        )
        figure = analyses.plot(result)
        assert list(figure.layout.xaxis.ticktext) == [f"#{i}" for i in tokens[0].tolist()]


def test_methods_share_a_scale_and_their_correlations_are_shown(smalltown, several):
    result = analyses.compare_patching(smalltown, **several)
    figure = analyses.plot(result)
    *panels, correlation = shown(figure, go.Heatmap)
    assert len(panels) == 6
    for number, panel in enumerate(panels):
        np.testing.assert_allclose(panel.z, result["moved_mean"][number])
        assert panel.coloraxis == "coloraxis"
        assert panel.zmin is None
    assert figure.layout.coloraxis.cmax == -figure.layout.coloraxis.cmin
    np.testing.assert_allclose(correlation.z, result["rank_correlation"])
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[2] == "noising · zero · logit difference"
    assert correlation.y[2].startswith(titles[2])


def test_estimates_stand_beside_exact_effects(smalltown):
    result = analyses.attribution_patching(smalltown, *PROMPTS, **PAIR, verify=5)
    figure = analyses.plot(result)
    (cells,) = shown(figure, go.Heatmap)
    np.testing.assert_allclose(cells.z, result["estimate"][0])
    rings, line, points = shown(figure, go.Scatter)
    exact = result["effect"][0].to_numpy()
    rows, columns = np.nonzero(np.isfinite(exact))
    assert (list(rings.y), list(rings.x)) == (rows.tolist(), columns.tolist())
    np.testing.assert_allclose(points.x, exact[rows, columns])
    np.testing.assert_allclose(points.y, result["estimate"][0].to_numpy()[rows, columns])
    assert list(line.x) == list(line.y)
    assert "5 cells checked, rank correlation" in figure.layout.title.text
    unchecked = analyses.plot(analyses.attribution_patching(smalltown, *PROMPTS, **PAIR, verify=0))
    assert "0 cells checked;" in unchecked.layout.title.text


def test_a_trace_marks_the_subject(smalltown):
    figure = analyses.plot(analyses.causal_tracing(smalltown, "The capital of France is", subject="France", draws=2))
    assert list(figure.layout.xaxis.ticktext) == [
        "&lt;|endoftext|&gt;",
        "The",
        "·capital",
        "·of",
        "<b>·France*</b>",
        "·is",
    ]
    assert "after noise on the subject" in figure.layout.title.text


def test_ablation_shows_every_control(smalltown, several):
    prompts = {"answer": several["answer"], "wrong": several["wrong"]}
    result = analyses.ablate_heads(smalltown, several["clean"], **prompts, heads=[(4, 1)], controls=3)
    figure = analyses.plot(result)
    difference, preferred, share = shown(figure, go.Scatter)
    np.testing.assert_allclose(share.y, result["correct_mean"])
    np.testing.assert_allclose(preferred.y, result["preferred_mean"])
    np.testing.assert_allclose(difference.y, result["logit_difference_mean"])
    upper = result["logit_difference_interval"][1].to_numpy()
    np.testing.assert_allclose(np.array(difference.y) + difference.error_y.array, upper)
    assert list(share.customdata[1]) == ["ablated", "4.1"]
    assert len(share.x) == 5
    assert list(figure.layout.xaxis.ticktext) == ["intact", "ablated", "random others"]
    one = {name: values[0] for name, values in prompts.items()}
    single = analyses.plot(analyses.ablate_heads(smalltown, several["clean"][0], **one, heads=[(4, 1)], controls=0))
    assert single.data[0].error_y.array is None


def test_tokens_that_look_like_markup(smalltown):
    clean, corrupt = "<b>John</b> went to", "<b>Mary</b> went to"
    figure = analyses.plot(analyses.activation_patching(smalltown, clean, corrupt, **PAIR, smallest_gap=0.0))
    assert "&lt;" in "".join(figure.layout.xaxis.ticktext)
    assert "<b>John" not in "".join(name for row in figure.data[0].customdata for name, _ in row)


def test_large_grids_stay_within_a_page():
    model = tiny()
    result = analyses.activation_patching(
        model, random_tokens(1, 24, seed=1), random_tokens(1, 24, seed=2), answer=3, wrong=4, site="pattern", by_position=True,
        smallest_gap=0.0,
    )  # fmt: skip
    figure = analyses.plot(result)
    assert figure.layout.width <= 1400
    assert figure.layout.height <= 1000


def test_direct_attribution_ends_in_the_total(smalltown, several):
    answers = {"answer": several["answer"], "wrong": several["wrong"]}
    result = analyses.direct_logit_attribution(smalltown, several["clean"], **answers)
    figure = analyses.plot(result)
    parts, total = shown(figure, go.Bar)
    np.testing.assert_allclose(parts.y, result["component_effect_mean"])
    assert parts.base[0] == 0
    np.testing.assert_allclose(np.array(parts.base, dtype=float)[1:], np.cumsum(parts.y)[:-1])
    assert total.y[0] == pytest.approx(result["metric"].mean().item(), abs=1e-5)
    assert parts.base[-1] + parts.y[-1] == pytest.approx(total.y[0], abs=1e-4)
    low = result["component_effect_interval"][0].to_numpy()
    np.testing.assert_allclose(np.array(parts.y) - parts.error_y.arrayminus, low)
    heads = shown(figure, go.Heatmap)
    for trace, name in zip(heads, ("head_effect", "total_effect", "self_repair"), strict=True):
        np.testing.assert_allclose(trace.z, result[name].mean("prompt"), atol=1e-6)
    assert figure.layout.coloraxis.cmax == -figure.layout.coloraxis.cmin
    one = analyses.plot(result, prompt=1)
    np.testing.assert_allclose(shown(one, go.Heatmap)[0].z, result["head_effect"][1])
    assert shown(one, go.Bar)[0].error_y.array is None
