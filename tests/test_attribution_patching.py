"""Attribution patching: exact where the model is linear, else a first order that the sweep checks."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from interp import ModelConfig, gradients
from interp.errors import InterpError
from interp.zoo import DEFAULT_PAIR, task

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "mlp_post")


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("options", [{}, {"direction": "noising"}, {"by_position": True}])
def test_estimates_are_the_slope_of_the_effect(site, options):
    """A hundred-thousandth of the way to the other run, estimate and effect agree."""
    model, clean = tiny(), random_tokens(1, 6, seed=1)
    small = 1e-5
    model.W_E[0] = model.W_E[1] + small * torch.randn(
        16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    clean[0, 2], corrupt = 1, clean.clone()
    corrupt[0, 2] = 0
    result = analyses.attribution_patching(
        model, clean, corrupt, answer=3, wrong=4, site=site, verify=10**6, smallest_gap=0.0, **options
    )
    assert result["effect"].notnull().all()
    np.testing.assert_allclose(result["estimate"], result["effect"], atol=50 * small)
    start = 1 if "direction" in options else 0
    assert np.abs(result["estimate"] - start).max() > 0.01


def test_exact_on_a_linear_path():
    """Without norms and MLP, what the last layer's heads read (z) acts linearly on the logits."""
    config = ModelConfig(
        n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, n_ctx=24, d_vocab=50, init_std=0.3, norm="none", mlp="none"
    )  # fmt: skip
    model = tiny(config=config)
    result = analyses.attribution_patching(
        model, random_tokens(3, 5, seed=1), random_tokens(3, 5, seed=2), answer=3, wrong=4, layers=[1], verify=2
    )
    np.testing.assert_allclose(result["error"], 0, atol=1e-9)
    assert np.abs(result["effect"]).max() > 0.05


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_replacements_against_a_gradient_by_hand(replacement):
    model, clean, corrupt = tiny(), random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    reference = clean if replacement == "mean" else None
    result = analyses.attribution_patching(
        model, clean, corrupt, answer=3, wrong=4, replacement=replacement, reference=reference, verify=0
    )
    _, cache, slopes = gradients(model, clean, lambda logits: logits[0, -1, 3] - logits[0, -1, 4])
    gap = (result["clean_baseline"] - result["corrupt_baseline"]).item()
    for layer in range(3):
        z, slope = cache["z", layer][0], slopes["z", layer][0]
        new = torch.zeros_like(z) if replacement == "zero" else z.mean(0, keepdim=True)
        expected = 1 + ((new - z) * slope).sum((0, 2)) / gap
        np.testing.assert_allclose(result["estimate"][0, layer], expected, atol=1e-9)
    assert result["effect"].isnull().all()
    assert np.isnan(result["rank_correlation"])


def test_a_vector_added():
    model, clean, corrupt = tiny(), random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    vector = 1e-4 * torch.ones(16, dtype=torch.float64)
    result = analyses.attribution_patching(
        model, clean, corrupt, answer=3, wrong=4, site="resid_mid", replacement="add", vector=vector, verify=99
    )
    np.testing.assert_allclose(result["error"], 0, atol=1e-6)


def test_the_largest_are_checked_by_the_sweep(smalltown):
    pairs = task("ioi").sample(5, seed=2)
    arguments = {
        "clean": [p.clean for p in pairs],
        "corrupt": [p.corrupt for p in pairs],
        "answer": [p.answer for p in pairs],
        "wrong": [p.wrong for p in pairs],
    }
    screened = analyses.attribution_patching(smalltown, **arguments, verify=6)
    exact = analyses.activation_patching(smalltown, **arguments, site="z")
    checked = screened["effect"].notnull().all("prompt").to_numpy()
    assert checked.sum() == 6
    np.testing.assert_allclose(
        screened["effect"].to_numpy()[:, checked], exact["effect"].to_numpy()[:, checked], atol=1e-5
    )
    gap = screened["clean_baseline"] - screened["corrupt_baseline"]
    size = np.abs((screened["estimate"] * gap).mean("prompt").to_numpy())
    assert size[checked].min() >= size[~checked].max()
    means = (screened[name].mean("prompt").to_numpy()[checked] for name in ("estimate", "effect"))
    assert float(screened["rank_correlation"]) == pytest.approx(stats.spearmanr(*means).statistic)
    assert float(screened["rank_correlation"]) > 0.8


def test_requests_that_cannot_be(smalltown):
    arguments = (smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt)
    answers = {"answer": " Mary", "wrong": " John"}
    with pytest.raises(InterpError, match="the metric rank has no gradient"):
        analyses.attribution_patching(*arguments, **answers, metric="rank")
    with pytest.raises(InterpError, match="0 or more; got -1"):
        analyses.attribution_patching(*arguments, **answers, verify=-1)
    with pytest.raises(InterpError, match="needs a wrong answer to compare with .wrong="):
        analyses.attribution_patching(*arguments, answer=" Mary")
