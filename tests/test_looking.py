"""Who only looks changes nothing, in every precision; and half precision is as exact as its weights allow."""

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_options import SCALED, build

from interp import ModelConfig, Transformer

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
KINDS = {
    "gpt2": {},
    "llama": {"norm": "rmsnorm", "positions": "rotary", "mlp": "gated", "activation": "silu", "bias": False, "n_kv_heads": 2},
    "gemma2": {
        "norm": "rmsnorm", "norm_placement": "both", "positions": "rotary", "mlp": "gated", "window": 3,
        "windowed_layers": (0, 2), "score_cap": 5.0, "logit_cap": 3.0, "embed_scale": 4.0, "bias": False,
    },
    "olmo2": {"norm": "rmsnorm", "norm_placement": "output", "qk_norm": "whole", "positions": "rotary"},
    "gemma3": {"norm": "rmsnorm", "norm_placement": "both", "qk_norm": "head", "positions": "rotary", "window": 2},
    "neox": {"parallel": True, "positions": "rotary", "rotary_dims": 2, "tied": False},
    "alibi, post-norm": {"positions": "alibi", "norm_placement": "post"},
    "bidirectional": {"causal": False, "norm": "rmsnorm", "norm_placement": "post"},
}  # fmt: skip


def large(kind: str, dtype: torch.dtype) -> Transformer:
    """With a large entry in the stream, as massive activations are."""
    model = build(**KINDS[kind])
    model.W_E[:, 3] = 300.0
    return model.to(dtype)


def one_layer(model: Transformer) -> list[str]:
    """The hook points of block 1, and those outside of blocks."""
    return [name for name in model.hook_points if not name.startswith(("blocks.0", "blocks.2"))]


def looks(value, hook):
    """Leaves the value alone."""


def hands_back(value, hook):
    return value


def copies(value, hook):
    return value.clone()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_listener_that_changes_nothing_changes_nothing(kind, dtype):
    model, tokens = large(kind, dtype), random_tokens(2, 7)
    expected = model(tokens)
    assert torch.equal(model.run_with_cache(tokens)[0], expected)
    for hook in (looks, hands_back, copies):
        with model.hooks({"*": hook}):
            assert torch.equal(model(tokens), expected), hook.__name__


@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_one_by_itself(kind):
    model, tokens = large(kind, torch.float16), random_tokens(2, 7)
    expected = model(tokens)
    for name in one_layer(model):
        with model.hooks({name: copies}):
            assert torch.equal(model(tokens), expected), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_listener_that_changes_something_is_heard_at_every_point(kind):
    """The control of the test above."""
    model, tokens = build(**KINDS[kind]), random_tokens(2, 7)
    expected = model(tokens)
    for name in one_layer(model):
        with model.hooks({name: lambda value, hook: value * 1.5}):
            assert not torch.equal(model(tokens), expected), name


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "neox"])
def test_gradients_reach_the_values_that_are_heard(kind):
    """Though what flows on is the fused kernel's: the derivative at each value is that of a change there."""
    model, tokens = build(**KINDS[kind]), random_tokens(1, 5)
    metric = lambda: model(tokens)[0, -1, 7]  # noqa: E731
    for name in one_layer(model):
        with model.capture(name, with_gradients=True) as values:
            out = metric()
        (gradient,) = torch.autograd.grad(out, values[name])
        step = torch.randn(gradient.shape, dtype=gradient.dtype, generator=torch.Generator().manual_seed(0))
        step = torch.where(torch.isfinite(values[name]), step, 0.0) * 1e-6
        moved = []
        for sign in (1, -1):
            with model.hooks({name: lambda value, hook, sign=sign, step=step: value + sign * step}):
                moved.append(float(metric()))
        torch.testing.assert_close(
            (gradient * step).nansum() * 2, out.new_tensor(moved[0] - moved[1]), atol=1e-13, rtol=1e-4
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near_the_same_weights_in_float64(kind, dtype):
    """Within the rounding of what is stored between the steps: norms' statistics and scores add nothing of their own."""
    model, tokens = large(kind, dtype), random_tokens(2, 7)
    exact = large(kind, dtype).double()(tokens)
    rounding = torch.finfo(dtype).eps
    assert (model(tokens) - exact).abs().max() < 40 * rounding * exact.abs().max()
    assert model(tokens).dtype == torch.float32
    with model.explicit_attention():
        assert (model(tokens) - exact).abs().max() < 40 * rounding * exact.abs().max()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_scores_beyond_half_precision(positions):
    """Queries and keys of 40 in heads of 64: their products, 102,400, are no float16, and their 12,800 after scaling are."""
    sizes = TINY.to_dict() | {"d_head": 64, "n_layers": 1, "positions": positions}
    model = tiny(config=ModelConfig(**sizes))
    model.blocks[0].attn.qkv.bias[: 4 * 64] = 40.0
    exact, tokens = model(random_tokens(1, 6)), random_tokens(1, 6)
    model = model.to(torch.float16)
    for logits in (model(tokens), model.run_with_cache(tokens)[0]):
        assert (logits - exact).abs().max() < 0.02 * exact.abs().max()
    scores = model.run_with_cache(tokens, "blocks.0.attn.hook_attn_scores")[1]["attn_scores", 0]
    assert scores.dtype == torch.float32
    assert scores[0, 0, 5, :6].isfinite().all()


def test_the_statistics_of_a_norm_are_float32():
    """One entry of 300 among ones: its square is no float16, and the rest would drown in bfloat16."""
    for dtype in (torch.float16, torch.bfloat16):
        for kind, centred in (("layernorm", True), ("rmsnorm", False)):
            model = build(norm=kind, **SCALED).to(dtype)
            x = torch.ones(1, 1, 16, dtype=dtype)
            x[..., 3] = 300.0
            with model.capture("ln_final.hook_scale") as values:
                model.ln_final(x)
            wide = x.double() - x.double().mean() * centred
            expected = (wide.square().mean() + 1e-5).sqrt()
            assert values["ln_final.hook_scale"].dtype == torch.float32
            assert float(values["ln_final.hook_scale"]) == pytest.approx(float(expected), rel=1e-6)
