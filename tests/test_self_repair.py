"""Self-repair, on a circuit with a backup and against whole runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_options import build

import analyses
import interp
from analyses.cascade import self_repair
from analyses.plots import plot_damping
from interp.errors import ConfigError, InterpError


def test_terms_sum_to_direct_less_total():
    model, tokens = tiny(), random_tokens(6, 6)
    result = self_repair(model, tokens, (1, 1), answer=3, wrong=4)
    np.testing.assert_allclose(result["norm_term"] + result["term"].sum("component"), result["repair"], atol=1e-10)
    attribution = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=4)
    np.testing.assert_allclose(result["direct"], attribution["head_effect"][:, 1, 1], atol=1e-10)
    np.testing.assert_allclose(result["total"], attribution["total_effect"][:, 1, 1], atol=1e-10)
    below = [
        name for name in result["component"].to_numpy() if name in ("embed", "pos_embed", "0.0", "0.mlp", "1.0", "1.1")
    ]
    assert len(below) == 6
    assert (result["term"].sel(component=below) == 0).all()
    assert float(abs(result["norm_term"]).max()) > 1e-4
    low, high = result["repair_interval"].to_numpy()
    assert low <= float(result["repair_mean"]) <= high


def test_the_backup_head_makes_up_for_the_pair():
    """`circuit:backup` with one of its pair gone already: taking the other out brings head 1.0 in, with all that was lost."""
    model = interp.load("circuit:backup", dtype=torch.float64)
    model.blocks[0].attn.o.weight[:, : model.config.d_head].zero_()  # head 0.0 writes nothing
    result = self_repair(model, torch.tensor([[0, 5, 3, 9]]), (0, 1), answer=3).isel(prompt=0)
    assert float(result["direct"]) == pytest.approx(4)
    assert float(result["total"]) == pytest.approx(4 - 8)  # the backup writes with full weight
    assert float(result["term"].sel(component="1.0")) == pytest.approx(8)
    assert float(result["norm_term"]) == pytest.approx(0)


def test_requests_that_cannot_be():
    with pytest.raises(InterpError, match=r"there is no head 9.0"):
        self_repair(tiny(), random_tokens(1, 4), (9, 0), answer=3)
    with pytest.raises(ConfigError, match="no sum of parts"):
        self_repair(build(norm_placement="post"), random_tokens(1, 4), (0, 0), answer=3)


def test_damping_figure(smalltown):
    result = analyses.cascade.damping(
        smalltown, ["Mary and John went", "Once upon a time", "The dogs near the"], n_directions=2
    )
    figure = analyses.plot(result)
    np.testing.assert_allclose(figure.data[0].y, result["log_damping"].mean("prompt"))
    assert [trace.name for trace in figure.data if trace.type == "scatter" and trace.mode == "lines+markers"] == [
        "as it is",
        "scales of the norms held",
    ]
    assert plot_damping(result.isel(prompt=[0])).data[0].y is not None


def test_the_figure_goes_from_direct_to_total():
    result = self_repair(tiny(), random_tokens(6, 6), (1, 1), answer=[3, 4, 5, 6, 7, 8], wrong=9)
    figure = analyses.plot(result)
    direct, total, steps = figure.data
    assert direct.y[0] == pytest.approx(float(result["direct_mean"]))
    assert direct.error_y.array[0] > 0
    assert steps.base[0] == pytest.approx(direct.y[0])
    assert steps.base[-1] + steps.y[-1] == pytest.approx(total.y[0], abs=1e-9)
    assert steps.y[0] == pytest.approx(-float(result["norm_term_mean"]))
    one = analyses.plot(result, prompt=2)
    assert one.data[1].y[0] == pytest.approx(float(result["total"][2]))
    assert one.data[0].error_y.array is None
    alone = self_repair(tiny(), random_tokens(6, 6)[2:3], (1, 1), answer=5, wrong=9)
    np.testing.assert_allclose(result["total"][2], alone["total"][0])


@pytest.mark.parametrize("cap", [None, 1.0])
def test_it_says_whether_the_logits_are_those_before_a_cap(cap):
    config = replace(TINY, logit_cap=cap)
    result = self_repair(tiny(config=config), random_tokens(1), (0, 0), answer=3, wrong=4)
    assert json.loads(result.attrs["parameters"])["before_cap"] is (cap is not None)
    np.testing.assert_allclose(
        result["total"], self_repair(tiny(), random_tokens(1), (0, 0), answer=3, wrong=4)["total"]
    )
