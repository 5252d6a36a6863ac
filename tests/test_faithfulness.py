"""What circuits compute, against whole hooked runs that settle on it, and a peer's figures; and what is said of it."""

import json
import random
import sys
from contextlib import ExitStack

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_edge_patching import PLANTED, needs_reference, of_cache, peers, written
from test_inputs import split_hooks
from test_options import build, configs

import analyses
import interp
from analyses import Circuit
from analyses.circuits.circuit import graph, shape_of
from analyses.circuits.edges import destinations, sources
from interp import PAD
from interp.errors import ConfigError, HookError, InterpError, ResultError
from interp.names import AXES


def settled(model, clean: torch.Tensor, circuit: Circuit, outside: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits [position, vocab] of a circuit's run: the model is run time and again, every reader reading the sum of what sources wrote
    the time before, or of what they write outside, until nothing changes any more, as it must after one run a half block."""
    config, every = model.config, sources(model.config)
    now, rests = dict(outside), [torch.zeros(1) for _ in range(config.n_layers)]
    now["input"] = written(model, clean, every[0])

    def read(destination) -> torch.Tensor:
        total = sum(
            now[one.name] if f"{one.name}->{destination.name}" in circuit else outside[one.name]
            for one in every
            if one.written < destination.read
        )
        return total + sum(rest for layer, rest in enumerate(rests) if 2 * layer + 1 < destination.read)

    for _ in range(2 * config.n_layers + 2):
        with ExitStack() as stack:
            for one in destinations(config):
                fixed = read(one)
                if one.part == "logits":
                    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
                    hooks = {last: lambda value, hook, fixed=fixed: fixed[None].expand_as(value).clone()}
                else:
                    hooks = split_hooks(model, one.layer, one.part, lambda x, fixed=fixed: fixed, one.head)
                stack.enter_context(model.hooks(hooks))
            logits, cache = model.run_with_cache(clean)
        now |= {one.name: of_cache(model, cache, one) for one in every[1:]}
        heads = [[now[f"a{layer}.h{head}"] for head in range(config.n_heads)] for layer in range(config.n_layers)]
        rests = [cache["hook_attn_out", layer][0] - sum(heads[layer]) for layer in range(config.n_layers)]
    return logits[0]


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6), options=configs.filter(lambda o: o["norm"] == "none" or o["norm_placement"] != "post")
)
def test_equals_runs_that_settle_on_it_for_any_architecture(seed, options):
    model, rng = build(**options), random.Random(seed)
    length = rng.randint(1, 6)
    clean, corrupt = random_tokens(2, length, seed=seed), random_tokens(2, length, seed=seed + 1)
    replacement, at = rng.choice(["resample", "zero", "mean", "mean_by_position"]), rng.randrange(-length, length)
    every = len(graph(shape_of(model)))
    circuits = [Circuit.random(model, rng.randint(0, every), seed + number) for number in range(2)]
    asked = {
        "answer": [1, 2],
        "wrong": [3, 4],
        "replacement": replacement,
        "position": at,
        "random": 0,
        "smallest_gap": 0.0,
    }
    result = analyses.faithfulness(
        model, clean, corrupt, **asked, circuits=circuits, max_bytes=rng.choice([1, 100_000, 2**30])
    )
    pair, number = rng.randrange(2), rng.randrange(2)
    donors = corrupt[pair : pair + 1] if replacement == "resample" else corrupt
    outside = {}
    for one in sources(model.config):
        value = torch.stack([written(model, row[None], one) for row in donors]).mean(0)
        value = value.mean(0).expand_as(value) if replacement == "mean" else value
        outside[one.name] = torch.zeros_like(value) if replacement == "zero" else value
    logits = settled(model, clean[pair : pair + 1], circuits[number], outside)
    expected = logits[at, asked["answer"][pair]] - logits[at, asked["wrong"][pair]]
    assert float(result.value[pair, number]) == pytest.approx(float(expected), abs=1e-10)
    found = analyses.run_circuit(model, circuits[number], clean, corrupt, replacement=replacement)
    torch.testing.assert_close(found[pair], logits, atol=1e-10, rtol=0)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6), options=configs.filter(lambda o: o["norm"] == "none" or o["norm_placement"] != "post")
)
def test_all_edges_are_the_model_and_none_the_corrupt_run(seed, options):
    model = build(**options)
    clean, corrupt = random_tokens(2, 5, seed=seed), random_tokens(2, 5, seed=seed + 1)
    for circuit, tokens in ((Circuit.whole(model), clean), (Circuit.none(model), corrupt)):
        found = analyses.run_circuit(model, circuit, clean, corrupt)
        torch.testing.assert_close(found, model(tokens), atol=1e-10, rtol=0)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6), options=configs.filter(lambda o: o["norm"] == "none" or o["norm_placement"] != "post")
)
def test_without_one_edge_it_is_that_edge_patched_all_the_way_down(seed, options):
    """An edge into the logits, or into the last layer, has nothing behind it through which others could come: there it equals the patch."""
    model = build(**options)
    clean, corrupt = random_tokens(1, 5, seed=seed), random_tokens(1, 5, seed=seed + 1)
    asked = {"answer": 1, "wrong": 3, "smallest_gap": 0.0}
    last = f"a{model.config.n_layers - 1}.h*"
    into = ["logits", f"{last}<q>", f"{last}<v>"]
    exact = analyses.edge_patching(model, clean, corrupt, **asked, destinations=into)
    names = [name for name in exact.edge.values.tolist() if not name.startswith("a2") and not name.startswith("m2->a")]
    some = random.Random(seed).sample(names, 6)
    whole = Circuit.whole(model)
    found = analyses.faithfulness(
        model, clean, corrupt, **asked, random=0, circuits={name: whole - Circuit.of(model, [name]) for name in some}
    )
    change = found.value - found.clean_baseline
    np.testing.assert_allclose(
        change[0],
        [float(exact.change[0, exact.edge.values.tolist().index(name)]) for name in some],
        atol=1e-10,
    )


@needs_reference
def test_a_peers_circuits():
    reference, model = peers()
    scores = dict(zip(reference["edges"], reference["scores"]["EAP-IG-inputs"], strict=True))
    circuits = {str(count): Circuit.from_scores(scores, model=model, count=count) for count in (50, 200)}
    circuits |= {f"{name} pruned": one.pruned() for name, one in circuits.items()}
    result = analyses.faithfulness(model, **reference["asked"], circuits=circuits, random=0)
    for number, name in enumerate(circuits):
        theirs = reference["circuits"][f"top{name.split()[0]}"]
        np.testing.assert_allclose(result.value[:, number], theirs["per_pair"], rtol=1e-6, atol=1e-6)
        assert float(result.faithfulness_of_means[number]) == pytest.approx(theirs["faithfulness"], rel=1e-6)
    np.testing.assert_allclose(result.none_baseline, reference["baselines"]["corrupt_per_pair"], rtol=1e-6)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_edges_are_a_circuit_that_is_faithful(name):
    clean, corrupt, answer, wrong, planted = PLANTED[name]
    model = interp.load(f"circuit:{name}")
    clean, corrupt = torch.tensor([clean]), torch.tensor([corrupt])
    circuit = Circuit.of(model, planted)
    result = analyses.faithfulness(
        model, clean, corrupt, answer=answer, wrong=wrong, random=3,
        circuits={"planted": circuit, "all but one": circuit - Circuit.of(model, [next(iter(planted))])},
    )  # fmt: skip
    assert float(result.faithfulness[0, 0]) == 1
    assert float(result.faithfulness[0, 1]) < 1
    assert result.random_faithfulness.shape == (3, 2)


@pytest.fixture
def pairs():
    return tiny(), random_tokens(8, 6, seed=1), random_tokens(8, 6, seed=2), {"answer": 1, "wrong": 3}


def test_what_a_result_says(pairs, tmp_path):
    model, clean, corrupt, asked = pairs
    circuits = {"small": Circuit.random(model, 40, 1), "large": Circuit.random(model, 90, 2)}
    result = analyses.faithfulness(
        model, clean, corrupt, **asked, circuits=circuits, random=4, seed=5, smallest_gap=0.0
    )
    assert set(result.dims) <= set(AXES)
    assert result.circuit.values.tolist() == ["small", "large"]
    assert result.n_edges.values.tolist() == [40, 90]
    assert result.n_nodes.values.tolist() == [len(one.nodes) for one in circuits.values()]
    gap = result.clean_baseline - result.none_baseline
    np.testing.assert_allclose(result.faithfulness, (result.value - result.none_baseline) / gap, atol=1e-10)
    np.testing.assert_allclose(result.none_baseline, result.corrupt_baseline, atol=1e-10)
    of_means = (result.value.mean("prompt") - result.none_baseline.mean()) / gap.mean()
    np.testing.assert_allclose(result.faithfulness_of_means, of_means, atol=1e-10)
    assert (result.faithfulness_of_means_interval[0] < result.faithfulness_of_means).all()
    assert (result.faithfulness_of_means_interval[1] > result.faithfulness_of_means).all()
    np.testing.assert_allclose(result.faithfulness_mean, result.faithfulness.mean("prompt"), atol=1e-10)
    again = analyses.faithfulness(
        model, clean, corrupt, **asked, circuits=Circuit.random(model, 90, 5 + 2), random=0, smallest_gap=0.0
    )
    np.testing.assert_allclose(again.faithfulness_of_means[0], result.random_faithfulness[2, 1], atol=1e-10)
    assert json.loads(result.attrs["parameters"])["circuits"]["small"] == list(circuits["small"])
    analyses.save(result, tmp_path / "f.nc")
    xr.testing.assert_identical(analyses.load(tmp_path / "f.nc"), result)


def test_prompts_of_unequal_length_each_equal_their_own_run(pairs):
    model, clean, corrupt, asked = pairs
    clean[0, 4:] = corrupt[0, 4:] = PAD
    circuit = Circuit.random(model, 60, 1)
    both = analyses.run_circuit(model, circuit, clean, corrupt)
    alone = analyses.run_circuit(model, circuit, clean[:1, :4], corrupt[:1, :4])
    torch.testing.assert_close(both[:1, :4], alone, atol=1e-12, rtol=0)
    assert both[0, 4:].isnan().all()
    assert not both[1].isnan().any()
    result = analyses.faithfulness(model, clean, corrupt, **asked, circuits=[circuit], random=0, smallest_gap=0.0)
    last = alone[0, -1, 1] - alone[0, -1, 3]
    assert float(result.value[0, 0]) == pytest.approx(float(last), abs=1e-12)


def test_a_metric_that_compares_distributions(pairs):
    model, clean, corrupt, asked = pairs
    circuit = Circuit.random(model, 60, 1)
    result = analyses.faithfulness(model, clean, corrupt, **asked, metric="kl", circuits=circuit, random=0)
    p = model(clean)[1, -1].log_softmax(-1)
    q = analyses.run_circuit(model, circuit, clean, corrupt)[1, -1].log_softmax(-1)
    assert float(result.value[1, 0]) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-10)


def test_single_precision_and_half(pairs):
    model, clean, corrupt, _ = pairs
    circuit = Circuit.random(model, 90, 1)
    exact = analyses.run_circuit(model, circuit, clean, corrupt)
    single = analyses.run_circuit(tiny(dtype=torch.float32), circuit, clean, corrupt)
    torch.testing.assert_close(single.double(), exact, atol=1e-4, rtol=1e-4)
    half = analyses.run_circuit(tiny(dtype=torch.bfloat16), circuit, clean, corrupt)
    torch.testing.assert_close(half.double(), exact, atol=0.5, rtol=0.1)


def test_what_cannot_be_is_named(pairs):
    model, clean, corrupt, asked = pairs
    other = Circuit.whole(build())
    circuit = Circuit.whole(model)
    with pytest.raises(ConfigError, match="of a model of another shape"):
        analyses.run_circuit(model, other, clean, corrupt)
    with pytest.raises(InterpError, match="give at least one circuit"):
        analyses.faithfulness(model, clean, corrupt, **asked, circuits=[])
    with pytest.raises(InterpError, match="unknown replacement 'add'"):
        analyses.run_circuit(model, circuit, clean, corrupt, replacement="add")
    with pytest.raises(ResultError, match="nearly the same"):
        analyses.faithfulness(model, clean, clean, **asked, circuits=circuit)
    with model.hooks({"hook_embed": lambda v, h: None}):
        model(clean)
        with pytest.raises(HookError, match="has hooks attached"):
            analyses.run_circuit(model, circuit, clean, corrupt)


@pytest.fixture(scope="module")
def scored():
    model, clean, corrupt, asked = (
        tiny(),
        random_tokens(8, 6, seed=1),
        random_tokens(8, 6, seed=2),
        {"answer": 1, "wrong": 3},
    )
    exact = analyses.edge_patching(model, clean, corrupt, **asked, smallest_gap=0.0)
    return model, clean, corrupt, asked, exact


SHARES = [0.01, 0.1, 0.5, 1.0]


def test_curves_are_those_of_their_circuits(scored):
    model, clean, corrupt, asked, exact = scored
    result = analyses.faithfulness_curve(
        model,
        clean,
        corrupt,
        **asked,
        scores={"exact": exact, "mine": analyses.edge_scores(exact)},
        shares=SHARES,
        random=2,
    )
    assert set(result.dims) <= set(AXES)
    assert result.estimator.values.tolist() == ["exact", "mine"]
    np.testing.assert_array_equal(result.value.sel(estimator="exact"), result.value.sel(estimator="mine"))
    for share in SHARES:
        for ranking in ("signed", "absolute"):
            circuit = Circuit.from_scores(exact, share=share, absolute=ranking == "absolute").pruned()
            alone = analyses.faithfulness(model, clean, corrupt, **asked, circuits=circuit, random=0, smallest_gap=0.0)
            here = result.sel(estimator="exact", ranking=ranking, share=share)
            assert int(here.n_edges) == len(circuit)
            np.testing.assert_allclose(here.value, alone.value[:, 0], atol=1e-10)
            np.testing.assert_allclose(here.faithfulness, alone.faithfulness_of_means[0], atol=1e-10)
            np.testing.assert_allclose(
                here.faithfulness_interval, alone.faithfulness_of_means_interval[:, 0], atol=1e-10
            )
    np.testing.assert_allclose(result.faithfulness.sel(share=1.0), 1, atol=1e-10)
    np.testing.assert_allclose(result.random_faithfulness.sel(share=1.0), 1, atol=1e-10)


def test_areas_by_hand(scored):
    model, clean, corrupt, asked, exact = scored
    result = analyses.faithfulness_curve(model, clean, corrupt, **asked, scores=exact, shares=SHARES, random=1)
    widths = [0.09, 0.4, 0.5]
    signed = result.faithfulness[0].sel(ranking="signed").values
    absolute = abs(1 - result.faithfulness[0].sel(ranking="absolute").values)
    assert float(result.cpr[0]) == pytest.approx(sum(w * (signed[i] + signed[i + 1]) / 2 for i, w in enumerate(widths)))
    assert float(result.cmd[0]) == pytest.approx(
        sum(w * (absolute[i] + absolute[i + 1]) / 2 for i, w in enumerate(widths))
    )
    assert float(result.cpr_interval[0, 0]) < float(result.cpr[0]) < float(result.cpr_interval[1, 0])
    f = result.random_faithfulness[0].values
    assert float(result.random_cmd[0]) == pytest.approx(
        sum(w * (abs(1 - f[i]) + abs(1 - f[i + 1])) / 2 for i, w in enumerate(widths))
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shares": [0.5]}, "shares must rise"),
        ({"shares": [0.5, 0.5]}, "shares must rise"),
        ({"shares": [0.5, 1.5]}, "share must be a number from 0 to 1"),
        ({"scores": {}}, "scores are a result of edge_patching"),
        ({"scores": {"m0->input": 1.0}}, "there is no edge 'm0->input'"),
    ],
)
def test_curves_that_cannot_be(scored, options, said):
    model, clean, corrupt, asked, exact = scored
    with pytest.raises(InterpError, match=said):
        analyses.faithfulness_curve(model, clean, corrupt, **asked, **({"scores": exact, "shares": SHARES} | options))


def test_scores_of_another_model_are_refused(scored):
    _, clean, corrupt, asked, exact = scored
    with pytest.raises(ResultError, match="of a model of another shape"):
        analyses.faithfulness_curve(build(), clean, corrupt, **asked, scores=exact)
    with pytest.raises(ResultError, match="nearly the same"):
        analyses.faithfulness_curve(tiny(), clean, clean, **asked, scores=exact)


def test_only_one_forward_of_equal_circuits(scored, monkeypatch):
    model, clean, corrupt, asked, exact = scored
    where, seen = sys.modules["analyses.circuits.faithfulness"], []
    run = where.values_of_circuits
    monkeypatch.setattr(where, "values_of_circuits", lambda r, c, p: seen.append(len(c)) or run(r, c, p))
    analyses.faithfulness_curve(
        model, clean, corrupt, **asked, scores={"a": exact, "b": exact}, shares=[0.5, 1.0], random=0
    )
    assert seen == [4]  # signed and by size at one half, everything, nothing


BACKUP = PLANTED["backup"]


def test_a_circuit_without_the_backup_is_faithful_but_not_complete():
    """In the hand-set model head 1.0 takes over only where both heads 0.0 and 0.1 are silent; see the zoo."""
    model = interp.load("circuit:backup")
    clean, corrupt = torch.tensor([BACKUP[0]]), torch.tensor([BACKUP[1]])
    asked = {"answer": BACKUP[2], "wrong": BACKUP[3]}
    circuit = Circuit.of(model, BACKUP[4])
    assert (
        float(analyses.faithfulness(model, clean, corrupt, **asked, circuits=circuit, random=0).faithfulness[0, 0]) == 1
    )
    sets = [["a0.h0"], ["a0.h0", "a0.h1"]]
    result = analyses.completeness(model, clean, corrupt, **asked, circuit=circuit, knocked_out=sets)
    whole = Circuit.whole(model)
    for number, out in enumerate(sets):
        for name, part in (("circuit_value", circuit), ("model_value", whole)):
            alone = analyses.faithfulness(model, clean, corrupt, **asked, circuits=part.without(out), random=0)
            assert float(result[name][0, number]) == float(alone.value[0, 0])
    np.testing.assert_array_equal(result.incompleteness, result.model_value - result.circuit_value)
    assert result.knocked_out.values.tolist() == ["a0.h0", "a0.h0 a0.h1"]


def test_minimality_by_hand():
    model = interp.load("circuit:copying")
    clean, corrupt, answer, wrong, planted = PLANTED["copying"]
    clean, corrupt = torch.tensor([clean]), torch.tensor([corrupt])
    circuit = Circuit.of(model, [*planted, "input->logits"])
    result = analyses.minimality(
        model, clean, corrupt, answer=answer, wrong=wrong, circuit=circuit, knocked_out=[[], ["a0.h0"]]
    )
    assert result.source.values.tolist() == ["input", "a0.h0", "a0.h1"]
    np.testing.assert_array_equal(result.change[0], [[-8, -16, 8], [8, np.nan, 8]])
    assert result.largest.values.tolist() == [-8, -16, 8]
    assert result.largest_knocked_out.values.tolist() == ["nothing", "nothing", "nothing"]


def test_random_sets_of_nodes(pairs):
    model, clean, corrupt, asked = pairs
    circuit = Circuit.random(model, 40, 1)
    complete = analyses.completeness(model, clean, corrupt, **asked, circuit=circuit, draws=4)
    writers = {edge.source.name for edge in circuit.listed}
    names = complete.knocked_out.values.tolist()
    assert set(names[: len(writers)]) == writers
    assert all(set(name.split()) <= writers for name in names)
    assert complete.incompleteness_interval.dims == ("bound", "knocked_out")
    minimal = analyses.minimality(model, clean, corrupt, **asked, circuit=circuit, draws=3)
    for number, out in enumerate(minimal.knocked_out.values.tolist()):
        for place, node in enumerate(minimal.source.values.tolist()):
            assert bool(minimal.change[:, number, place].isnull().all()) == (node in out.split())
    with pytest.raises(InterpError, match="there is no node 'a9.h1'"):
        analyses.minimality(model, clean, corrupt, **asked, circuit=circuit, knocked_out=[["a9.h1"]])
    with pytest.raises(InterpError, match="a list of lists of nodes"):
        analyses.completeness(model, clean, corrupt, **asked, circuit=circuit, knocked_out=["a0.h1"])
    with pytest.raises(InterpError, match="no nodes to take out"):
        analyses.completeness(model, clean, corrupt, **asked, circuit=Circuit.none(model))


def test_bounded_memory_and_one_run_at_a_time(pairs):
    model, clean, corrupt, asked = pairs
    circuits = [Circuit.random(model, 50, number) for number in range(3)]
    how = {"circuits": circuits, "random": 0, "smallest_gap": 0.0}
    small = analyses.faithfulness(model, clean, corrupt, **asked, **how, max_bytes=1)
    large = analyses.faithfulness(model, clean, corrupt, **asked, **how)
    np.testing.assert_allclose(small.value, large.value, atol=1e-12)


def shares_a_scale(config) -> bool:
    return (config.norm != "none" and config.norm_placement in ("output", "both")) or config.qk_norm == "whole"


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_pruning_changes_nothing_where_the_rest_carries_the_corrupt_run(seed, options):
    model = build(**options)
    if not model.config.is_sum or shares_a_scale(model.config):
        return
    clean, corrupt = (
        random_tokens(1, 5, seed, model.config.d_vocab),
        random_tokens(1, 5, seed + 1, model.config.d_vocab),
    )
    every = len(graph(shape_of(model)))
    circuit = Circuit.random(model, random.Random(seed).randint(1, every // 2), seed)
    whole, pruned = (analyses.run_circuit(model, one, clean, corrupt) for one in (circuit, circuit.pruned()))
    torch.testing.assert_close(whole, pruned, atol=1e-9, rtol=1e-9)


ORPHAN = ["input->m0", "m0->logits", "m1->logits"]
"""No edge of the circuit runs into MLP 1."""


@pytest.mark.parametrize("replacement", ["zero", "mean", "mean_by_position"])
def test_with_zeros_or_means_pruning_puts_a_node_at_its_replacement(replacement):
    model, clean, corrupt = tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2)
    circuit = Circuit.of(model, ORPHAN)
    whole, pruned = (
        analyses.run_circuit(model, one, clean, corrupt, replacement=replacement) for one in (circuit, circuit.pruned())
    )
    assert float((whole - pruned).abs().max()) > 1e-3
    assert circuit.pruned() == Circuit.of(model, ORPHAN[:2])


def test_in_a_curve_every_circuit_is_pruned_random_ones_too(pairs):
    model, clean, corrupt, asked = pairs
    given_scores = dict.fromkeys(graph(shape_of(model)), 0.0) | dict.fromkeys(ORPHAN, 1.0)
    every, options = len(given_scores), {"replacement": "zero", "random": 0, "smallest_gap": 0.0}
    share = 3 / every + 1e-9
    curve = analyses.faithfulness_curve(
        model, clean, corrupt, **asked, scores=given_scores, shares=[share, 1.0], **options
    )
    alone = analyses.faithfulness(
        model, clean, corrupt, **asked, circuits=Circuit.of(model, ORPHAN).pruned(), **options
    )
    np.testing.assert_allclose(curve.value[:, 0, 0, 0], alone.value[:, 0], atol=1e-12)
    assert curve.n_edges[0, 0].values.tolist() == [2, every]
    with_draws = analyses.faithfulness_curve(
        model, clean, corrupt, **asked, scores=given_scores, shares=[0.0, share], **options | {"random": 3}
    )
    assert (with_draws.random_faithfulness[:, 1] == 0).all()  # three edges at random make no path


def test_a_curve_of_scores_that_some_edges_lack_is_named(pairs):
    model, clean, corrupt, asked = pairs
    some = analyses.edge_patching(model, clean, corrupt, **asked, destinations="logits", smallest_gap=0.0)
    for scores in (some, {"input->m0": float("nan")}, {"input->m0": 1.0}):
        with pytest.raises(InterpError, match="have a score"):
            analyses.faithfulness_curve(model, clean, corrupt, **asked, scores=scores, random=0)


def test_reference_prompts_without_a_mean_are_named(pairs):
    model, clean, corrupt, asked = pairs
    heads = {"heads": [(0, 1)], "controls": 0}
    calls = {
        analyses.edge_patching: {}, analyses.edge_attribution: {}, analyses.path_patching: {}, analyses.activation_patching: {},
        analyses.attribution_patching: {}, analyses.faithfulness: {"circuits": Circuit.whole(model)},
    }  # fmt: skip
    for call, more in calls.items():
        for replacement in ("resample", "zero"):
            with pytest.raises(InterpError, match="means are taken over"):
                call(model, clean, corrupt, **asked, **more, replacement=replacement, reference=clean)
    with pytest.raises(InterpError, match="means are taken over"):
        analyses.ablate_heads(model, clean, **asked, **heads, replacement="zero", reference=clean)


def test_an_empty_circuit_is_not_minimal(pairs):
    model, clean, corrupt, asked = pairs
    for call in (analyses.minimality, analyses.completeness):
        with pytest.raises(InterpError, match="no nodes to take out"):
            call(model, clean, corrupt, **asked, circuit=Circuit.none(model))
