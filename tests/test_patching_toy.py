"""Every site of patching on a model small enough to work out by hand.

Two tokens, A with embedding (1, 0) and B with (0, 1); no norms, positions or biases; the logits are the final stream itself. Head 0
attends with weight 3/4 from a B to an A before it, and writes 4 for an A into dimension 0; head 1 attends evenly and writes 2 for a B
into dimension 1. Neuron 0 is relu(x0 - x1) and writes 2 into dimension 0; neuron 1 is relu(x1 - x0) and writes 1 into dimension 1.

At the last position of A B: z = (3, 1), stream after attention (3, 2), neurons (1, 0), final stream (5, 2): logit difference 3.
Of B B: z = (0, 2), stream after attention (0, 3), neurons (0, 3), final stream (0, 6): logit difference -6.
"""

import math

import numpy as np
import pytest
import torch

import analyses
from interp import ModelConfig, Transformer

A, B = 0, 1
CLEAN, CORRUPT = torch.tensor([[A, B]]), torch.tensor([[B, B]])


@pytest.fixture(scope="module")
def toy() -> Transformer:
    config = ModelConfig(
        n_layers=1, d_model=2, n_heads=2, d_head=1, d_mlp=2, n_ctx=4, d_vocab=2,
        norm="none", positions="none", bias=False, tied=False, activation="relu",
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).double()
    block = model.blocks[0]
    queries, keys, values = [[0, math.log(3)], [0, 0]], [[1, 0], [1, 0]], [[4, 0], [0, 2]]
    for weight, rows in (
        (model.W_E, [[1, 0], [0, 1]]),
        (model.unembedding, [[1, 0], [0, 1]]),
        (block.attn.qkv.weight, [*queries, *keys, *values]),
        (block.attn.o.weight, [[1, 0], [0, 1]]),
        (block.mlp.input.weight, [[1, -1], [-1, 1]]),
        (block.mlp.output.weight, [[2, 0], [0, 1]]),
    ):
        weight.copy_(torch.tensor(rows, dtype=torch.float64))
    return model


def patched(model, clean=CLEAN, corrupt=CORRUPT, **options):
    return analyses.activation_patching(model, clean, corrupt, answer=A, wrong=B, **options)


@pytest.mark.parametrize(
    ("site", "expected"),
    [  # the clean value into the corrupt run
        ("resid_pre", [3, -6]),
        ("attn_out", [-6, 3]),
        ("resid_mid", [-6, 3]),
        ("mlp_out", [-6, -1]),
        ("resid_post", [-6, 3]),
        ("z", [0, -4]),
        ("q", [-6, -6]),
        ("k", [-6, -6]),
        ("v", [-2, -4]),
        ("pattern", [-6, -6]),
        ("mlp_post", [-4, -3]),
    ],
)
def test_denoising(toy, site, expected):
    result = patched(toy, site=site)
    np.testing.assert_allclose(result["value"][0, 0], expected, atol=1e-12)
    np.testing.assert_allclose(result["effect"][0, 0], [(value + 6) / 9 for value in expected], atol=1e-12)
    assert (result["clean_baseline"].item(), result["corrupt_baseline"].item()) == pytest.approx((3, -6))


@pytest.mark.parametrize(
    ("site", "expected"),
    [  # the corrupt value into the clean run
        ("resid_pre", [-6, 3]),
        ("attn_out", [3, -6]),
        ("resid_mid", [3, -6]),
        ("mlp_out", [3, -2]),
        ("resid_post", [3, -6]),
        ("z", [-4, 0]),
        ("q", [3, 3]),
        ("k", [0, 3]),
        ("v", [-4, 0]),
        ("pattern", [0, 3]),
        ("mlp_post", [1, 0]),
    ],
)
def test_noising(toy, site, expected):
    np.testing.assert_allclose(patched(toy, site=site, direction="noising")["value"][0, 0], expected, atol=1e-12)


def test_a_query_matters_where_the_last_tokens_differ(toy):
    """From an A, head 0 attends evenly: z = (2, 1), stream (2, 2), no neuron."""
    result = patched(toy, corrupt=torch.tensor([[A, A]]), site="q", direction="noising")
    np.testing.assert_allclose(result["value"][0, 0], [0, 3], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"site": "z", "replacement": "zero"}, [-4, 6]),
        ({"site": "z", "replacement": "mean"}, [-4, 0]),  # of the corrupt run
        ({"site": "z", "replacement": "mean", "reference": CLEAN}, [4.5, 4.5]),  # z = (4, 0) and (3, 1)
        ({"site": "z", "replacement": "mean_by_position", "reference": CLEAN}, [3, 3]),
        ({"site": "resid_mid", "replacement": "add", "vector": torch.tensor([1.0, 0.0])}, [3, 6]),
        ({"site": "z", "by_position": True, "direction": "noising"}, [[3, -4], [3, 0]]),
        ({"site": "resid_pre", "by_position": False}, 3),
        ({"site": "resid_post", "by_position": False, "direction": "noising"}, -6),
    ],
)
def test_replacements_and_positions(toy, options, expected):
    np.testing.assert_allclose(patched(toy, **options)["value"][0, 0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("metric", "clean", "corrupt", "head_0"),
    [  # of final streams (5, 2), (0, 6), and, with head 0's clean z, (3, 3)
        ("logit", 5, 0, 3),
        ("probability", 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(6)), 0.5),
        ("log_probability", -math.log1p(math.exp(-3)), -math.log1p(math.exp(6)), -math.log(2)),
        ("cross_entropy", math.log1p(math.exp(-3)), math.log1p(math.exp(6)), math.log(2)),
        ("rank", 0, 1, 0),
    ],
)
def test_metrics(toy, metric, clean, corrupt, head_0):
    result = patched(toy, site="z", metric=metric)
    found = result["clean_baseline"].item(), result["corrupt_baseline"].item(), result["value"][0, 0, 0].item()
    assert found == pytest.approx((clean, corrupt, head_0))
    assert result["effect"][0, 0, 0].item() == pytest.approx((head_0 - corrupt) / (clean - corrupt))


def test_kl_is_from_the_clean_run(toy):
    result = patched(toy, site="z", metric="kl")
    p = 1 / (1 + math.exp(-3))
    kl = [p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for q in (p, 1 / (1 + math.exp(6)), 0.5)]
    found = result["clean_baseline"].item(), result["corrupt_baseline"].item(), result["value"][0, 0, 0].item()
    assert found == pytest.approx(kl, abs=1e-12)


def test_a_function_as_metric_sees_each_pair(toy):
    def second_logit_times_pair(logits, pair):
        return logits[:, 1] * (pair + 1)

    result = patched(
        toy, CLEAN.repeat(3, 1), CORRUPT.repeat(3, 1), site="z", metric=second_logit_times_pair, max_bytes=1
    )
    np.testing.assert_allclose(result["clean_baseline"], [2, 4, 6])
    np.testing.assert_allclose(result["value"][:, 0, 0], [3, 6, 9])
    assert "second_logit_times_pair" in result.attrs["parameters"]
