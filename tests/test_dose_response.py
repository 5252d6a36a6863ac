"""Dose-response against blocks that are linear, against whole runs, and against the second-order form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_gain import centred_orthogonal, linear_model

import analyses
from analyses.cascade import dose_response
from analyses.cascade.dose_response import _fisher, _plateau, _steepness
from interp.errors import InterpError

DOSES = np.logspace(-5, 0.5, 23).tolist()


def centred(x):
    return x - x.mean(-1, keepdim=True)


def test_linear_blocks_are_linear_at_every_dose():
    model = linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)])
    result = dose_response(model, random_tokens(2, 4, vocab=30), doses=DOSES)
    additive = result.sel(path="additive")
    np.testing.assert_allclose(additive["size"], 1.3**5, rtol=1e-6)
    np.testing.assert_allclose(additive["linearity"], 1, rtol=1e-6)
    np.testing.assert_allclose(additive["cosine"], 1, atol=1e-6)
    np.testing.assert_allclose(additive["linear_range"], DOSES[-1])
    beyond = result.sel(path="rotation")["kl"].isel(dose=[at for at, dose in enumerate(DOSES) if dose > 2])
    assert beyond.isnull().all()


def test_small_doses_have_slope_two_and_the_fisher_form():
    result = dose_response(tiny(), random_tokens(2, 6), doses=DOSES)
    small = result.isel(dose=slice(0, 5))
    for path in ("additive", "rotation"):
        np.testing.assert_allclose(small["kl_slope"].sel(path=path)[1:], 2, atol=0.02)
    np.testing.assert_allclose(small["kl"], small["quadratic_kl"], rtol=0.02)
    np.testing.assert_allclose(small["linearity"], 1, atol=1e-3)
    assert float(result["linear_range"].min()) > 0
    assert float(result["linear_range"].sel(path="additive").max()) < 3


@pytest.mark.parametrize("options", [{}, {"norm": "rmsnorm", "logit_cap": 3.0}, {"norm": "none", "unembed_bias": True}])
def test_float32_gives_what_float64_does_at_every_dose(options):
    """Of 2000 tokens, as a trained model has them, differences of logits at small doses are below their rounding."""
    config = replace(TINY, d_vocab=2000, **options)
    exact, single = tiny(config=config), tiny(config=config, dtype=torch.float32)
    doses = np.logspace(-4, 0.5, 25).tolist()
    expected, found = (
        dose_response(model, random_tokens(1, 4), doses=doses, n_directions=2) for model in (exact, single)
    )
    for name in ("kl", "quadratic_kl"):
        assert (found[name].to_numpy()[np.isfinite(found[name])] > 0).all()
        np.testing.assert_allclose(found[name], expected[name], rtol=0.01)
    np.testing.assert_allclose(found["logit_change"], expected["logit_change"], rtol=0.01, atol=1e-6)
    small = found["kl_slope"].sel(dose=slice(None, 1e-2))
    np.testing.assert_allclose(small, expected["kl_slope"].sel(dose=slice(None, 1e-2)), atol=0.01)


@pytest.mark.parametrize("options", [{}, {"norm": "rmsnorm", "logit_cap": 3.0}, {"norm": "none"}])
def test_the_fisher_form_has_the_derivative_that_torch_finds(options):
    model = tiny(config=replace(TINY, **options))
    stream, tangents = torch.randn(16, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    p = model.unembed(stream[None, None])[0, 0].softmax(-1)
    for tangent, found in zip(tangents, _fisher(model, stream, tangents), strict=True):
        moved = torch.func.jvp(lambda x: model.unembed(x[None, None])[0, 0], (stream,), (tangent,))[1]
        torch.testing.assert_close(found, (p * moved**2).sum() - (p * moved).sum() ** 2)


def test_equals_whole_hooked_runs_on_both_paths():
    model, tokens = tiny(), random_tokens(1, 6)
    direction = centred(torch.randn(1, 16, dtype=torch.float64))
    result = dose_response(model, tokens, doses=[0.01, 0.3, 1.0], layer=1, position=4, directions=direction)
    name = "blocks.1.hook_resid_pre"
    _, cache = model.run_with_cache(tokens, name)
    x = centred(cache[name][0, 4])
    unit = direction[0] / direction.norm()
    log_p = model(tokens)[0, -1].log_softmax(-1)
    best = int(log_p.argmax())
    for number, dose in enumerate((0.01, 0.3, 1.0)):
        ahead = x / x.norm()
        aside = unit - (unit @ ahead) * ahead
        angle = 2 * np.arcsin(dose / 2)
        turned = x.norm() * (np.cos(angle) * ahead + np.sin(angle) * aside / aside.norm())
        assert float(turned.norm()) == pytest.approx(float(x.norm()))
        assert float((turned - x).norm()) == pytest.approx(dose * float(x.norm()))
        for path, step in (("additive", dose * x.norm() * unit), ("rotation", turned - x)):

            def inject(value, hook, step=step):
                value[0, 4] += step

            with model.hooks({name: inject}):
                logits = model(tokens)[0, -1]
            log_q = logits.log_softmax(-1)
            one = result.sel(path=path).isel(prompt=0, direction=0, dose=number)
            assert float(one["kl"]) == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-6, abs=1e-14)
            assert float(one["rank"]) == int((log_q > log_q[best]).sum())
            change = (logits[best] - logits.mean()) - (model(tokens)[0, -1, best] - model(tokens)[0, -1].mean())
            assert float(one["logit_change"]) == pytest.approx(float(change), abs=1e-9)


@pytest.mark.parametrize(("edge", "power"), [(0.1, 8.0), (0.03, 4.0), (0.1, 2.0)])
def test_a_planted_plateau_is_above_one(edge, power):
    """Quadratic up to an edge, a steeper power beyond it: the dose at half of the largest KL is known in closed form for both."""
    doses = np.logspace(-3, 0, 301)
    quadratic = 1e-4 * doses**2
    kl = np.where(doses <= edge, quadratic, 1e-4 * edge**2 * (doses / edge) ** power)
    half = 1e-4 * edge ** (2 - power) / 2
    expected = np.sqrt(half / 1e-4) / (edge * (half / (1e-4 * edge**2)) ** (1 / power))
    found = float(_plateau(kl[None, None, None], quadratic[None, None, None], doses.tolist())[0, 0, 0])
    assert found == pytest.approx(expected, rel=1e-3)
    assert (found > 1.5) == (power > 2)
    assert _steepness(kl[None, None, None], doses.tolist(), 0.0)[0, 0, 0] == pytest.approx(power - 2)


def test_a_response_that_levels_off_is_below_one():
    """KL = r^2 / (1 + (r/e)^2) tends to e^2, and reaches half of it at e where its curvature would at e / sqrt 2."""
    doses = np.logspace(-4, 2, 601)
    kl = (doses**2 / (1 + (doses / 0.1) ** 2))[None, None, None]
    assert _plateau(kl, (doses**2)[None, None, None], doses.tolist())[0, 0, 0] == pytest.approx(0.5**0.5, rel=1e-3)
    assert _steepness(kl, doses.tolist(), 0.0)[0, 0, 0] == pytest.approx(0, abs=1e-4)


def test_steepness_is_read_above_rounding_only():
    doses = np.logspace(-3, 0, 31)
    noisy = doses**2
    noisy[::2] += 1e-6  # of roundings
    assert _steepness(noisy[None, None, None], doses.tolist(), 1e-4)[0, 0, 0] == pytest.approx(0, abs=0.05)
    assert np.isnan(_steepness(noisy[None, None, None], doses.tolist(), 10.0)).all()


def test_figure(smalltown):
    result = dose_response(smalltown, ["Mary and John went to the", "Once upon a"], n_directions=2)
    figure = analyses.plot(result)
    curve = next(trace for trace in figure.data if trace.name == "additive")
    drawn = result["kl"].sel(path="additive", dose=list(curve.x))
    np.testing.assert_allclose(curve.y, np.exp(np.log(drawn).mean(("prompt", "direction"))))
    assert len(curve.x) > 15
    assert figure.layout.xaxis.type == "log"
    index, steepest = (float(result[name].sel(path="additive").median()) for name in ("plateau", "steepness"))
    assert index > 1  # smalltown's flat region ends in a jump
    assert f"plateau index {index:.2f} (above 1: flat, then a jump)" in figure.layout.title.text
    assert f"{steepest + 2:.1f} (2 is quadratic)" in figure.layout.title.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doses": [0.1, 0.2]}, "three at least"),
        ({"doses": [0.1, 0.3, 0.2]}, "increasing"),
        ({"doses": [1e-12, 0.1, 0.2]}, "not below 1e-10"),
        ({"layer": 3}, "layer 3 is out of range"),
        ({"position": -6}, "position -6 is not one of 0 to 4"),
        ({"position": 9}, "not one of 0 to 4"),
    ],
)
def test_requests_that_cannot_be(change, message):
    with pytest.raises(InterpError, match=message):
        dose_response(tiny(), random_tokens(1, 5), **change)
