"""The residual stream against arithmetic by hand, and on smalltown against its cache."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from conftest import random_tokens, tiny
from test_options import build
from test_patching_toy import CLEAN, toy  # noqa: F401 (a fixture)

import analyses
from interp import PAD


def test_a_stream_by_hand(toy):  # noqa: F811
    """A B: (1, 0) and (0, 1); after attention (5, 0) and (3, 2); after the MLP (15, 0) and (5, 2). See `test_patching_toy`."""
    result = analyses.residual_stream(toy, CLEAN).isel(prompt=0)
    assert result["step"].to_numpy().tolist() == ["embed", "0.attn", "0.mlp"]
    np.testing.assert_allclose(result["norm"], [[1, 1], [5, math.sqrt(13)], [15, math.sqrt(29)]])
    np.testing.assert_allclose(
        result["growth"][1:], [[math.log(5), math.log(13) / 2], [math.log(3), math.log(29 / 13) / 2]]
    )
    np.testing.assert_allclose(result["cosine"][1:], [[1, 2 / math.sqrt(13)], [1, 19 / math.sqrt(13 * 29)]])
    np.testing.assert_allclose(result["written_norm"][1:], [[4, math.sqrt(10)], [10, 2]])
    np.testing.assert_allclose(result["norm_change"][1:, 0], [4, 10])
    np.testing.assert_allclose(result["largest"], [[1, 1], [5, 3], [15, 5]])
    assert result["growth"][0].isnull().all()
    np.testing.assert_allclose(result["first_norm"], [1, 5, 15])
    np.testing.assert_allclose(result["mean_norm"], [1, (5 + math.sqrt(13)) / 2, (15 + math.sqrt(29)) / 2])
    np.testing.assert_allclose(result["step_cosine"][0, 2], (1 + 2 / math.sqrt(29)) / 2)
    np.testing.assert_allclose(np.diag(result["step_cosine"]), 1)
    assert not result["massive"].any()


def test_batches_equal_single_runs_and_padding_is_nan():
    model, tokens = tiny(), random_tokens(2, 6, seed=1)
    tokens[1, 4:] = PAD
    both = analyses.residual_stream(model, tokens)
    alone = analyses.residual_stream(model, tokens[1:, :4])
    for name in ("norm", "growth", "cosine", "written_norm", "largest"):
        np.testing.assert_allclose(both[name][1, :, :4], alone[name][0], atol=1e-12)
        assert both[name][1, :, 4:].isnull().all()
    np.testing.assert_allclose(both["step_cosine"][1], alone["step_cosine"][0], atol=1e-12)
    np.testing.assert_allclose(both["mean_norm"][1], alone["norm"][0].mean("position"))
    np.testing.assert_allclose(both["mean_norm_mean"], both["mean_norm"].mean("prompt"))


def test_means_leave_out_what_is_set_apart(smalltown):
    result = analyses.residual_stream(smalltown, "Mary went to")  # begins with BOS
    assert result["set_apart"][0].to_numpy().tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(result["mean_norm"][0], result["norm"][0, :, 1:].mean("position"), rtol=1e-6)
    alone = analyses.residual_stream(smalltown, np.array([[smalltown.tokenizer.bos]]).tolist())
    assert alone["mean_norm"].isnull().all()


def test_side_by_side_blocks_are_one_step():
    result = analyses.residual_stream(build(parallel=True), random_tokens(2, 4))
    assert result["step"].to_numpy().tolist() == ["embed", "0.block", "1.block", "2.block"]
    bars = [trace for trace in analyses.plot(result).data if isinstance(trace, go.Bar)]
    np.testing.assert_allclose(bars[0].y, result["written_norm"][:, 1:].mean(("prompt", "position")))


def test_a_massive_activation_is_flagged():
    model, tokens = tiny(), random_tokens(1, 4)
    model.blocks[1].attn.o.bias[5] = 5000.0
    flagged = analyses.residual_stream(model, tokens)["massive"][0]
    assert flagged.any("position").to_numpy().tolist() == [False] * 3 + [True] * 4
    model.blocks[1].attn.o.bias[:] = 5000.0  # all are as large: none stands out
    assert not analyses.residual_stream(model, tokens)["massive"].any()


def test_without_mlp_and_with_post_norm():
    result = analyses.residual_stream(build(mlp="none"), random_tokens(1, 4))
    assert result["step"].to_numpy().tolist() == ["embed", "0.attn", "1.attn", "2.attn"]
    model, tokens = build(norm_placement="post"), random_tokens(1, 4)
    _, cache = model.run_with_cache(tokens)
    result = analyses.residual_stream(model, tokens)
    np.testing.assert_allclose(result["norm"][0, 3], cache["resid_mid", 1][0].norm(dim=-1))


def test_the_figure_shows_both_curves_and_the_cosines(smalltown):
    result = analyses.residual_stream(
        smalltown,
        [
            "Mary went to the store",
            "Once upon a time",
            "The dogs are",
            "Rose gave a book",
            "Then Peter and Mary",
            "The cat sat on",
        ],
    )
    figure = analyses.plot(result)
    band, mean, first = (trace for trace in figure.data if isinstance(trace, go.Scatter))
    np.testing.assert_allclose(mean.y, result["mean_norm"].mean("prompt"), rtol=1e-6)
    np.testing.assert_allclose(first.y, result["first_norm"].mean("prompt"), rtol=1e-6)
    assert max(band.y) == pytest.approx(float(result["mean_norm_interval"].max()), rel=1e-6)
    (cosines,) = (trace for trace in figure.data if isinstance(trace, go.Heatmap))
    assert (cosines.zmin, cosines.zmid, cosines.zmax) == (-1, 0, 1)
    single = analyses.plot(result, prompt=1)
    np.testing.assert_allclose(single.data[0].y, result["mean_norm"][1], rtol=1e-6)


def test_massive_is_told_beside_the_whole_prompt():
    """A first token that is large in every direction has no activation 1,000 times its own median, but one that of the prompt."""
    model, tokens = tiny(), torch.tensor([[5, 1, 2, 3]])
    model.W_E[:] = 0.5
    model.W_E[5] = 200.0
    model.W_E[5, 3] = 2000.0
    result = analyses.residual_stream(model, tokens)
    assert result["massive"][0, 0].to_numpy().tolist() == [1, 0, 0, 0]
