"""RelP and AtP* against plain arithmetic, whole hooked runs and models set by hand; several methods in one call."""

import json
import random

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_edge_patching import PLANTED, needs_reference, peers, written
from test_inputs import split_hooks
from test_options import build, configs

import analyses
import interp
from analyses.circuits.edges import destinations, edges
from analyses.circuits.relevance import relevance_hooks, through_zero
from interp import PAD, ModelConfig, Transformer
from interp.errors import ConfigError, InterpError, ResultError
from interp.model import ACTIVATIONS
from interp.names import AXES

summed = configs.filter(lambda o: o["norm"] == "none" or o["norm_placement"] != "post")


def ratio(values, x, at_zero):
    """What an activation multiplies by, as a constant."""
    return torch.where(x == 0, at_zero, values / x).detach()


def linear_logits(model, tokens, destination, change):
    """Logits of one prompt from the definitions, all that RelP holds being constants, where one reader reads `change(stream)`."""
    c, w, cache = model.config, model.state_dict(), model.run_with_cache(tokens)[1]
    part, where, alone = destination.part, destination.layer, destination.head

    def held(x, name):
        if f"{name}.weight" not in w:
            return x
        x = x - x.mean(-1, keepdim=True) if c.norm == "layernorm" else x
        return x / (x.square().mean(-1, keepdim=True) + c.norm_eps).sqrt().detach() * w[f"{name}.weight"] + w.get(
            f"{name}.bias", 0.0
        )

    def linear(x, name, rows=slice(None)):
        return x @ w[f"{name}.weight"][rows].T + (w[f"{name}.bias"][rows] if f"{name}.bias" in w else 0.0)

    reads_normed = c.norm != "none" and c.norm_placement in ("pre", "both")
    x, size, kv = cache["blocks.0.hook_resid_pre"][0], c.d_head, c.kv_heads
    for layer in range(c.n_layers):
        block, entering, heads = f"blocks.{layer}", x, []

        def read(stream, norm, mine, block=block):
            stream = change(stream) if mine else stream
            return held(stream, f"{block}.{norm}") if reads_normed else stream

        for head in range(c.n_heads):
            group = head // (c.n_heads // kv)
            mine = (part, where, alone) == ("v", layer, group)
            start = (c.n_heads + kv + group) * size
            v = linear(read(entering, "ln1", mine), f"{block}.attn.qkv", slice(start, start + size))
            heads.append(cache[f"{block}.attn.hook_pattern"][0, head] @ v)
        attended = linear(torch.cat(heads, -1), f"{block}.attn.o")
        x = entering + held(attended, f"{block}.ln1_post")
        if c.mlp == "none":
            continue
        into = read(entering if c.parallel else x, "ln2", (part, where) == ("mlp", layer))
        function = ACTIVATIONS[c.activation]
        pre = linear(into, f"{block}.mlp.{'gate' if c.mlp == 'gated' else 'input'}")
        by = ratio(function(pre), pre, 0.0 if c.activation == "relu" else 0.5)
        post = pre * by
        if c.mlp == "gated":
            up = linear(into, f"{block}.mlp.input")
            post = (pre * (by * up).detach() + (pre * by).detach() * up) / 2
        x = x + held(linear(post, f"{block}.mlp.output"), f"{block}.ln2_post")
    x = change(x) if part == "logits" else x
    logits = held(x, "ln_final") @ model.W_U + (0.0 if model.b_U is None else model.b_U)
    cap = c.logit_cap
    return logits if cap is None else logits * ratio(cap * torch.tanh(logits / cap), logits, 1.0)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), options=summed)
def test_relp_equals_the_derivative_of_a_linear_model_with_a_split_input(seed, options):
    model, rng = build(**options), random.Random(seed)
    length = rng.randint(1, 6)
    clean, corrupt = random_tokens(2, length, seed=seed), random_tokens(2, length, seed=seed + 1)
    into = rng.sample([one.name for one in destinations(model.config)], 6)
    result = analyses.edge_attribution(
        model, clean, corrupt, answer=[1, 2], wrong=[3, 4], method="relp", verify=0, destinations=into,
        max_bytes=rng.choice([1, 2**30]),
    )  # fmt: skip
    found = edges(model.config, destinations=into)
    for number in rng.sample(range(len(found)), min(6, len(found))):
        edge, pair = found[number], rng.randrange(2)
        run, donors = clean[pair : pair + 1], corrupt[pair : pair + 1]
        estimate = float(result.estimate[pair, number])
        if edge.destination.part in "qk":
            assert estimate == 0
            continue
        moved = written(model, donors, edge.source) - written(model, run, edge.source)
        way = torch.zeros((), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            logits = linear_logits(model, run, edge.destination, lambda x, way=way, moved=moved: x + way * moved)
        torch.testing.assert_close(logits.detach(), model(run)[0], atol=1e-10, rtol=0)
        total = logits[-1, [1, 2][pair]] - logits[-1, [3, 4][pair]]
        expected = torch.autograd.grad(total, way, allow_unused=True)[0] if total.requires_grad else None
        assert estimate == pytest.approx(0.0 if expected is None else float(expected), abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mlp": "gated", "activation": "silu", "norm": "rmsnorm", "norm_placement": "both", "positions": "rotary"},
        {"parallel": True, "logit_cap": 2.0, "n_kv_heads": 2, "qk_norm": "whole", "activation": "relu"},
        {"mlp": "none", "score_cap": 0.7, "norm_placement": "output"},
    ],
)
def test_relevance_is_conserved_without_biases(options):
    """Through every cut of the graph, what all edges carry sums to the logit difference."""
    config = ModelConfig(
        n_layers=3, d_model=16, n_heads=4, d_head=4, d_mlp=12, n_ctx=8, d_vocab=20, init_std=0.4, bias=False, **options
    )
    model, tokens = tiny(config=config), random_tokens(2, 6, vocab=20)
    asked = {"answer": 1, "wrong": 3, "replacement": "zero", "verify": 0}
    result = analyses.edge_attribution(model, tokens, tokens, **asked, method="relp")
    whole = -result.clean_baseline.values
    assert (np.abs(whole) > 1e-3).all()
    found = edges(config)
    for cut in range(2 * config.n_layers + 1):
        through = [n for n, e in enumerate(found) if e.source.written <= cut < e.destination.read]
        if config.parallel and cut % 2:
            continue  # heads and the MLP of a block write together
        np.testing.assert_allclose(result.estimate.values[:, through].sum(1), whole, atol=1e-10, err_msg=str(cut))
    into_logits = result.estimate.sel(edge=[edge.name for edge in found if edge.destination.part == "logits"])
    np.testing.assert_allclose(into_logits.sum("edge"), whole, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"mlp": "gated", "norm": "rmsnorm"}])
def test_relevance_leaves_the_values_of_a_run(options):
    model, tokens = build(**options), random_tokens(2, 5)
    logits, cache = model.run_with_cache(tokens)
    with torch.enable_grad(), model.hooks(relevance_hooks(model)):
        again, others = model.run_with_cache(tokens)
    torch.testing.assert_close(again, logits, atol=1e-12, rtol=0)
    for name, value in cache.items():
        torch.testing.assert_close(others[name].detach(), value, atol=1e-12, rtol=0, msg=name)


@pytest.mark.parametrize(("name", "at_zero"), [("gelu", 0.5), ("gelu_new", 0.5), ("relu", 0.0), ("silu", 0.5)])
def test_activations_through_zero(name, at_zero):
    x = torch.tensor([-2.0, 0.0, 1e-8, 3.0], dtype=torch.float64, requires_grad=True)
    value = through_zero(ACTIVATIONS[name], x)
    torch.testing.assert_close(value, ACTIVATIONS[name](x))
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert float(slope[1]) == at_zero
    torch.testing.assert_close(slope[[0, 2, 3]], (value / x)[[0, 2, 3]])


BARE = {"positions": "none", "norm": "none", "bias": False, "tied": False, "n_heads": 1, "d_head": 2, "n_ctx": 4}


def bare(n_layers, d_model, d_mlp, **options):
    """A model of MLPs alone, which its logits are the stream of; weights to be set."""
    config = ModelConfig(n_layers=n_layers, d_model=d_model, d_mlp=d_mlp, d_vocab=2, **BARE, **options)
    model = Transformer(config, seed=None)
    model.load_state_dict(
        {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in model.state_dict().items()}, assign=True
    )
    model.requires_grad_(False).eval()
    model.unembedding.copy_(torch.eye(2, d_model))
    return model


def test_relp_by_hand():
    """A gated MLP multiplies the stream with itself: (2, 3) becomes (4, 9), the coefficients are halves of twice 2 and 3."""
    model = bare(1, 2, 2, mlp="gated", activation="relu")
    model.W_E.copy_(torch.tensor([[2.0, 3.0], [1.0, 5.0]]))
    for name in ("input", "gate", "output"):
        getattr(model.blocks[0].mlp, name).weight.copy_(torch.eye(2))
    runs = torch.tensor([[0]]), torch.tensor([[1]])
    result = analyses.edge_attribution(
        model, *runs, answer=0, wrong=1, method=["relp", "eap"], sources="input", destinations=["m0", "logits"]
    )
    assert result.edge.values.tolist() == ["input->m0", "input->logits"]
    assert result.estimate.values[:, 0].tolist() == [[2 * -1 - 3 * 2, -1 - 2], [4 * -1 - 6 * 2, -1 - 2]]
    assert result.change.values.tolist() == [[(1 - 25) - (4 - 9), -3]]


def additive():
    """m0 copies what enters; m1 writes -2 and m2 writes 3 times the first number of the stream into the second."""
    model = bare(3, 2, 1, activation="relu")
    model.W_E.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    for layer, (into, size) in enumerate([(0, 1.0), (1, -2.0), (1, 3.0)]):
        mlp = model.blocks[layer].mlp
        mlp.input.weight.copy_(torch.tensor([[1.0, 0.0]]))
        mlp.output.weight[into, 0] = size
    return model


def test_slopes_without_each_block_by_hand():
    """The metric is the first number less the second. By m0's input: 1 + 2 - 3 = 0; without m1 1 - 3, without m2 1 + 2."""
    model, runs = additive(), (torch.tensor([[0]]), torch.tensor([[1]]))
    into = ["m0", "m1", "m2", "logits"]
    result = analyses.edge_attribution(
        model, *runs, answer=0, wrong=1, method=["atp_star", "eap"], sources="input", destinations=into, verify=0
    )
    assert result.edge.values.tolist() == [f"input->{one}" for one in into]
    assert result.estimate.values[:, 0].tolist() == [[(2 + 3) / 2, 2, -3, 1], [0, 2, -3, 1]]


@pytest.mark.parametrize("name", ["duplicate-token", "induction"])
def test_saturated_attention_is_computed_anew(name):
    """In circuits set by hand the answer is linear in what heads read, so that AtP* is exact where EAP sees nothing."""
    clean, corrupt, answer, wrong, planted = PLANTED[name]
    runs = torch.tensor([clean]), torch.tensor([corrupt])
    result = analyses.edge_attribution(
        interp.load(f"circuit:{name}"), *runs, answer=answer, wrong=wrong, method=["eap", "atp_star"], verify=0
    )
    by_edge = result.estimate.isel(prompt=0).to_series().unstack("estimator")
    into = {edge: change for edge, change in planted.items() if edge.endswith(("<q>", "<k>"))}
    assert into
    for edge, change in into.items():
        assert by_edge.loc[edge, "atp_star"] == pytest.approx(change, rel=1e-5)
        assert abs(by_edge.loc[edge, "eap"]) < abs(change) / 100


def dropped(model, layer):
    """Hooks that leave no slope through what a block writes."""
    points = [f"blocks.{layer}.{name}" for name in ("hook_attn_out", "hook_mlp_out")]
    return [(name, lambda value, hook: value.detach()) for name in points if name in model.hook_points]


def star(model, tokens, edge, moved, answer, wrong):
    """AtP* from whole hooked runs."""
    c, to = model.config, edge.destination
    way = torch.zeros((), dtype=torch.float64, requires_grad=True)
    if to.part in "qk":
        z = f"blocks.{to.layer}.attn.hook_z"
        with (
            model.hooks(split_hooks(model, to.layer, to.part, lambda x: x + moved, to.head)),
            model.capture(z) as there,
        ):
            model(tokens)
        change = there[z] - model.run_with_cache(tokens)[1][z]
        hooks = {z: lambda value, hook: value + way * change}
    elif to.part == "logits":
        hooks = {f"blocks.{c.n_layers - 1}.hook_resid_post": lambda value, hook: value + way * moved}
    else:
        hooks = split_hooks(model, to.layer, to.part, lambda x: x + way * moved, to.head)
    found = []
    for layer in [None, *(one for one in range(c.n_layers) if one != to.layer)]:
        without = [] if layer is None else dropped(model, layer)
        with torch.enable_grad(), model.hooks([*hooks.items(), *without]):
            logits = model(tokens)[0, -1]
            total = logits[answer] - logits[wrong]
        slope = torch.autograd.grad(total, way, allow_unused=True)[0] if total.requires_grad else None
        found.append(0.0 if slope is None else float(slope))
    return (np.mean(np.abs(found[1:])) if len(found) > 1 else abs(found[0])), found[0]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), options=summed.filter(lambda o: o["qk_norm"] != "whole"))
def test_atp_star_equals_whole_hooked_runs(seed, options):
    rng = random.Random(seed)
    model = build(**options, n_layers=rng.choice([1, 3])) if options["windowed_layers"] is None else build(**options)
    length = rng.randint(1, 6)
    clean, corrupt = random_tokens(2, length, seed=seed), random_tokens(2, length, seed=seed + 1)
    direction = rng.choice(["noising", "denoising"])
    into = rng.sample([one.name for one in destinations(model.config)], 6)
    result = analyses.edge_attribution(
        model, clean, corrupt, answer=[1, 2], wrong=[3, 4], method="atp_star", verify=0, destinations=into,
        direction=direction, max_bytes=rng.choice([1, 2**30]),
    )  # fmt: skip
    own, other = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    found = edges(model.config, destinations=into)
    for number in rng.sample(range(len(found)), min(6, len(found))):
        edge, pair = found[number], rng.randrange(2)
        run, donors = own[pair : pair + 1], other[pair : pair + 1]
        moved = written(model, donors, edge.source) - written(model, run, edge.source)
        size, plain = star(model, run, edge, moved, [1, 2][pair], [3, 4][pair])
        estimate = float(result.estimate[pair, number])
        assert abs(estimate) == pytest.approx(size, abs=1e-9)
        assert abs(plain) < 1e-9 or estimate * plain >= 0


def test_prompts_of_unequal_length_each_equal_their_own_estimates():
    model, clean, corrupt = tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2)
    clean[0, 4:] = corrupt[0, 4:] = PAD
    asked = {"answer": 1, "wrong": 3, "method": ["relp", "atp_star"], "verify": 0}
    both = analyses.edge_attribution(model, clean, corrupt, **asked)
    alone = analyses.edge_attribution(model, clean[:1, :4], corrupt[:1, :4], **asked)
    np.testing.assert_allclose(both.estimate[:, 0], alone.estimate[:, 0], atol=1e-12)


ALL = ["eap", "eap_ig_inputs", "eap_ig_activations", "clean_corrupted", "relp", "atp_star"]


@pytest.fixture
def pairs():
    return tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2), {"answer": 1, "wrong": 3, "steps": 2}


def test_several_methods_are_each_by_itself(pairs, tmp_path):
    model, clean, corrupt, asked = pairs
    together = analyses.edge_attribution(model, clean, corrupt, **asked, method=ALL, verify=4)
    assert set(together.dims) <= set(AXES)
    assert together.estimate.dims == together.error.dims == ("estimator", "prompt", "edge")
    assert together.change.dims == ("prompt", "edge")
    assert together.rank_correlation.dims == ("estimator",)
    assert together.estimator.values.tolist() == json.loads(together.attrs["parameters"])["method"] == ALL
    checked = set()
    for method in ALL:
        alone = analyses.edge_attribution(model, clean, corrupt, **asked, method=method, verify=4)
        one = together.sel(estimator=method)
        for name in ("estimate", "estimate_mean", "estimate_standard_error", "estimate_interval"):
            assert alone[name].dims == one[name].dims
            np.testing.assert_allclose(one[name], alone[name], atol=1e-12)
        mine = np.isfinite(alone.change.values)
        np.testing.assert_allclose(one.change.values[mine], alone.change.values[mine], atol=1e-12)
        checked |= set(np.flatnonzero(mine.all(0)).tolist())
        there = np.isfinite(together.change_mean.values)
        spearman = stats.spearmanr(one.estimate_mean.values[there], one.change_mean.values[there])[0]
        assert float(one.rank_correlation) == pytest.approx(spearman)
    assert set(np.flatnonzero(np.isfinite(together.change.values).all(0)).tolist()) == checked
    assert 4 < len(checked) <= 24
    np.testing.assert_allclose(together.error, together.estimate - together.change, atol=1e-12)
    analyses.save(together, tmp_path / "several.nc")
    assert analyses.load(tmp_path / "several.nc").identical(together)


def test_methods_share_their_runs(pairs):
    model, clean, corrupt, asked = pairs

    def passes(methods):
        seen = []
        with model.hooks({"blocks.0.hook_resid_pre": lambda value, hook: seen.append(1)}):
            analyses.edge_attribution(model, clean, corrupt, **asked, method=methods, verify=0, destinations="m2")
        return len(seen)

    besides = passes(["eap"]) - 1
    expected = {"eap": 1, "relp": 1, "atp_star": 1, "clean_corrupted": 2, "eap_ig_inputs": 3, "eap_ig_activations": 14}
    # the run that is patched is among those with share 0, and one more for the others
    for method, count in expected.items():
        assert passes([method]) == passes(method) == besides + count, method
    assert passes(["eap", "clean_corrupted", "atp_star"]) == besides + 2  # shares 0 and 1
    assert passes(["eap", "eap_ig_inputs"]) == besides + 3  # 1 and 1 / 2 are theirs
    assert (
        passes(ALL) == besides + 16
    )  # that of RelP, and share 1; 0 and 1 / 2 of the input are among those of activations


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ([], "the list of methods is empty"),
        (["eap", "relp", "eap"], "the method 'eap' is named twice"),
        (["eap", "atp"], "unknown method 'atp'"),
        (("relp", "RelP"), "unknown method 'RelP'"),
    ],
)
def test_lists_of_methods_that_cannot_be(method, said, pairs):
    model, clean, corrupt, asked = pairs
    with pytest.raises(InterpError, match=f"edge_attribution: {said}"):
        analyses.edge_attribution(model, clean, corrupt, **asked, method=method)


@pytest.mark.parametrize("method", ["atp_star", ["eap", "atp_star"]])
def test_a_norm_that_ties_all_heads_is_named(method):
    model, runs = build(qk_norm="whole"), (random_tokens(1, 4), random_tokens(1, 4, seed=1))
    with pytest.raises(ConfigError, match="qk_norm='whole'.* ties all heads together"):
        analyses.edge_attribution(model, *runs, answer=1, wrong=2, method=method)
    analyses.edge_attribution(model, *runs, answer=1, wrong=2, method=["eap", "relp"], verify=0)


@pytest.mark.parametrize("metric", ["kl", "probability", "cross_entropy"])
def test_other_metrics_behind_a_soft_cap(metric):
    """By the edge into the logits, from its definition: the metric's own slope, then the line through zero."""
    model, runs = build(logit_cap=2.0), (random_tokens(1, 5), random_tokens(1, 5, seed=1))
    result = analyses.edge_attribution(
        model, *runs, answer=1, metric=metric, method="relp", sources="m2", destinations="logits", verify=0,
        direction="denoising",
    )  # fmt: skip
    clean, corrupt = runs
    way = torch.zeros((), dtype=torch.float64, requires_grad=True)
    source = edges(model.config, sources="m2")[0].source
    moved = written(model, clean, source) - written(model, corrupt, source)
    to = destinations(model.config)[-1]
    with torch.enable_grad():
        log_p = linear_logits(model, corrupt, to, lambda x: x + way * moved)[-1].log_softmax(-1)
        truth = model(clean)[0, -1].log_softmax(-1)
        total = {
            "kl": (truth.exp() * (truth - log_p)).sum(), "probability": log_p[1].exp(), "cross_entropy": -log_p[1],
        }[metric]  # fmt: skip
    assert float(result.estimate[0, 0]) == pytest.approx(float(torch.autograd.grad(total, way)[0]), abs=1e-10)


@needs_reference
def test_correlations_with_a_peers_exact_scores():
    reference, model = peers()
    result = analyses.edge_attribution(
        model, **reference["asked"], method=["eap", "eap_ig_inputs", "relp", "atp_star"], verify=0
    )
    exact = dict(zip(reference["edges"], reference["scores"]["exact"], strict=True))
    change = np.array([-exact[name] for name in result.edge.values])
    looks = np.array([name.endswith(("<q>", "<k>")) for name in result.edge.values])
    by = {name: result.estimate_mean.sel(estimator=name).values for name in result.estimator.values}
    pearson = lambda name, some: float(np.corrcoef(by[name][some], change[some])[0, 1])  # noqa: E731
    everything = np.ones_like(looks)
    assert float(stats.spearmanr(by["atp_star"], change)[0]) > float(stats.spearmanr(by["eap"], change)[0]) > 0.88
    assert pearson("atp_star", looks) > 0.98 > 0.7 > pearson("eap", looks)
    assert pearson("relp", everything) > 0.994 > pearson("eap", everything)


def test_figures_show_every_method_and_the_exact_change(pairs):
    model, clean, corrupt, asked = pairs
    result = analyses.edge_attribution(model, clean, corrupt, **asked, method=ALL, verify=4)
    figure = analyses.plot(result, top=5)
    assert len(figure.data) == len(ALL) + 1
    size = np.abs(result.estimate_mean.values).max(0)
    order = np.argsort(-size, kind="stable")[:5][::-1]
    for number, trace in enumerate(figure.data[:-1]):
        np.testing.assert_array_equal(trace.x, result.estimate_mean.values[number, order])
    np.testing.assert_array_equal(figure.data[-1].x, result.change_mean.values[order])
    assert len({trace.marker.color for trace in figure.data}) == len({trace.name for trace in figure.data}) == 7
    heights = [trace.y[0] for trace in figure.data]
    assert len(set(heights)) == 7
    assert max(map(abs, heights)) < 0.5
    one = analyses.plot(result.sel(estimator="relp"), top=5, prompt=1)
    assert len(one.data) == 2
    assert "RelP" in one.layout.title.text
    assert "EAP" not in one.layout.title.text
    many = result.isel(estimator=[0, 1, 2, 3, 4, 5, 0])
    with pytest.raises(ResultError, match="7 methods"):
        analyses.plot(many)
