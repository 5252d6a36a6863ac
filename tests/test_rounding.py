"""Where rounding drowns a disturbance or feigns one, every analysis outside says so; float64 is the truth."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import interp
from analyses.cascade import Nudge, Replace, Swap, channels, coupled, reproduction, survival, temperature_sweep
from analyses.cascade.coupled import couple
from analyses.cascade.rounding import check_rounding
from interp.errors import ResultError

TEXTS = ["Mary and John went to the", "Once upon a time there was a"]
GRID = [0.5, 0.8, 1.0, 1.5, 2.0]
OUTSIDE = {
    "coupled": lambda model, tokens, nudge: coupled(model, tokens, nudge, seeds=1, steps=4),
    "survival": lambda model, tokens, nudge: survival(model, tokens, nudge, seeds=1, steps=4),
    "channels": lambda model, tokens, nudge: channels(model, tokens, nudge, seeds=1, steps=4),
    "temperature_sweep": lambda model, tokens, nudge: temperature_sweep(
        model, tokens, nudge, temperatures=GRID, lengths=(4, 5, 6), seeds=1
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_nudge_that_rounding_drowns_is_refused(name):
    tokens = random_tokens(2, 5)
    for dtype, dose in ((torch.bfloat16, 0.01), (torch.float32, 1e-6), (torch.float64, 1e-15)):
        with pytest.raises(ResultError, match=f"in {dtype} rounding alone makes draws differ"):
            OUTSIDE[name](tiny(dtype=dtype), tokens, Nudge(dose=dose))
        for exact in (torch.float64,) if dose > 1e-10 else ():
            OUTSIDE[name](tiny(dtype=exact), tokens, Nudge(dose=dose))


def test_what_is_let_pass_is_right_and_what_is_refused_is_not():
    """At the first step h in float64 is the truth."""
    exact = interp.load(dtype=torch.float64)
    tokens = exact.to_tokens(TEXTS)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = interp.load(dtype=dtype)
        for dose in (1e-5, 1e-3, 0.1):
            nudge = Nudge(dose=dose)
            true = couple(exact, tokens, nudge, seeds=1, steps=1).h.mean()
            try:
                found = couple(model, tokens, nudge, seeds=1, steps=1).h.mean()
            except ResultError:
                assert dtype != torch.float32 or dose < 1e-4
            else:
                assert dtype == torch.float32
                assert found == pytest.approx(true, rel=0.02)


def test_the_measured_rounding_is_that_of_the_precision():
    tokens = random_tokens(2, 5)
    found = {
        dtype: check_rounding(tiny(dtype=dtype), tokens, tokens, Nudge(dose=0.5), 1.0, "it")
        for dtype in (torch.float64, torch.float32)
    }
    assert 0 < found[torch.float64] < 1e-13
    assert 1e-9 < found[torch.float32] < 1e-5
    result = coupled(tiny(dtype=torch.float32), tokens, Nudge(dose=0.5), seeds=1, steps=2)
    assert float(result["rounding"]) == pytest.approx(found[torch.float32])


def test_tokens_that_differ_in_half_precision():
    """Swapped tokens do far more than rounding, yet in bfloat16 that would part texts by itself."""
    tokens = random_tokens(2, 5)
    with pytest.raises(ResultError, match=r"in torch\.bfloat16 rounding alone"):
        coupled(tiny(dtype=torch.bfloat16), tokens, Swap(3, token=7), seeds=1, steps=4)
    with pytest.raises(ResultError, match=r"in torch\.bfloat16 rounding alone"):
        reproduction(tiny(dtype=torch.bfloat16), tokens, horizon=4)
    for dtype in (torch.float32, torch.float64):
        same = coupled(tiny(dtype=dtype), tokens, Replace(tokens), seeds=1, steps=4)
        np.testing.assert_array_equal(same["h"], 0)
        assert reproduction(tiny(dtype=dtype), tokens, horizon=4)["influence"].min() > 0
