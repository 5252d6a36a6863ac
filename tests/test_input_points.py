"""Inputs of single readers as hook points: what a reader reads is changed for it alone, and who only looks changes nothing."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_inputs import heads_of, split_hooks

import interp
from interp import Add, Intervention, Row
from interp.errors import HookError
from interp.gradients import gradients
from interp.sweep.readouts import Logits

INPUTS = ("hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")
SHAPES = {
    "gpt2": TINY,
    "grouped, rotary, gated, rms": replace(
        TINY, n_kv_heads=1, positions="rotary", norm="rmsnorm", mlp="gated", activation="silu", tied=False
    ),
    "parallel": replace(TINY, parallel=True, positions="rotary"),
    "post": replace(TINY, norm_placement="post"),
    "no norm": replace(TINY, norm="none"),
}


def opened(config=TINY, dtype=torch.float64):
    model = tiny(config=config, dtype=dtype)
    model.listen_to_inputs(*INPUTS)
    return model


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_change_reaches_one_reader_alone(config):
    model, tokens = opened(config), random_tokens(1)
    generator = torch.Generator().manual_seed(3)
    push = torch.randn(TINY.d_model, generator=generator, dtype=torch.float64)
    for point in INPUTS:
        reader = "mlp" if point == "hook_mlp_in" else point[5]
        head = None if reader == "mlp" else heads_of(model, reader) - 1

        def change(value, hook, head=head):
            value[(0, slice(2, 5)) if head is None else (0, slice(2, 5), head)] += push

        def alone(stream):
            stream[2:5] += push
            return stream

        with model.hooks({f"blocks.1.{point}": change}):
            ours = model(tokens)
        with model.hooks(split_hooks(model, 1, reader, alone, head)):
            expected = model(tokens)
        assert (expected - model(tokens)).abs().max() > 1e-4
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)
        row = Row([Intervention(f"blocks.1.{point}", Add(push), slice(2, 5), heads=head)])
        swept = interp.sweep(model, tokens, [row], Logits()).values
        torch.testing.assert_close(swept, ours[:, -1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_looking_changes_nothing(dtype):
    model, tokens = opened(dtype=dtype), random_tokens()
    before = model(tokens)
    logits, cache = model.run_with_cache(tokens, "*_input")
    assert torch.equal(logits, before)
    assert len(cache) == 3 * TINY.n_layers
    _, whole = model.run_with_cache(tokens)
    assert [name for name in whole if name.startswith("blocks.1.")][:5] == [
        f"blocks.1.{name}" for name in ("hook_resid_pre", "hook_q_input", "hook_k_input", "hook_v_input", "ln1.hook_scale")
    ]  # fmt: skip
    for head in range(TINY.n_heads):
        assert torch.equal(whole["q_input", 2][:, :, head], whole["resid_pre", 2])
    assert torch.equal(whole["blocks.2.hook_mlp_in"], whole["resid_mid", 2])


def test_gradients_of_the_inputs_sum_to_what_the_readers_send_back():
    model, tokens = opened(), random_tokens(1)
    names = [f"blocks.1.{name}" for name in (*INPUTS, "hook_resid_pre", "hook_resid_mid")]
    _, _, found = gradients(model, tokens, lambda logits: logits[:, -1, 7].sum(), names)
    slopes = {name.rpartition("hook_")[2]: value for name, value in found.items()}
    heads = sum(slopes[f"{part}_input"].sum(2) for part in "qkv")
    torch.testing.assert_close(slopes["resid_pre"], heads + slopes["resid_mid"], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_gradient_at_an_input_is_that_of_its_reader_alone(config):
    model, tokens = opened(config), random_tokens(1)
    push = torch.randn(TINY.d_model, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def read(logits):
        return logits[:, -1, 7].sum()

    for point in INPUTS:
        name, slopes = f"blocks.1.{point}", []
        with model.backward_hooks({name: lambda gradient, hook, to=slopes: to.append(gradient.clone())}):
            read(model(tokens)).backward()
        _, _, captured = gradients(model, tokens, read, [name])
        at = (0, 3) if point == "hook_mlp_in" else (0, 3, 0)

        def pushed(size, name=name, at=at):
            def change(value, hook):
                value[at] += size * push

            with torch.no_grad(), model.hooks({name: change}):
                return read(model(tokens))

        expected = (pushed(1e-4) - pushed(-1e-4)) / 2e-4
        assert expected.abs() > 1e-6
        for found in (slopes[0], captured[name]):
            torch.testing.assert_close(found[at] @ push, expected, atol=1e-10, rtol=1e-4)


def test_they_are_no_hook_points_unasked():
    model = tiny()
    with pytest.raises(HookError, match="hook_q_input"), model.hooks({"blocks.0.hook_q_input": lambda v, h: None}):
        model(random_tokens())
    with pytest.raises(HookError, match="is no input of"):
        model.listen_to_inputs("hook_o_input")
    with pytest.raises(HookError, match="no input"):
        tiny(config=replace(TINY, mlp="none")).listen_to_inputs("hook_mlp_in")
    with pytest.raises(HookError, match="hooks are attached"), model.hooks({"hook_embed": lambda v, h: None}):
        model.listen_to_inputs("hook_q_input")


def test_a_copy_has_points_of_its_own():
    model = opened()
    other = deepcopy(model)
    assert "blocks.0.hook_mlp_in" in other.hook_points
    seen = []
    with model.hooks({"blocks.0.hook_mlp_in": lambda v, h: seen.append(h)}):
        other(random_tokens())
        assert not seen
        model(random_tokens())
    assert len(seen) == 1
    model.listen_to_inputs()
    assert "blocks.0.hook_mlp_in" not in model.hook_points
