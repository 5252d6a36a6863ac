"""What the guide says of circuits of `smalltown` and of the pretrained model, measured again on a few pairs."""

import numpy as np
import pytest

import analyses
import interp
from analyses import Circuit
from interp.loading import packaged
from interp.zoo import task

FOUR = ("a4.h1", "a4.h3", "a5.h0", "a5.h1")
"""The heads of `smalltown` that single noised heads show to be needed for the indirect object."""

PRETRAINED = "smollm2-135m"


def asked_of(model, count, seed=0):
    pairs = task("ioi").sample(count, seed, model.tokenizer)
    return {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}


@pytest.fixture(scope="module")
def edges(smalltown):
    asked = asked_of(smalltown, 6)
    return smalltown, asked, analyses.edge_patching(smalltown, **asked)


def test_the_four_heads_are_in_the_circuit_and_it_is_faithful(edges):
    model, asked, exact = edges
    circuit = Circuit.from_scores(exact, count=50).pruned()
    assert set(FOUR) <= set(circuit.nodes)
    kept = analyses.faithfulness(model, **asked, circuits=circuit, random=3)
    assert float(kept.faithfulness_of_means[0]) == pytest.approx(0.95, abs=0.06)
    assert np.abs(kept.random_faithfulness).max() < 0.1
    heads = analyses.activation_patching(model, **asked, site="z", direction="noising")["effect_mean"].to_series()
    found = {f"a{layer}.h{head}" for layer, head in heads.nsmallest(4).index}
    assert found == set(FOUR)


def test_which_method_ranks_best_and_which_has_the_sizes(edges):
    model, asked, exact = edges
    methods = ["eap", "eap_ig_inputs", "relp", "atp_star"]
    estimated = analyses.edge_attribution(model, **asked, method=methods, verify=0)
    truth = exact["change_mean"].to_numpy()
    ranks = {
        one: analyses.patching.methodology.rank_correlation(
            np.stack([truth, estimated["estimate_mean"].sel(estimator=one)])
        )[0, 1]
        for one in methods
    }
    assert ranks["atp_star"] > 0.93 > ranks["eap"] > 0.8 > ranks["eap_ig_inputs"] > ranks["relp"]
    assert np.corrcoef(truth, estimated["estimate_mean"].sel(estimator="eap_ig_inputs"))[0, 1] > 0.99


@pytest.mark.skipif(packaged.find(PRETRAINED) is None, reason=f"{PRETRAINED} is not here; interp get {PRETRAINED}")
def test_the_heads_that_move_the_name_in_the_pretrained_model_write_into_the_logits():
    model = interp.load(PRETRAINED)
    into = analyses.edge_patching(model, **asked_of(model, 4), destinations="logits")
    scores = analyses.edge_scores(into)
    heads = sorted((name for name in scores if name.startswith("a")), key=lambda name: -scores[name])
    assert heads[0] == "a23.h3->logits"
