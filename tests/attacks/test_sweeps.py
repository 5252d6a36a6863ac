"""What sweeps, streams and bounds on memory are given: see `sweeps.py`, which runs without the tests' type checks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_tokens, tiny

import interp
from interp import Intervention, Row
from interp.sweep.interventions import Add
from interp.sweep.readouts import Logits


def test_what_does_not_fit_is_named():
    script = str(Path(__file__).with_name("sweeps.py"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 250


def test_a_given_stream_follows_its_tokens_where_padding_stands_before_them():
    model, stream = tiny(), torch.randn(2, 5, 16, dtype=torch.float64)
    tokens = torch.tensor([[-1, -1, 1, 2, 3], [4, 5, 6, 7, 8]])
    rows = [Row([Intervention("blocks.1.hook_resid_pre", Add(1.0))], prompt) for prompt in (0, 1)]
    padded = interp.sweep(model, tokens, rows, Logits(), residual=stream)
    alone = interp.sweep(model, tokens[:1, 2:], rows[:1], Logits(), residual=stream[:1, 2:])
    torch.testing.assert_close(padded.base[:1], alone.base)
    torch.testing.assert_close(padded.values[:1], alone.values)


@pytest.mark.parametrize("positions", [slice(99, 200), slice(2, 2), []])
def test_a_change_at_no_position_changes_nothing(positions):
    row = Row([Intervention("blocks.1.hook_resid_pre", Add(1.0), positions=positions)])
    swept = interp.sweep(tiny(), random_tokens(1, 6), [row, Row([*row.interventions] * 2)], Logits())
    assert torch.equal(swept.values, swept.base.expand(2, -1))


def test_a_slice_backwards_takes_its_values_in_that_order():
    values, name = torch.randn(6, 16, dtype=torch.float64), "blocks.1.hook_resid_pre"
    model, tokens = tiny(), random_tokens(1, 6)
    rows = [
        Row([Intervention(name, Add(values), positions=slice(None, None, -1))]),
        Row([Intervention(name, Add(values.flip(0)))]),
    ]
    one, other = interp.sweep(model, tokens, rows, Logits()).values
    torch.testing.assert_close(one, other)
    cache = model.run_with_cache(tokens)[1]
    assert torch.equal(cache.at(slice(None, None, -1))[name], cache[name].flip(1))
