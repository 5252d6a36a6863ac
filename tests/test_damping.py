"""Norms whose scales are held, against whole hooked runs."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from test_options import build

from analyses.cascade import damping, gain
from interp.errors import ConfigError
from interp.geometry import seen


def centred(x):
    return x - x.mean(-1, keepdim=True)


def test_equals_whole_runs_with_scales_put_in():
    model, tokens = tiny(), random_tokens(1, 6)
    direction = centred(torch.randn(1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    result = damping(model, tokens, dose=0.5, layer=1, directions=direction)
    _, clean = model.run_with_cache(tokens)
    streams = ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.2.hook_resid_post"]
    held = {
        f"blocks.{layer}.{norm}.hook_scale": lambda value, hook: clean[hook.name]
        for layer in (1, 2)
        for norm in ("ln1", "ln2")
    }
    logs = []
    for position in range(6):

        def inject(value, hook, position=position):
            x = centred(value[0, position])
            value[0, position] += 0.5 * x.norm() * direction[0] / direction.norm()

        with model.hooks(held | {streams[0]: inject}):
            _, disturbed = model.run_with_cache(tokens, streams)
        energies = [float(centred(disturbed[name] - clean[name]).pow(2).sum()) for name in streams]
        logs.append([np.log(energy / energies[0]) / 2 for energy in energies])
    np.testing.assert_allclose(result["log_gain_frozen"][0], np.mean(logs, axis=0), atol=1e-8)
    free = gain(model, tokens, dose=0.5, layer=1, directions=direction)["log_gain"]
    np.testing.assert_allclose(result["log_gain"], free, atol=1e-6)
    np.testing.assert_allclose(result["log_damping"], result["log_gain"] - result["log_gain_frozen"], atol=1e-12)
    assert abs(float(result["log_damping"][0, -1])) > 1e-3  # the control moves


@pytest.mark.parametrize(
    "options",
    [
        {"norm_placement": "both", "qk_norm": "head"},
        {"norm": "rmsnorm", "norm_placement": "output"},
        {"norm_placement": "post"},
    ],
)
def test_every_norm_of_a_block_is_held(options):
    model, tokens = build(**options), random_tokens(1, 4)
    direction = torch.randn(1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = damping(model, tokens, dose=0.5, layer=1, directions=direction)
    _, clean = model.run_with_cache(tokens)
    scales = [name for name in model.hook_points if name.endswith("hook_scale") and name.split(".")[1] in "12"]
    logs = []
    for position in range(4):

        def inject(value, hook, position=position):
            x = seen(model.config, value[0, position])
            value[0, position] += (
                0.5 * x.norm() * torch.nn.functional.normalize(seen(model.config, direction[0]), dim=0)
            )

        held = {name: lambda value, hook: clean[hook.name] for name in scales}
        with model.hooks(held | {"blocks.1.hook_resid_pre": inject}):
            _, disturbed = model.run_with_cache(tokens)
        names = ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"]
        energies = [float(seen(model.config, disturbed[name] - clean[name]).pow(2).sum()) for name in names]
        logs.append(np.log(energies[1] / energies[0]) / 2)
    assert float(result["log_gain_frozen"][0, -1]) == pytest.approx(np.mean(logs), abs=1e-6)


def test_a_disturbance_along_the_stream_is_what_the_norm_takes_out():
    """Longer by a hundredth, a stream means the same to every norm; held, the norms let it through."""
    model, tokens = tiny(), random_tokens(1, 3)
    x = centred(model.embed(tokens)[0, 1])
    result = damping(model, tokens[:, :2], dose=0.01, directions=x[None])
    assert float(result["log_damping"][0, -1]) < -0.05


def test_without_norms_there_is_nothing_to_hold():
    with pytest.raises(ConfigError, match="no norms"):
        damping(build(norm="none"), random_tokens(1, 4))


def test_over_prompts():
    result = damping(tiny(), random_tokens(6, 5), n_directions=2)
    low, high = result["log_damping_interval"].to_numpy()[:, -1]
    assert low <= float(result["log_damping_mean"][-1]) <= high
