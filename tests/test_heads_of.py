"""Heads named by users: pairs of whole numbers that the model has, or an error that says what is expected."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from analyses import cascade
from analyses.heads_of import heads_of
from interp.errors import InterpError

CONFIG = tiny().config


@pytest.mark.parametrize("given", [[(2, 1)], [[2, 1]], [np.array([2, 1])], [torch.tensor([2, 1])], np.array([[2, 1]])])
def test_every_form_of_a_pair(given):
    assert heads_of(CONFIG, given, "here") == [(2, 1)]


@pytest.mark.parametrize(
    "given",
    [[(1.9, "2")], [("x", 0)], [(None, 0)], [(True, 0)], [(3, 0)], [(0, 2)], [(-1, 0)], [(0, 0), (0, 0)], [], [(1,)], [1], ["1.0"], [None]],
)  # fmt: skip
def test_what_is_no_head_is_named(given):
    with pytest.raises(InterpError, match="here"):
        heads_of(CONFIG, given, "here")


def test_analyses_take_no_other_head_than_they_are_given():
    model, tokens = tiny(), random_tokens(1)
    with pytest.raises(InterpError, match="there is no head 3.1"):
        analyses.ablate_heads(model, tokens, answer=3, wrong=4, heads=[(3, 1)], controls=0)
    with pytest.raises(InterpError, match="there is no head 3.1"):
        cascade.self_repair(model, tokens, (3, 1), answer=3)
