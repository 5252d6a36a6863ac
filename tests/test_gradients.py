"""Gradients at hook points, and hooks in the backward pass."""

import pytest
import torch
from conftest import random_tokens, tiny

import interp
from interp.errors import HookError
from interp.hooks import attached_hooks

metric = lambda logits: logits[0, -1, 3] - logits[0, -1, 4]  # noqa: E731


@pytest.mark.parametrize(
    "name",
    [
        "hook_embed",
        "hook_pos_embed",
        "blocks.1.hook_resid_pre",
        "blocks.0.attn.hook_pattern",
        "blocks.2.attn.hook_z",
        "blocks.1.mlp.hook_post",
    ],
)
def test_gradients_equal_finite_differences(name):
    model, tokens = tiny(), random_tokens(1, 6)
    value, cache, grads = interp.gradients(model, tokens, metric)
    assert float(value) == pytest.approx(float(metric(model(tokens))))
    direction = torch.randn(cache[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = []
    for step in (1e-6, -1e-6):
        with model.hooks({name: lambda v, h, step=step: v + step * direction}):
            ends.append(float(metric(model(tokens))))
    assert float((grads[name] * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)
    assert torch.equal(cache[name], model.run_with_cache(tokens)[1][name])


def test_parameters_are_left_alone():
    for required in (False, True):
        model = tiny().requires_grad_(required)
        _, _, grads = interp.gradients(model, random_tokens(), lambda logits: logits.sum(), "blocks.*.hook_resid_post")
        assert len(grads) == 3
        assert all(p.grad is None and p.requires_grad == required for p in model.parameters())
        assert attached_hooks(model) == []


def test_the_metric_must_be_one_number_and_the_names_must_exist():
    with pytest.raises(HookError, match=r"one number, got shape \(50,\)"):
        interp.gradients(tiny(), random_tokens(), lambda logits: logits[0, -1])
    with pytest.raises(HookError, match="matches no hook point"):
        interp.gradients(tiny(), random_tokens(), metric, "blocks.0.hook_z")


def test_what_the_metric_does_not_depend_on_has_gradient_zero():
    _, _, grads = interp.gradients(
        tiny(), random_tokens(1, 6), lambda logits: logits[0, 2, 3], "blocks.1.hook_resid_pre"
    )
    assert grads["resid_pre", 1][0, :3].abs().min() > 0
    assert (grads["resid_pre", 1][0, 3:] == 0).all()


def test_backward_hooks_read_and_replace():
    model, tokens, seen = tiny(), random_tokens(1, 6), {}
    _, _, expected = interp.gradients(model, tokens, metric)
    with (
        model.capture("hook_embed", with_gradients=True) as leaf,
        model.backward_hooks({"blocks.*.hook_resid_mid": lambda g, h: seen.update({h.name: g})}),
    ):
        metric(model(tokens)).backward()
    assert len(seen) == 3
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient, expected[name])
    torch.testing.assert_close(leaf["hook_embed"].grad, expected["hook_embed"])
    with (
        model.capture("hook_embed", with_gradients=True) as leaf,
        model.backward_hooks({"blocks.1.hook_resid_pre": lambda g, h: g * 0}),
    ):
        metric(model(tokens)).backward()
    assert (leaf["hook_embed"].grad == 0).all()
    assert attached_hooks(model) == []


def test_backward_hooks_cannot_fail_silently():
    model, tokens = tiny(), random_tokens(1, 6)
    with (
        pytest.raises(HookError, match="never fired.*no gradient came"),
        model.backward_hooks({"hook_embed": lambda g, h: None}),
    ):
        model(tokens)
    with (
        pytest.raises(HookError, match="switched off"),
        torch.no_grad(),
        model.backward_hooks({"hook_embed": lambda g, h: None}),
    ):
        model(tokens)
    with (
        pytest.raises(HookError, match=r"shape \(1, 2, 16\)"),
        model.backward_hooks({"hook_embed": lambda g, h: g[:, :2]}),
    ):
        metric(model(tokens)).backward()
    assert attached_hooks(model) == []


def test_backward_hooks_leave_with_their_block():
    model, tokens, seen = tiny(), random_tokens(1, 6), []
    with model.backward_hooks({"hook_embed": lambda g, h: seen.append(1)}):
        result = metric(model(tokens))
        result.backward(retain_graph=True)
    result.backward()
    assert seen == [1]
