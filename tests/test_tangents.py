"""Tangents and cotangents beside a run, against torch's own derivatives of the blocks."""

import sys

import pytest
import torch
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs

from interp.errors import ConfigError
from interp.sweep.tangents import Linearised


def dense(model, run, start, stop):
    """[position out, d out, position in, d in]."""
    with model.explicit_attention(), torch.enable_grad():
        return torch.autograd.functional.jacobian(
            lambda x: model.run_blocks(x[None], start_at_layer=start, stop_at_layer=stop)[0], run.entering[start]
        )


@settings(max_examples=25, deadline=None)
@given(options=configs, first=st.integers(0, 4), down_to=st.integers(0, 4), start=st.integers(0, 2))
def test_products_equal_torchs_for_any_architecture(options, first, down_to, start):
    model, tokens = build(**options), random_tokens(1, 5)[0]
    first, down_to = (first, min(first, down_to)) if model.config.causal else (0, 0)
    run = Linearised.at(model, tokens)
    whole = dense(model, run, start, 3)
    size = float(whole.abs().max())
    v, u = torch.randn(2, 3, 5 - first, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(first))
    pushed, pulled = run.push(v, first, start, 3), run.pull(u, first, start, 3, down_to)
    torch.testing.assert_close(
        pushed, torch.einsum("paqd,kqd->kpa", whole[first:, :, first:], v), atol=1e-10 * size, rtol=1e-9
    )
    torch.testing.assert_close(
        pulled, torch.einsum("paqd,kpa->kqd", whole[first:, :, down_to:], u), atol=1e-10 * size, rtol=1e-9
    )
    source, target = (start, down_to), (3, 4)
    torch.testing.assert_close(run.dense(source, target), whole[4, :, down_to], atol=1e-10 * size, rtol=1e-9)


def test_tangents_from_several_positions_go_up_as_each_by_itself():
    model, tokens = tiny(), random_tokens(1, 6)[0]
    run = Linearised.at(model, tokens)
    begun = {first: torch.randn(2, 6 - first, 16, dtype=torch.float64) for first in (0, 3, 5)}
    for step, together in enumerate(run.up_from(begun, 0, 3), start=1):
        for first, vectors in begun.items():
            torch.testing.assert_close(together[first], Linearised.at(model, tokens).push(vectors, first, 0, step))


def test_many_vectors_are_taken_in_parts(monkeypatch):
    model, tokens = tiny(), random_tokens(1, 5)[0]
    whole = Linearised.at(model, tokens)
    v = torch.randn(7, 5, 16, dtype=torch.float64)
    pushed, pulled = whole.push(v, 0, 0, 3), whole.pull(v, 0, 0, 3)
    monkeypatch.setattr(sys.modules["interp.sweep.tangents"], "LARGEST", 1)  # `interp.sweep` names the function
    parts = Linearised.at(model, tokens)
    torch.testing.assert_close(parts.push(v, 0, 0, 3), pushed)
    torch.testing.assert_close(parts.pull(v, 0, 0, 3), pulled)


def test_with_bidirectional_attention_all_positions_are_needed():
    run = Linearised.at(build(causal=False), random_tokens(1, 5)[0])
    for call in (lambda v: run.push(v, 2, 0, 3), lambda v: run.pull(v, 2, 0, 3), lambda v: run.push(v, 0, 0, 3)):
        with pytest.raises(ConfigError, match="bidirectional attention vectors at all positions"):
            call(torch.zeros(1, 3, 16).double())
