"""Estimates of every edge's effect, against derivatives of runs with a split input, and a peer's scores."""

import random

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_edge_patching import needs_reference, peers, written
from test_inputs import split_hooks
from test_options import build, configs

import analyses
from analyses.circuits.edges import destinations, edges
from interp.errors import InterpError


def slope(model, tokens, share, donors, edge, moved, at, answer, wrong) -> float:
    """The derivative of the logit difference by how far a destination's input has gone along `moved`, by torch, in a whole run whose
    token embeddings have that share of the donors'."""
    way = torch.zeros((), dtype=torch.float64, requires_grad=True)
    destination = edge.destination
    if destination.part == "logits":
        hooks = {f"blocks.{model.config.n_layers - 1}.hook_resid_post": lambda value, hook: value + way * moved}
    else:
        hooks = split_hooks(model, destination.layer, destination.part, lambda x: x + way * moved, destination.head)
    with model.capture("hook_embed") as there:
        model(donors)
    other = there["hook_embed"]
    mixed = {"hook_embed": lambda value, hook: value + share * (other - value)}
    with torch.enable_grad(), model.hooks(mixed), model.hooks(hooks):
        logits = model(tokens)[0, at]
        total = logits[answer] - logits[wrong]
    found = torch.autograd.grad(total, way, allow_unused=True)[0] if total.requires_grad else None
    return 0.0 if found is None else float(found)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), options=configs.filter(lambda o: o["norm"] == "none" or o["norm_placement"] != "post")
)
def test_equals_the_derivative_of_a_whole_run_with_a_split_input(seed, options):
    model, rng = build(**options), random.Random(seed)
    length, at = rng.randint(1, 6), -1
    clean, corrupt = random_tokens(2, length, seed=seed), random_tokens(2, length, seed=seed + 1)
    method, steps, direction = (
        rng.choice(["eap", "eap_ig_inputs", "clean_corrupted"]),
        rng.randint(1, 3),
        rng.choice(["noising", "denoising"]),
    )
    into = rng.sample([one.name for one in destinations(model.config)], 5)
    result = analyses.edge_attribution(
        model, clean, corrupt, answer=[1, 2], wrong=[3, 4], method=method, steps=steps, direction=direction, verify=0,
        destinations=into, max_bytes=rng.choice([1, 2**30]),
    )  # fmt: skip
    own, other = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    at_shares = {"eap": [0.0], "clean_corrupted": [0.0, 1.0]}.get(method, [1 - k / steps for k in range(steps)])
    found = edges(model.config, destinations=into)
    for number in rng.sample(range(len(found)), min(5, len(found))):
        edge, pair = found[number], rng.randrange(2)
        run, donors = own[pair : pair + 1], other[pair : pair + 1]
        moved = written(model, donors, edge.source) - written(model, run, edge.source)
        asked = (edge, moved, at, [1, 2][pair], [3, 4][pair])
        expected = np.mean([slope(model, run, share, donors, *asked) for share in at_shares])
        assert float(result.estimate[pair, number]) == pytest.approx(expected, abs=1e-9)


@needs_reference
@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("eap", "EAP"),
        ("eap_ig_inputs", "EAP-IG-inputs"),
        ("eap_ig_activations", "EAP-IG-activations"),
        ("clean_corrupted", "clean-corrupted"),
    ],
)
def test_a_peers_scores(method, theirs):
    reference, model = peers()
    layers = [3] if method == "eap_ig_activations" else None  # 65 runs
    result = analyses.edge_attribution(model, **reference["asked"], method=method, verify=2, layers=layers)
    expected = dict(zip(reference["edges"], reference["scores"][theirs], strict=True))
    exact = dict(zip(reference["edges"], reference["scores"]["exact"], strict=True))
    found = dict(zip(result.edge.values.tolist(), (-result.estimate_mean).values.tolist(), strict=True))
    assert len(found) == (212 if layers else 1108)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-6, rel=1e-6), name
    checked = result.change_mean.dropna("edge")
    assert len(checked) == 2
    for name, value in zip(checked.edge.values.tolist(), (-checked).values.tolist(), strict=True):
        assert value == pytest.approx(exact[name], abs=1e-6, rel=1e-6)


@pytest.fixture
def pairs():
    return tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2), {"answer": 1, "wrong": 3}


def test_the_edges_that_come_first_are_patched_in_earnest(pairs):
    model, clean, corrupt, asked = pairs
    result = analyses.edge_attribution(model, clean, corrupt, **asked, verify=6)
    exact = analyses.edge_patching(model, clean, corrupt, **asked, smallest_gap=0.0)
    checked = np.isfinite(result.change.values).all(0)
    largest = np.argsort(-np.abs(result.estimate_mean.values))[:6]
    assert sorted(np.flatnonzero(checked)) == sorted(largest)
    np.testing.assert_allclose(result.change[:, checked], exact.change[:, checked], atol=1e-12)
    np.testing.assert_allclose(result.error[:, checked], (result.estimate - exact.change)[:, checked], atol=1e-12)
    assert -1 <= float(result.rank_correlation) <= 1
    np.testing.assert_allclose(result.clean_baseline, exact.clean_baseline, atol=1e-12)


@pytest.mark.parametrize("replacement", ["zero", "mean", "mean_by_position"])
def test_other_replacements(replacement, pairs):
    """By the edge into the logits, of which a logit difference is a linear function but for the norm: a short way is the slope."""
    model, clean, corrupt, asked = pairs
    how = {"replacement": replacement, "sources": "a2.h1", "destinations": "logits"}
    result = analyses.edge_attribution(model, clean, corrupt, **asked, **how, method="eap", verify=1)
    assert float(np.abs(result.error).max()) < 0.5 * float(np.abs(result.change).max())
    other = analyses.edge_attribution(model, clean, corrupt, **asked, **how, method="eap_ig_inputs", verify=0)
    assert other.change.isnull().all()
    assert np.isfinite(other.estimate).all()
    np.testing.assert_allclose(other.corrupt_baseline, result.corrupt_baseline, atol=1e-12)


def test_activations_between_by_hand(pairs):
    """The mean of torch's slopes over runs in which each part in turn writes something between, for one edge."""
    model, clean, corrupt, asked = pairs
    clean, corrupt, steps = clean[:1], corrupt[:1], 2
    result = analyses.edge_attribution(
        model,
        clean,
        corrupt,
        **asked,
        method="eap_ig_activations",
        steps=steps,
        sources="m0",
        destinations="m2",
        verify=0,
    )
    own, other = (model.run_with_cache(tokens)[1] for tokens in (clean, corrupt))
    parts = [
        "hook_embed",
        *(f"blocks.{layer}.{name}" for layer in range(3) for name in ("hook_attn_out", "hook_mlp_out")),
    ]
    moved, found = (other["hook_mlp_out", 0] - own["hook_mlp_out", 0])[0], []
    for part in parts:
        for k in range(1, steps + 1):
            between = own[part] + (1 - k / steps) * (other[part] - own[part])
            way = torch.zeros((), dtype=torch.float64, requires_grad=True)
            hooks = split_hooks(model, 2, "mlp", lambda x, way=way: x + way * moved)
            with (
                torch.enable_grad(),
                model.hooks({part: lambda value, hook, between=between: between}),
                model.hooks(hooks),
            ):
                logits = model(clean)[0, -1]
                total = logits[1] - logits[3]
            found.append(float(torch.autograd.grad(total, way)[0]) if total.requires_grad else 0.0)  # m2 itself is set
    assert float(result.estimate[0, 0]) == pytest.approx(np.mean(found), abs=1e-10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "eap-ig"}, "unknown method 'eap-ig'"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"verify": -1}, "verify must be 0 or more"),
        ({"metric": "rank"}, "the metric rank has no gradient"),
    ],
)
def test_what_cannot_be_is_named(options, said, pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(InterpError, match=said):
        analyses.edge_attribution(model, clean, corrupt, **asked, **options)
