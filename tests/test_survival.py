"""How long coupled texts stay the same, against enumeration and against counting."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import PROMPTS, TINY, random_tokens, tiny

import analyses
from analyses.cascade import Nudge, Replace, Swap, survival
from analyses.cascade.agreement import disagreement, stays
from analyses.cascade.coupled import couple
from analyses.cascade.survival import AGREED, describe_survival, forced, runs_of
from interp import ModelConfig


def test_equals_the_sum_over_all_texts():
    """Five tokens, three steps: 125 texts, each with its probability; and the product of 1 - h over clean texts is another number."""
    sizes = {"n_heads": 4, "d_head": 4, "d_vocab": 5, "init_std": 0.6}
    model, steps = tiny(config=ModelConfig(**(TINY.to_dict() | sizes))), 3
    clean, other = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 3, 2]])
    exact, plain = np.zeros(steps), np.zeros(steps)
    for text in itertools.product(range(5), repeat=steps):
        chance = kept = same = 1.0
        for time in range(steps):
            so_far = torch.tensor([text[:time]], dtype=torch.long)
            log_p, log_q = (model(torch.cat([begun, so_far], 1))[0, -1].log_softmax(-1) for begun in (clean, other))
            same *= 1 - float(disagreement(log_p, log_q))
            kept *= float(stays(log_p, log_q, torch.tensor(text[time])))
            chance *= float(log_p[text[time]].exp())
            weight = chance / 5 ** (steps - time - 1)
            exact[time] += weight * kept
            plain[time] += weight * same
    result = survival(model, clean, Replace(other), seeds=4000, steps=steps)
    kept = np.cumprod(result["stays"].to_numpy()[0], axis=-1)
    error = kept.std(0) / np.sqrt(4000)
    assert (np.abs(result["survival_mean"] - exact) < 4 * error + 1e-12).all()
    assert (np.abs(result["kaplan_meier"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)).all()
    assert abs(plain[-1] - exact[-1]) > 4 * error[-1]
    assert error[-1] < 0.8 * np.sqrt(
        exact[-1] * (1 - exact[-1]) / 4000
    )  # more is known from the probabilities than from counting


def test_forcing_equals_one_run_for_each_step():
    model, tokens = tiny(), random_tokens(3, 6)
    tokens[1, 4:] = -1
    for disturbance in (Swap(2, token=7), Nudge(layer=1, dose=0.5)):
        run = couple(model, tokens, disturbance, seeds=2, steps=5, temperature=0.7)
        kept, parted = forced(model, run, max_bytes=1)
        whole = forced(model, run, max_bytes=2**30)
        np.testing.assert_allclose(kept, whole[0], atol=1e-10)
        np.testing.assert_allclose(parted, whole[1], atol=1e-10)
        same = np.logical_and.accumulate(run.damage == 0, axis=-1)
        before = np.concatenate([np.ones_like(same[..., :1]), same[..., :-1]], axis=-1)
        np.testing.assert_allclose(
            parted[before], run.h[before], atol=1e-10
        )  # until they part both contexts are those of the run


def test_texts_that_come_together_again():
    damage = np.zeros((1, 3, 30), dtype=np.int64)
    damage[0, 0, 3:5] = 1  # together again from 5 on
    damage[0, 1, 3::7] = 1  # six equal tokens at most
    model = tiny()
    run = couple(model, random_tokens(1, 4), Nudge(dose=0.1), seeds=3, steps=19)
    zero = np.zeros((1, 3, 15))
    texts = np.stack([np.zeros_like(damage), damage])[..., :15]
    short = replace(run, tokens=texts, h=zero, kl=zero, tv=zero, entropy=zero, margin=zero)
    result = describe_survival(model, short, None)
    assert AGREED == 8
    assert float(result["came_together"]) == pytest.approx(0.5)
    apart = replace(short, kl=zero + 1)
    assert (
        float(describe_survival(model, apart, None)["came_together"]) == 0
    )  # equal tokens from different distributions
    assert np.isnan(float(describe_survival(model, short, None)["came_together_unrelated"]))


def test_runs():
    flags = np.array([[True, True, False, True], [False, True, True, True]])
    assert runs_of(flags, 2).tolist() == [[True, False, False], [False, True, True]]
    assert runs_of(flags, 5).shape == (2, 0)


def test_the_result_and_its_figure(smalltown):
    result = survival(smalltown, PROMPTS, Nudge(dose=0.5), seeds=2, steps=12)
    curve = result["survival_mean"].to_numpy()
    assert (np.diff(curve) <= 1e-12).all()
    assert (result["kaplan_meier_interval"][0] <= result["kaplan_meier"] + 1e-12).all()
    figure = analyses.plot(result)
    lines = {trace.name: trace.y for trace in figure.data if trace.name != "band"}
    np.testing.assert_allclose(lines["by teacher forcing"], curve)
    np.testing.assert_allclose(lines["coupled texts (Kaplan-Meier)"], result["kaplan_meier"])
    greedy = survival(smalltown, PROMPTS, Swap(1), steps=12, temperature=0.0)
    np.testing.assert_allclose(greedy["survival_mean"], greedy["kaplan_meier"])
