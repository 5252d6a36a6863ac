"""Circuits as objects: chosen by scores, pruned, combined; against a peer's, and by hand."""

import json
import random

import numpy as np
import pytest
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_edge_patching import needs_reference, peers
from test_options import build, configs

import analyses
from analyses import Circuit
from analyses.circuits.circuit import graph, readers_of, shape_of
from analyses.circuits.edges import Shape
from analyses.report.circuit import circuit_of
from interp.errors import ConfigError, InterpError, ResultError, TokenError

SHAPE = Shape(n_layers=2, n_heads=2, kv_heads=2)


def of(*names: str) -> Circuit:
    return Circuit(SHAPE, frozenset(names))


def test_what_a_circuit_says_of_itself():
    circuit = of("m0->logits", "input->m0", "a0.h1->a1.h0<q>")
    assert list(circuit) == ["input->m0", "a0.h1->a1.h0<q>", "m0->logits"]
    assert circuit.nodes == ["input", "a0.h1", "m0", "a1.h0", "logits"]
    assert repr(circuit) == "Circuit of 3 of 46 edges, 5 nodes"
    assert circuit.share == 3 / 46
    assert "input->m0" in circuit
    assert "input->m1" not in circuit
    assert len(Circuit.whole(SHAPE)) == 46
    assert circuit.complement() | circuit == Circuit.whole(SHAPE)
    assert circuit.complement() & circuit == Circuit.none(SHAPE)


def test_only_what_lies_on_a_path_is_left():
    assert of("m0->logits", "input->m0", "a0.h1->a1.h0<q>").pruned() == of("input->m0", "m0->logits")
    assert of("a0.h0->m0", "m0->logits").pruned() == Circuit.none(SHAPE)
    through_a_key = of("input->a1.h0<k>", "a1.h0->m1", "m1->logits")
    assert through_a_key.pruned() == through_a_key
    assert of("input->m0", "m0->a1.h1<v>", "a1.h0->logits").pruned() == Circuit.none(SHAPE)


def test_heads_that_share_keys_share_what_is_read():
    shape = Shape(n_layers=2, n_heads=4, kv_heads=2)
    circuit = Circuit(shape, frozenset(["input->a0.h1<k>", "a0.h3->logits"]))
    assert circuit.pruned() == circuit
    assert circuit.nodes == ["input", "a0.h3", "logits"]
    assert Circuit(shape, frozenset(["input->a0.h1<k>"])).nodes == ["input", "a0.h2", "a0.h3"]
    assert not Circuit(shape, frozenset(["input->a0.h0<k>", "a0.h3->logits"])).pruned()


def test_a_node_goes_with_the_edges_out_of_it():
    circuit = of("input->m0", "input->m1", "m0->m1", "m1->logits")
    assert circuit.without("m0") == of("input->m0", "input->m1", "m1->logits")
    assert circuit.without(["input", "m*"]) == Circuit.none(SHAPE)
    with pytest.raises(InterpError, match="there is no node 'm7'"):
        circuit.without("m7")


def test_sets():
    a, b = of("input->m0", "m0->m1"), of("m0->m1", "m1->logits")
    assert a | b == of("input->m0", "m0->m1", "m1->logits")
    assert a & b == of("m0->m1")
    assert a - b == of("input->m0")
    assert a ^ b == of("input->m0", "m1->logits")
    assert of("m0->m1") <= a
    assert not a <= b
    assert a.overlap(b) == 1 / 3
    assert np.isnan(Circuit.none(SHAPE).overlap(Circuit.none(SHAPE)))
    with pytest.raises(InterpError, match="models of different shape"):
        a | Circuit.none(Shape(n_layers=3, n_heads=2, kv_heads=2))
    with pytest.raises(InterpError, match="combined with another one, not with set"):
        a | {"m0->m1"}


SCORES = {"input->m0": 1.0, "m0->m1": -3.0, "m1->logits": 2.0, "input->logits": 0.5, "a0.h0->m1": float("nan")}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"count": 2}, ["m0->m1", "m1->logits"]),
        ({"count": 2, "absolute": False}, ["input->m0", "m1->logits"]),
        ({"threshold": 1.0}, ["input->m0", "m0->m1", "m1->logits"]),
        ({"threshold": 1.0, "absolute": False}, ["input->m0", "m1->logits"]),
        ({"share": 0.03}, ["m0->m1"]),
        ({"share": 0.0}, []),
        ({"count": 2, "greedy": True}, ["m0->m1", "m1->logits"]),
        ({"count": 2, "greedy": True, "absolute": False}, ["input->logits", "m1->logits"]),
        ({"count": 3, "greedy": True}, ["input->m0", "m0->m1", "m1->logits"]),
    ],
)
def test_chosen_by_scores(options, found):
    circuit = Circuit.from_scores(SCORES, model=SHAPE, **options)
    assert sorted(circuit) == found
    assert circuit.scores == {name: SCORES[name] for name in found}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of count, share and threshold"),
        ({"count": 1, "share": 0.5}, "give one of count, share and threshold"),
        ({"count": -1}, "count must be at least 0"),
        ({"count": 56}, "56 edges asked for of 46"),
        ({"share": 2.0}, "share must be a number from 0 to 1"),
        ({"threshold": 1.0, "greedy": True}, "a greedy choice takes count or share"),
    ],
)
def test_choices_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        Circuit.from_scores(SCORES, model=SHAPE, **options)


def test_names_that_are_no_edges():
    with pytest.raises(InterpError, match="there is no edge 'm1->m0'"):
        of("m1->m0")
    with pytest.raises(InterpError, match="there is no edge 'm1->m0'"):
        Circuit.from_scores({"m1->m0": 1.0}, model=SHAPE, count=1)
    with pytest.raises(InterpError, match="give a list of edges, not"):
        Circuit.of(SHAPE, "input->m0")
    with pytest.raises(InterpError, match="scores by name need model="):
        Circuit.from_scores(SCORES, count=1)
    with pytest.raises(ConfigError, match="post-norm"):
        Circuit.whole(build(norm="layernorm", norm_placement="post"))


def test_random_circuits():
    drawn = [Circuit.random(SHAPE, 10, seed) for seed in range(30)]
    assert {len(one) for one in drawn} == {10}
    assert drawn[0] == Circuit.random(SHAPE, 10, 0)
    assert frozenset().union(*(one.edges for one in drawn)) == Circuit.whole(SHAPE).edges
    with pytest.raises(InterpError, match="56 edges asked for of 46"):
        Circuit.random(SHAPE, 56)


@pytest.fixture
def results():
    model, clean, corrupt = tiny(), random_tokens(3, 6, seed=1), random_tokens(3, 6, seed=2)
    asked = {"answer": 1, "wrong": 3}
    exact = {
        way: analyses.edge_patching(model, clean, corrupt, **asked, direction=way, smallest_gap=0.0)
        for way in ("noising", "denoising")
    }
    return model, exact, analyses.edge_attribution(model, clean, corrupt, **asked, verify=0)


def test_scores_say_what_helps_the_answer(results):
    model, exact, estimated = results
    gap = float((exact["noising"].clean_baseline - exact["noising"].corrupt_baseline).mean())
    for way, sign in (("noising", -1), ("denoising", 1)):
        scores = analyses.edge_scores(exact[way])
        np.testing.assert_allclose(list(scores.values()), sign * np.sign(gap) * exact[way].change_mean, atol=1e-12)
    circuit = Circuit.from_scores(estimated, count=7)
    assert circuit.shape == shape_of(model)
    largest = estimated.edge.values[np.argsort(-np.abs(estimated.estimate_mean.values))[:7]]
    assert circuit.edges == set(largest)
    one = analyses.edge_scores(estimated, prompt=2)
    np.testing.assert_allclose(np.abs(list(one.values())), np.abs(estimated.estimate[2]), atol=1e-12)


def test_results_that_score_no_edges(results):
    model, _, estimated = results
    with pytest.raises(ResultError, match="there is no pair 3; the result has 3"):
        analyses.edge_scores(estimated, prompt=3)
    with pytest.raises(ResultError, match="say method=; the result has eap_ig_inputs"):
        analyses.edge_scores(estimated, method="eap")
    with pytest.raises(ResultError, match="of kind 'logit_lens'"):
        analyses.edge_scores(analyses.logit_lens(model, random_tokens(1, 4)))
    by_position = analyses.edge_patching(
        model,
        random_tokens(1, 4),
        random_tokens(1, 4, seed=1),
        answer=1,
        wrong=3,
        by_position=True,
        smallest_gap=0.0,
        layers=[2],
    )
    with pytest.raises(ResultError, match="is by position"):
        analyses.edge_scores(by_position)


@needs_reference
@pytest.mark.parametrize("count", [50, 200])
def test_a_peers_circuits(count):
    reference, model = peers()
    scores = dict(zip(reference["edges"], reference["scores"]["EAP-IG-inputs"], strict=True))
    theirs = reference["circuits"][f"top{count}"]
    found = Circuit.from_scores(scores, model=model, count=count).pruned()
    assert found.edges == set(theirs["edges"])
    assert found.nodes == [*theirs["nodes"], "logits"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), options=configs)
def test_pruning_leaves_the_paths_and_nothing_else(seed, options):
    """Against all paths, walked one by one."""
    model = build(**options)
    if not model.config.is_sum:
        return
    shape, rng = shape_of(model), random.Random(seed)
    circuit = Circuit.random(shape, rng.randint(0, min(40, len(graph(shape)))), seed)
    out_of = {}
    for edge in circuit.listed:
        out_of.setdefault(edge.source.name, []).append(edge)

    def walk(node: str, way: tuple[str, ...], found: set[str]) -> None:
        if node == "logits":
            found |= set(way)
        for edge in out_of.get(node, []):
            for reader in readers_of(edge.destination, shape):
                walk(reader, (*way, edge.name), found)

    found: set[str] = set()
    walk("input", (), found)
    assert circuit.pruned().edges == found


def test_stability_by_hand(results):
    _, exact, _ = results
    result = exact["noising"].copy(deep=True)
    result["change"][:] = 0.0
    first, second, third = result.edge.values[:3]
    result["change"].loc[{"edge": first}] = [5.0, 5.0, 5.0]
    result["change"].loc[{"edge": second}] = [9.0, 0.0, 0.0]  # 3 on the mean
    result["change"].loc[{"edge": third}] = [0.0, 4.0, 4.0]  # 8 / 3
    found = analyses.circuit_stability(result, count=2, draws=4000)
    frequency = dict(zip(found.edge.values.tolist(), found.frequency.values.tolist(), strict=True))
    assert frequency[first] == 1
    assert set(found.edge.values[found.chosen.values]) == {first, second}
    # with n of three draws on the first pair, 9 n against 4 (3 - n): the second edge is ahead for n of 1 or more
    assert frequency[second] == pytest.approx(1 - (2 / 3) ** 3, abs=0.03)
    assert frequency[third] == pytest.approx((2 / 3) ** 3, abs=0.03)
    assert float(found.overlap.mean()) == pytest.approx(1 * (1 - 8 / 27) + (1 / 3) * 8 / 27, abs=0.03)
    assert json.loads(found.attrs["parameters"])["count"] == 2
    with pytest.raises(ResultError, match="nothing to resample"):
        analyses.circuit_stability(result.isel(prompt=[0]), count=2)
    with pytest.raises(ResultError, match="give count or share"):
        analyses.circuit_stability(result)


def test_a_threshold_that_is_no_number_is_named(results):
    with pytest.raises(InterpError, match="threshold must be a number"):
        Circuit.from_scores(results[1]["noising"], threshold=float("nan"))


def test_more_edges_than_have_a_score_are_named(results):
    model = results[0]
    known = list(graph(shape_of(model)))
    some = dict.fromkeys(known[:5], 1.0) | {known[5]: float("nan")}
    assert len(Circuit.from_scores(some, model=model, count=5)) == 5
    assert len(Circuit.from_scores(some, model=model, threshold=0.5)) == 5
    for asked in ({"count": 6}, {"share": 0.9}, {"count": 6, "greedy": True}):
        with pytest.raises(InterpError, match="only 5 have a score"):
            Circuit.from_scores(some, model=model, **asked)


def test_no_scores_and_those_of_another_model_are_named(results):
    with pytest.raises(ResultError, match="numbers by edge"):
        Circuit.from_scores({}, model=results[0], count=0)
    with pytest.raises(InterpError, match="another shape"):
        Circuit.from_scores(results[1]["noising"], model=Shape(1, 1, 1), count=1)


def test_a_circuit_of_which_pruning_leaves_nothing_is_named(results):
    result = results[1]["noising"].copy(deep=True)
    result["change"][:] = 0.0
    result["change"].loc[{"edge": next(name for name in result.edge.values if name.startswith("m0->a1.h0"))}] = 5.0
    with pytest.raises(InterpError, match="none of the first 1 edges lies on a path"):
        circuit_of({"circuit_edges": result}, 1, False)
    assert circuit_of({"circuit_edges": result}, result.sizes["edge"], False)


def test_advice_for_unequal_lengths_is_given_where_it_can_be_followed(results):
    model, asked = results[0], {"answer": 1, "wrong": 2}
    clean, corrupt = random_tokens(1, 5), random_tokens(1, 6)
    for call in (
        analyses.edge_patching,
        analyses.path_patching,
        analyses.attribution_patching,
        analyses.compare_patching,
    ):
        with pytest.raises(TokenError, match="they must match position by position") as said:
            call(model, clean, corrupt, **asked)
        assert "align" not in str(said.value)
    with pytest.raises(TokenError, match="align=True"):
        analyses.activation_patching(model, clean, corrupt, **asked)
