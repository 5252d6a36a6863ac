"""What the cascade's figures draw."""

import numpy as np
import plotly.graph_objects as go
import pytest

import analyses
from analyses import cascade
from analyses.plots import plot_gain
from analyses.plots.match import match
from interp.errors import ResultError
from interp.zoo import task


@pytest.fixture(scope="module")
def pairs():
    return task("ioi").sample(3, seed=1)


def test_light_cone(smalltown, pairs):
    result = cascade.light_cone(smalltown, [pair.clean for pair in pairs], n_directions=2)
    figure = analyses.plot(result, injection=2)
    heatmap = next(trace for trace in figure.data if isinstance(trace, go.Heatmap))
    share = result["share"][0, 1].to_numpy()
    z = np.array(heatmap.z, dtype=float)
    assert np.isnan(z[:, :2]).all()  # before the injection there is nothing, and nothing is drawn
    shown = ~np.isnan(z)
    np.testing.assert_allclose(10 ** z[shown], np.maximum(share[:, : z.shape[1]][shown], 1e-4), rtol=1e-5)
    names = [trace.name for trace in figure.data if trace.name]
    assert sum("better by AIC" in name for name in names) == 1
    with pytest.raises(ResultError, match="position 99"):
        analyses.plot(result, injection=99)


def test_a_share_that_grows_with_distance_has_no_negative_length(measured):
    cone = measured("light_cone")
    falls = {trace.name for trace in analyses.plot(cone).data if trace.name and trace.name.startswith(("power", "exp"))}
    assert not any("grow" in name or "-" in name for name in falls)
    grown = cone.assign(exponent=-cone["exponent"].copy(data=0.31), length=cone["length"].copy(data=-187.83))
    names = {trace.name for trace in analyses.plot(grown).data if trace.name}
    assert {name.removesuffix(" (better by AIC)") for name in names} >= {
        "power 0.31, growing", "exponential, growing e-fold in 187.8 tokens",
    }  # fmt: skip


def test_ledger_ends_in_the_total(smalltown, pairs):
    result = cascade.ledger(smalltown, [pair.clean for pair in pairs], [pair.corrupt for pair in pairs])
    figure = analyses.plot(result)
    steps, total = (trace for trace in figure.data if isinstance(trace, go.Bar))
    assert steps.hovertext[:3] == ("0.attn", "0.mlp", "1.attn")
    assert figure.layout.xaxis.ticktext[-1] == "<b>total</b>"
    assert steps.base[-1] + steps.y[-1] == pytest.approx(total.y[0], abs=1e-3)
    assert total.y[0] == pytest.approx(float(result["log_k"].mean("prompt").sum()))
    grids = [np.array(trace.z) for trace in figure.data if isinstance(trace, go.Heatmap)]
    np.testing.assert_allclose(grids[0], sum(grids[1:]), atol=1e-3)
    one = analyses.plot(result, prompt=1)
    assert one.data[1].y[0] == pytest.approx(float(result["log_k"][1].sum()))


def test_gain_beside_theory(smalltown, pairs):
    twin = cascade.random_twin(smalltown)
    measured, theory = (
        cascade.gain(twin, pairs[0].clean, n_directions=4),
        cascade.mean_field(twin, pairs[0].clean),
    )
    figure = plot_gain(measured, theory=theory)
    dashed = [trace for trace in figure.data if trace.name == "mean field"]
    np.testing.assert_allclose(dashed[0].y, theory["log_gain"][0])
    assert abs(dashed[0].y[-1] - float(measured["log_gain"][0, -1])) < 0.15
    with pytest.raises(ResultError, match="injections at layer 0"):
        plot_gain(cascade.gain(twin, pairs[0].clean, n_directions=1, layer=1), theory=theory)


def test_spectra_and_forest(smalltown, pairs):
    texts = [pair.clean for pair in pairs]
    spectrum = cascade.jacobian_spectrum(smalltown, texts, k=4)
    figure = analyses.plot(spectrum)
    assert len(figure.data) == 3
    np.testing.assert_allclose(figure.data[2].y, spectrum["singular_value"][2])
    exponents = cascade.lyapunov(smalltown, texts[0], k=4)
    by_qr, finite = analyses.plot(exponents).data
    np.testing.assert_allclose(by_qr.y, exponents["exponent"][0])
    np.testing.assert_allclose(finite.y, exponents["singular_exponent"][0])
    compared = cascade.compare_directions(smalltown, texts, kinds=["token", "unembedding"], n_directions=2)
    drawn = analyses.plot(compared)
    means = [trace.x[0] for trace in drawn.data if trace.marker.symbol == "diamond"]
    np.testing.assert_allclose(sorted(means), sorted(compared["log_ratio"].mean("prompt")))
    assert drawn.layout.yaxis.ticktext == ("token = unembedding",)  # which smalltown ties
    assert sum(note.text.startswith("p") for note in drawn.layout.annotations) == 1


def test_trained_and_random_stand_on_the_same_scales(smalltown, pairs):
    texts = [pair.clean for pair in pairs]
    models = smalltown, cascade.random_twin(smalltown)
    drawn = [analyses.plot(cascade.dose_response(model, texts, n_directions=2)) for model in models]
    before = [figure.to_dict()["data"] for figure in drawn]
    match(drawn)
    assert drawn[0].layout.yaxis.range == drawn[1].layout.yaxis.range
    low, high = drawn[0].layout.yaxis.range
    every = np.concatenate(
        [np.asarray(trace.y, dtype=float) for figure in drawn for trace in figure.data if trace.yaxis == "y"]
    )
    assert 10**low < every[every > 0].min() < every.max() < 10**high
    assert [len(data) for data in before] == [len(figure.data) for figure in drawn]

    drawn = [analyses.plot(cascade.participation(model, texts)) for model in models]
    match(drawn)
    panels = [[trace for trace in figure.data if trace.type == "heatmap"] for figure in drawn]
    for one, other in zip(*panels, strict=True):
        assert (one.zmin, one.zmax) == (other.zmin, other.zmax)
        assert one.zmin <= np.nanmin([np.nanmin(one.z), np.nanmin(other.z)])
        assert one.zmax >= np.nanmax([np.nanmax(one.z), np.nanmax(other.z)])
    assert panels[0][1].zmin == -panels[0][1].zmax  # the diverging one stays centred

    drawn = [analyses.plot(cascade.ledger(model, texts, [pair.corrupt for pair in pairs])) for model in models]
    match(drawn)
    assert drawn[0].layout.coloraxis.cmax == drawn[1].layout.coloraxis.cmax
    assert drawn[0].layout.yaxis.range == drawn[1].layout.yaxis.range
    assert drawn[0].layout.xaxis.range == drawn[1].layout.xaxis.range
    assert drawn[0].layout.xaxis.ticktext == drawn[1].layout.xaxis.ticktext  # names
    drawn = [analyses.plot(cascade.light_cone(model, texts, n_directions=2)) for model in models]
    match(drawn)
    bars = [next(trace for trace in figure.data if trace.type == "heatmap").colorbar for figure in drawn]
    assert bars[0].ticktext == bars[1].ticktext
    assert len(bars[0].ticktext) == len(bars[0].tickvals)
