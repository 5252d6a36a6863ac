"""Analyses of models whose options are drawn, against whole runs and dense matrices."""

import numpy as np
import torch
from conftest import random_tokens
from hypothesis import given, settings
from test_options import build, configs

import analyses
from analyses.cascade import damping, light_cone, lyapunov
from interp.geometry import basis, seen

drawn = settings(max_examples=8, deadline=None)


def disturbed(model, tokens, layer, position, vector, held=()):
    """The stream entering each layer from `layer` on, clean and with a vector added, the values at `held` as in the clean run."""
    names = [f"blocks.{at}.hook_resid_pre" for at in range(layer, model.config.n_layers)]
    names.append(f"blocks.{model.config.n_layers - 1}.hook_resid_post")
    _, clean = model.run_with_cache(tokens)

    def inject(value, hook):
        value[0, position] += vector

    with model.hooks({name: lambda value, hook: clean[hook.name] for name in held} | {names[0]: inject}):
        _, moved = model.run_with_cache(tokens, names)
    return torch.stack([clean[name][0] for name in names]), torch.stack([moved[name][0] for name in names])


def unit(model, seed=1):
    direction = torch.randn(1, model.config.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return direction, torch.nn.functional.normalize(seen(model.config, direction), dim=-1)[0]


@drawn
@given(options=configs)
def test_patterns_are_shares_of_what_each_query_sees(options):
    model, tokens = build(**options), random_tokens(2, 6)
    pattern = analyses.attention_patterns(model, tokens)["pattern"].to_numpy()
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-12)
    _, cache = model.run_with_cache(tokens, "blocks.*.attn.hook_pattern")
    np.testing.assert_array_equal(pattern, np.stack([cache["pattern", layer].numpy() for layer in range(3)], axis=1))
    before = np.arange(6)[:, None] - np.arange(6)
    far = np.abs(before) >= (options["window"] or 99)
    windowed = range(3) if options["windowed_layers"] is None else options["windowed_layers"]
    for layer in range(3):
        unseen = (before < 0 if options["causal"] else False) | (far if layer in windowed else False)
        assert (pattern[:, layer][..., np.broadcast_to(unseen, (6, 6))] == 0).all()


@drawn
@given(options=configs)
def test_the_lens_reads_each_stream_as_the_output_is_read(options):
    model, tokens = build(**options), random_tokens(2, 5)
    result = analyses.logit_lens(model, tokens, top_k=3)
    log_p = model(tokens).log_softmax(-1)
    top = torch.tensor(result["top_probability"].to_numpy())
    torch.testing.assert_close(top[:, -1], log_p.exp().topk(3).values, atol=1e-12, rtol=0)
    for layer in range(3):
        own = model.unembed(model.run_blocks(model.embed(tokens), stop_at_layer=layer)).log_softmax(-1)
        at = int(np.flatnonzero(result["layer"].to_numpy() == layer)[0])
        torch.testing.assert_close(top[:, at], own.exp().topk(3).values, atol=1e-12, rtol=0)
        kl = (log_p.exp() * (log_p - own)).sum(-1)
        np.testing.assert_allclose(result["kl"][:, at], kl, atol=1e-10)


@drawn
@given(options=configs)
def test_norms_of_the_stream_are_those_of_runs_that_stop_there(options):
    model, tokens = build(**options), random_tokens(2, 5)
    result = analyses.residual_stream(model, tokens)
    step = result["step"].to_numpy().tolist()
    ends = ["embed"] + [[one for one in step if one.startswith(f"{layer}.")][-1] for layer in range(3)]
    for layer, end in enumerate(ends):
        stream = model.run_blocks(model.embed(tokens), stop_at_layer=layer)
        np.testing.assert_allclose(result["norm"][:, step.index(end)], stream.norm(dim=-1), rtol=1e-10)


@drawn
@given(options=configs)
def test_the_light_cone_is_the_difference_of_two_whole_runs(options):
    model, tokens = build(**options), random_tokens(1, 5)
    direction, vector = unit(model)
    result = light_cone(model, tokens, directions=direction, dose=0.3, layer=1)
    for position in (1, 4):
        size = 0.3 * seen(model.config, model.run_blocks(model.embed(tokens), stop_at_layer=1)[0, position]).norm()
        clean, moved = disturbed(model, tokens, 1, position, size * vector)
        energy = seen(model.config, moved - clean).pow(2).sum(-1)
        np.testing.assert_allclose(
            result["share"].sel(injection=position)[0], energy / energy[0].sum(), rtol=1e-8, atol=1e-12
        )


@drawn
@given(options=configs.filter(lambda options: options["norm"] != "none"))
def test_with_the_norms_held_the_growth_is_that_of_a_run_with_their_scales_put_in(options):
    model, tokens = build(**options), random_tokens(1, 4)
    direction, vector = unit(model)
    result = damping(model, tokens, dose=0.3, layer=1, directions=direction)
    scales = [name for name in model.hook_points if name.endswith("hook_scale") and name.split(".")[1] in "12"]
    logs = []
    for position in range(4):
        size = 0.3 * seen(model.config, model.run_blocks(model.embed(tokens), stop_at_layer=1)[0, position]).norm()
        clean, moved = disturbed(model, tokens, 1, position, size * vector, held=scales)
        energy = seen(model.config, moved - clean).pow(2).sum((-1, -2))
        logs.append(torch.log(energy / energy[0]) / 2)
    np.testing.assert_allclose(result["log_gain_frozen"][0], torch.stack(logs).mean(0), atol=1e-6)


@drawn
@given(options=configs)
def test_exponents_are_those_of_the_product_of_dense_blocks(options):
    model, tokens = build(**options), random_tokens(1, 3)
    rows = basis(model.config, model.embed(tokens))
    product = torch.eye(len(rows), dtype=torch.float64)
    for layer in range(3):
        stream = model.run_blocks(model.embed(tokens), stop_at_layer=layer)[0]
        with model.explicit_attention():
            block = torch.func.jacrev(
                lambda x, layer=layer: model.run_blocks(x[None], start_at_layer=layer, stop_at_layer=layer + 1)[0, 2]
            )(stream)[:, 2]
        product = rows @ block @ rows.T @ product
    values = torch.linalg.svdvals(product)
    result = lyapunov(model, tokens, k=len(rows))
    told = values > 1e-9 * values[0]
    np.testing.assert_allclose(result["singular_exponent"][0][told.numpy()], values[told].log() / 3, atol=1e-6)
    if told.all():
        np.testing.assert_allclose(result["exponent"][0].sum(), values.log().sum() / 3, atol=1e-6)
