"""Every option of the architecture, against modules of torch and transformers and against plain arithmetic."""

import math

import pytest
import torch
import transformers
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from interp import PAD, ModelConfig, Transformer
from interp.errors import ConfigError
from interp.positions import Rotary, alibi_slopes, sinusoidal, turned, turns_at

OPTIONS = {
    "positions": ["learned", "sinusoidal", "rotary", "alibi", "none"],
    "norm": ["layernorm", "rmsnorm", "none"],
    "norm_placement": ["pre", "post", "both", "output"],
    "activation": ["gelu", "gelu_new", "relu", "silu"],
    "mlp": ["plain", "gated", "none"],
    "n_kv_heads": [None, 1, 2],
    "tied": [True, False],
    "bias": [True, False],
    "qkv_bias": [None, True, False],
    "out_bias": [None, True, False],
    "mlp_bias": [None, True, False],
    "causal": [True, False],
    "parallel": [False, True],
    "window": [None, 1, 2, 4],
    "windowed_layers": [None, (), (0, 2)],
    "attn_scale": [None, 1.0],
    "score_cap": [None, 0.7],
    "logit_cap": [None, 2.0],
    "embed_scale": [1.0, 3.0],
    "qk_norm": ["none", "head", "whole"],
    "rotary_dims": [None, 2],
    "rotary_scaling": ["none", "linear", "llama3"],
    "rotary_local_base": [None, 50.0],
}
SCALED = {"rotary_factor": 3.0, "rotary_low": 0.5, "rotary_high": 2.0, "rotary_original_ctx": 12}


def possible(options: dict) -> bool:
    after = options["norm"] != "none" and options["norm_placement"] == "post"
    side_by_side = options["parallel"] and (options["mlp"] == "none" or after)
    return not side_by_side and not (options["windowed_layers"] is not None and options["window"] is None)


configs = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in OPTIONS.items()}).filter(possible)


def build(**changes) -> Transformer:
    model = tiny(config=ModelConfig(**(TINY.to_dict() | {"n_heads": 4, "d_head": 4} | SCALED | changes)))
    generator = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight") or ("ln" in name and name.endswith("weight")):
            weight.uniform_(0.5, 2.0, generator=generator)  # gains that are not all alike
    return model


def plain(model: Transformer, row: list[int]) -> torch.Tensor:
    """Logits of one row from the definitions, loops over heads and positions, nothing shared with the library but the weights."""
    c, w, n = model.config, model.state_dict(), len(row)
    linear = lambda x, name: x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)  # noqa: E731

    def norm(x, name):
        if f"{name}.weight" not in w:
            return x
        if c.norm == "rmsnorm":
            return x / (x.square().mean(-1, keepdim=True) + c.norm_eps).sqrt() * w[f"{name}.weight"]
        return nn.functional.layer_norm(x, (c.d_model,), w[f"{name}.weight"], w.get(f"{name}.bias"), c.norm_eps)

    def rms(x, weight):
        return x / (x.square().mean() + c.norm_eps).sqrt() * weight

    def normed_heads(x, name, heads):  # [position, head * d_head]
        if c.qk_norm == "none":
            return x
        weight = w[f"{name}.weight"]
        if c.qk_norm == "whole":
            return torch.stack([rms(row, weight.flatten()) for row in x])
        each = x.reshape(n, heads, c.d_head)
        return torch.stack([torch.cat([rms(head, weight) for head in row]) for row in each])

    def soft(x, cap):
        return x if cap is None else cap * math.tanh(x / cap)

    def attention(x, name):
        layer = int(name.split(".")[1])
        windowed = c.window is not None and (c.windowed_layers is None or layer in c.windowed_layers)
        qkv, kv, d = linear(x, f"{name}.attn.qkv"), c.n_kv_heads or c.n_heads, c.d_head
        q, k, v = qkv[:, : c.n_heads * d], qkv[:, c.n_heads * d : (c.n_heads + kv) * d], qkv[:, (c.n_heads + kv) * d :]
        q, k = normed_heads(q, f"{name}.attn.q_norm", c.n_heads), normed_heads(k, f"{name}.attn.k_norm", kv)
        qkv = torch.cat([q, k, v], -1)
        heads = []
        for h in range(c.n_heads):
            group = h // (c.n_heads // kv)
            q, k, v = (qkv[:, s : s + d] for s in (h * d, (c.n_heads + group) * d, (c.n_heads + kv + group) * d))
            scores = torch.empty(n, n, dtype=x.dtype)
            for i in range(n):
                for j in range(n):
                    a, b = q[i], k[j]
                    if c.positions == "rotary":  # a turn by i against one by j is a turn by i - j of one of them
                        a = turn(a, i - j, windowed)
                    scale = 1 / math.sqrt(d) if c.attn_scale is None else c.attn_scale
                    scores[i, j] = soft(float(a @ b) * scale, c.score_cap)
                    if c.positions == "alibi":
                        scores[i, j] -= 2.0 ** (-8 * (h + 1) / c.n_heads) * abs(i - j)
                    if (c.causal and j > i) or (windowed and abs(i - j) >= c.window):
                        scores[i, j] = -torch.inf
            heads.append(scores.softmax(-1) @ v)
        return linear(torch.cat(heads, -1), f"{name}.attn.o")

    def rate(pair, half, windowed):
        if windowed and c.rotary_local_base is not None:
            return c.rotary_local_base ** (-pair / half)
        unscaled = c.rotary_base ** (-pair / half)
        if c.rotary_scaling == "linear":
            return unscaled / c.rotary_factor
        if c.rotary_scaling == "llama3":  # as its authors write it, by wavelength
            wavelength = 2 * math.pi / unscaled
            if wavelength < c.rotary_original_ctx / c.rotary_high:
                return unscaled
            if wavelength > c.rotary_original_ctx / c.rotary_low:
                return unscaled / c.rotary_factor
            smooth = (c.rotary_original_ctx / wavelength - c.rotary_low) / (c.rotary_high - c.rotary_low)
            return (1 - smooth) * unscaled / c.rotary_factor + smooth * unscaled
        return unscaled

    def turn(vector, angle, windowed):
        dims = c.rotary_dims or c.d_head
        half = dims // 2
        complex_ = torch.complex(vector[:half], vector[half:dims])
        rates = torch.tensor([rate(pair, half, windowed) for pair in range(half)], dtype=torch.float64)
        turned = complex_ * torch.exp(1j * angle * rates)
        return torch.cat([turned.real, turned.imag, vector[dims:]])

    activation = {"gelu": nn.GELU(), "gelu_new": nn.GELU("tanh"), "relu": nn.ReLU(), "silu": nn.SiLU()}[c.activation]

    def mlp(x, name):
        if c.mlp == "gated":
            return linear(
                activation(linear(x, f"{name}.mlp.gate")) * linear(x, f"{name}.mlp.input"), f"{name}.mlp.output"
            )
        return linear(activation(linear(x, f"{name}.mlp.input")), f"{name}.mlp.output")

    x = w["W_E"][row] * c.embed_scale
    if c.positions == "learned":
        x = x + w["W_pos"][:n]
    if c.positions == "sinusoidal":
        for p in range(n):
            for i in range(c.d_model):
                x[p, i] += (math.sin, math.cos)[i % 2](p / 10000 ** ((i - i % 2) / c.d_model))
    for layer in range(c.n_layers):
        name = f"blocks.{layer}"
        entering = x
        for part, ln in ((attention, "ln1"), (mlp, "ln2"))[: 1 if c.mlp == "none" else 2]:
            weights = f"{name}.{ln}"
            if c.norm_placement == "post" and c.norm != "none":
                x = norm(x + part(x, name), weights)
            else:
                written = part(norm(entering if c.parallel else x, weights), name)
                x = x + norm(written, f"{weights}_post")
    x = norm(x, "ln_final")
    logits = x @ w["unembedding" if not c.tied else "W_E"].T
    return logits if c.logit_cap is None else c.logit_cap * (logits / c.logit_cap).tanh()


@settings(max_examples=25, deadline=None)
@given(options=configs)
def test_any_combination_equals_plain_arithmetic(options):
    model = build(**options)
    row = random_tokens(1, 6)
    assert ("ln_final.weight" in model.state_dict()) == (
        options["norm"] != "none" and options["norm_placement"] != "post"
    )
    torch.testing.assert_close(model(row)[0], plain(model, row[0].tolist()), atol=1e-6, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(options=configs, lengths=st.lists(st.integers(1, 7), min_size=2, max_size=4))
def test_unequal_rows_equal_their_single_runs_in_any_combination(options, lengths):
    model = build(**options)
    rows = [random_tokens(1, length, seed=k) for k, length in enumerate(lengths)]
    padded = torch.full((len(rows), max(lengths)), PAD)
    for k, row in enumerate(rows):
        padded[k, : lengths[k]] = row[0]
    logits = model(padded)
    for k, row in enumerate(rows):
        torch.testing.assert_close(logits[k, : lengths[k]], model(row)[0], atol=1e-9, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(options=configs)
def test_explicit_equals_fused_and_hooks_have_their_shapes_in_any_combination(options):
    model, tokens = build(**options), random_tokens(2, 5)
    logits, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, model(tokens), atol=1e-9, rtol=1e-9)
    assert list(cache) == list(model.hook_points)
    c = model.config
    sizes = {
        "batch": 2,
        "position": 5,
        "query": 5,
        "key": 5,
        "d_model": 16,
        "head": 4,
        "kv_head": c.kv_heads,
        "d_head": 4,
        "d_mlp": 32,
        "one": 1,
    }
    for name, point in model.hook_points.items():
        assert cache[name].shape == tuple(sizes[axis] for axis in point.axes), name


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in OPTIONS.items() for v in values if n != "norm_placement"]
)
def test_each_option_moves_the_output(name, value):
    """The control: no option is accepted and then ignored."""
    same_as_none = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}  # since `bias` is True
    alike = (None, same_as_none[name]) if name in same_as_none and value is not False else (value,)
    other = next(v for v in OPTIONS[name] if v not in alike)
    around = {"positions": "rotary"} if name.startswith("rotary") else {}
    around |= {"window": 2} if name in ("windowed_layers", "rotary_local_base") else {}
    first, second = (build(**around, **{name: v}) for v in (value, other))
    shared = second.state_dict()
    state = {k: shared[k] if k in shared and shared[k].shape == v.shape else v for k, v in first.state_dict().items()}
    first.load_state_dict(state)
    tokens = random_tokens(1, 6)
    assert (first(tokens) - second(tokens)).abs().max() > 1e-4


def test_llama_as_a_whole():
    """RMSNorm, rotary, gated SiLU, grouped keys and values, untied, no biases."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, max_position_embeddings=24, rms_norm_eps=1e-5, tie_word_embeddings=False, hidden_act="silu",
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval().double()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)
    sizes = {"n_layers": 3, "d_model": 16, "n_heads": 4, "d_head": 4, "d_mlp": 24, "n_ctx": 24, "d_vocab": 50}
    kinds = {"positions": "rotary", "norm": "rmsnorm", "mlp": "gated", "activation": "silu"}
    ours = Transformer(ModelConfig(**sizes, **kinds, n_kv_heads=2, tied=False, bias=False)).double()
    state = {
        "W_E": theirs.model.embed_tokens.weight,
        "unembedding": theirs.lm_head.weight,
        "ln_final.weight": theirs.model.norm.weight,
    }
    for k, block in enumerate(theirs.model.layers):
        a = block.self_attn
        state |= {
            f"blocks.{k}.ln1.weight": block.input_layernorm.weight,
            f"blocks.{k}.attn.qkv.weight": torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]),
            f"blocks.{k}.attn.o.weight": a.o_proj.weight,
            f"blocks.{k}.ln2.weight": block.post_attention_layernorm.weight,
            f"blocks.{k}.mlp.gate.weight": block.mlp.gate_proj.weight,
            f"blocks.{k}.mlp.input.weight": block.mlp.up_proj.weight,
            f"blocks.{k}.mlp.output.weight": block.mlp.down_proj.weight,
        }
    ours.load_state_dict(state)
    tokens = random_tokens(2, 12)
    with torch.no_grad():
        # transformers keeps the angles in float32, which bounds the agreement
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_bidirectional_block_is_torchs_encoder_layer(placement, activation):
    model = build(causal=False, norm_placement=placement, activation=activation, positions="none", n_layers=1)
    block = model.blocks[0]
    layer = (
        nn.TransformerEncoderLayer(16, 4, 32, 0.0, activation, norm_first=placement == "pre", batch_first=True)
        .double()
        .eval()
    )
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": block.attn.o.weight, "self_attn.out_proj.bias": block.attn.o.bias,
            "linear1.weight": block.mlp.input.weight, "linear1.bias": block.mlp.input.bias,
            "linear2.weight": block.mlp.output.weight, "linear2.bias": block.mlp.output.bias,
            "norm1.weight": block.ln1.weight, "norm1.bias": block.ln1.bias,
            "norm2.weight": block.ln2.weight, "norm2.bias": block.ln2.bias,
        }
    )  # fmt: skip
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.run_blocks(x), layer(x), atol=1e-12, rtol=0)


def test_rotary_equals_llamas():
    x = torch.randn(2, 6, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8]])
    rates = 500.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = torch.cat([positions[..., None] * rates] * 2, dim=-1)
    expected, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), angles.cos(), angles.sin())
    torch.testing.assert_close(
        turned(x, *turns_at(positions, 9, Rotary(8, 500.0), x.dtype)), expected.transpose(1, 2), atol=1e-12, rtol=0
    )


def test_rms_norm_equals_llamas():
    model = build(norm="rmsnorm")
    theirs = LlamaRMSNorm(16, eps=1e-5).double()
    theirs.weight.data = model.blocks[0].ln1.weight.data * 1.7
    model.blocks[0].ln1.weight.mul_(1.7)
    x = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.blocks[0].ln1(x), theirs(x), atol=1e-6, rtol=1e-6)  # theirs computes in float32


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16])
def test_alibi_slopes_equal_blooms(heads):
    expected = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]
    torch.testing.assert_close(alibi_slopes(heads), expected, atol=1e-7, rtol=1e-6)


def test_sinusoidal_literals():
    table = sinusoidal(3, 4)
    expected = [
        [0, 1, 0, 1],
        [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)],
        [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)],
    ]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float32))
    assert sinusoidal(5, 7).shape == (5, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads must divide n_heads = 2"),
        ({"positions": "rotary", "d_head": 7}, "d_head must be even"),
        ({"rotary_base": 0.0}, "rotary_base must be positive"),
        ({"rotary_dims": 3}, "rotary_dims must be even and at most d_head = 8"),
        ({"rotary_dims": 10}, "rotary_dims must be even and at most d_head = 8"),
        ({"rotary_scaling": "llama3"}, "rotary_original_ctx is needed"),
        (
            {"rotary_scaling": "llama3", "rotary_original_ctx": 8, "rotary_low": 4.0},
            "rotary_low must be below rotary_high",
        ),
        ({"window": 0}, "window must be a positive whole number"),
        ({"windowed_layers": (0,)}, "with a window"),
        ({"window": 4, "windowed_layers": [0, 3]}, "layers from 0 to 2"),
        ({"score_cap": float("nan")}, "score_cap must be positive"),
        ({"logit_cap": -30.0}, "logit_cap must be positive"),
        ({"parallel": True, "mlp": "none"}, "parallel needs an MLP"),
        ({"parallel": True, "norm_placement": "post"}, "parallel needs an MLP, and norms that do not"),
        ({"n_kv_heads": True}, "n_kv_heads must be a positive whole number"),
    ],
)
def test_combinations_that_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**(TINY.to_dict() | change))


@pytest.mark.parametrize("positions", OPTIONS["positions"])
def test_under_torch_func(positions):
    model = build(positions=positions)
    x = model.embed(random_tokens(1, 5))
    generator = torch.Generator().manual_seed(0)
    t, u = (torch.randn(size, dtype=torch.float64, generator=generator) for size in (x.shape, (1, 5, 50)))
    run = lambda residual: model.unembed(model.run_blocks(residual))  # noqa: E731
    with model.explicit_attention():
        out, forward = torch.func.jvp(run, (x,), (t,))
        torch.testing.assert_close(out, run(x))
        difference = (run(x + 1e-5 * t) - run(x - 1e-5 * t)) / 2e-5
        torch.testing.assert_close(forward, difference, atol=1e-6, rtol=1e-5)
        _, pull = torch.func.vjp(run, x)
        assert float((u * forward).sum()) == pytest.approx(float((pull(u)[0] * t).sum()), rel=1e-10)
        batch = torch.stack([x, x + t, x - t])
        torch.testing.assert_close(torch.func.vmap(run)(batch), torch.stack([run(row) for row in batch]))
    assert not model._explicit.here
