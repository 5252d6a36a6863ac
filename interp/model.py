"""A transformer language model, config to logits on one page. Every named value can be read and changed.

The defaults of the configuration make it GPT-2 (Radford et al. 2019).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.cache import ActivationCache
from interp.config import Activation, ModelConfig
from interp.errors import ConfigError
from interp.fingerprint import Fingerprinted
from interp.generation import Generating
from interp.hooks import Hooked, HookPoint, Points
from interp.initial import initialise
from interp.key_values import KeyValues
from interp.names import Selection, block_name, hook_axes
from interp.positions import rotate, sinusoidal
from interp.prompts import Prompted
from interp.tokenizer import PAD, Tokenizer
from interp.view import View, continued, place, whole

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}

Stream = Float[Tensor, "batch position d_model"]


class Norm(nn.Module):
    """Divide each vector by its size and scale it. LayerNorm first takes away the mean, and in the end shifts."""

    def __init__(self, config: ModelConfig, points: Points, name: str) -> None:
        super().__init__()
        self.eps, self.centres = config.norm_eps, config.norm == "layernorm"
        self.weight = nn.Parameter(torch.empty(config.d_model))
        self.bias = nn.Parameter(torch.empty(config.d_model)) if self.centres and config.bias else None
        self.hook_scale, self.hook_normalized = points[f"{name}.hook_scale"], points[f"{name}.hook_normalized"]
        self.hook_out = points[f"{name}.hook_out"]

    def forward(self, x: Stream) -> Stream:
        if self.centres and not (self.hook_scale.active or self.hook_normalized.active):
            return self.hook_out(F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps))
        x = x - x.mean(-1, keepdim=True) if self.centres else x
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())  # [batch, position, 1]
        x = self.hook_normalized(x / scale) * self.weight
        return self.hook_out(x if self.bias is None else x + self.bias)


class Linear(nn.Linear):
    """A linear map whose weights the model initialises, or a loader fills."""

    def reset_parameters(self) -> None:
        """Leave the weights alone."""


class Attention(nn.Module):
    """Self-attention with several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.widths = [heads * config.d_head for heads in (config.n_heads, config.kv_heads, config.kv_heads)]
        self.qkv = Linear(config.d_model, sum(self.widths), bias=config.bias)  # three projections in one product
        self.o = Linear(self.widths[0], config.d_model, bias=config.bias)
        self.hook_q, self.hook_k, self.hook_v, self.hook_rot_q, self.hook_rot_k = (
            points[block_name(layer, f"attn.hook_{name}")] for name in ("q", "k", "v", "rot_q", "rot_k")
        )
        self.hook_attn_scores, self.hook_pattern, self.hook_z, self.hook_result = (
            points[block_name(layer, f"attn.hook_{name}")] for name in ("attn_scores", "pattern", "z", "result")
        )

    def attend(self, x: Stream, view: View) -> Float[Tensor, "batch position head d_head"]:
        """What each head reads at each position, before anybody changes it at `hook_z`."""
        parts = self.qkv(x).split(self.widths, dim=-1)
        q, k, v = (rearrange(part, "b p (h e) -> b p h e", e=self.config.d_head) for part in parts)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)  # [batch, position, head, d_head]
        if self.config.positions == "rotary":
            q = self.hook_rot_q(rotate(q, view.positions, self.config.rotary_base))
            k = self.hook_rot_k(rotate(k, view.positions, self.config.rotary_base))
        if view.past is not None:
            k, v = view.past.extend(self.layer, view.positions, k, v, view.n_keys)
        if view.shared is not None:
            return view.shared.attend(self.layer, q, k, v, self._attend)
        return self._attend(q, k, v, view)

    def output(self, z: Float[Tensor, "batch position head d_head"]) -> Stream:
        """What the heads together write into the stream."""
        z = self.hook_z(z)
        if not self.hook_result.active:
            out: Tensor = self.o(z.flatten(2))
            return out
        result = self.hook_result(einsum(z, self.W_O, "b p h e, h e d -> b p h d"))
        return result.sum(2) if self.o.bias is None else result.sum(2) + self.o.bias

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        if self.config.kv_heads < self.config.n_heads:  # each key and value serves a group of queries
            groups = self.config.n_heads // self.config.kv_heads
            k, v = (repeat(x, "b p h e -> b p (h g) e", g=groups) for x in (k, v))
        explicit = view.explicit or self.hook_attn_scores.active or self.hook_pattern.active
        return self._explicit(q, k, v, view) if explicit else self._fused(q, k, v, view)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        q, k, v = (value.transpose(1, 2) for value in (q, k, v))  # [batch, head, position, d_head]
        mask = view.allowed
        if view.bias is not None:
            mask = view.bias.masked_fill(~view.mask(self.config.causal), -torch.inf)
        causal = self.config.causal and mask is None and q.shape[2] > 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        scores = einsum(q, k, "b i h e, b j h e -> b h i j") / math.sqrt(self.config.d_head)
        scores = scores if view.bias is None else scores + view.bias
        scores = self.hook_attn_scores(scores.masked_fill(~view.mask(self.config.causal), -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))  # torch subtracts the maximum first, so large scores are safe
        return einsum(pattern, v, "b h i j, b j h e -> b i h e")

    def _head_weights(self, part: int) -> Tensor:
        return rearrange(torch.split(self.qkv.weight, self.widths)[part], "(h e) d -> h d e", e=self.config.d_head)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """The query weights of each head: `x @ W` maps the stream into the head."""
        return self._head_weights(0)

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """The key weights, as `W_Q`."""
        return self._head_weights(1)

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """The value weights, as `W_Q`."""
        return self._head_weights(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """The output weights of each head: `z @ W` maps the head back into the stream."""
        return rearrange(self.o.weight, "d (h e) -> h e d", e=self.config.d_head)


class MLP(nn.Module):
    """Two linear maps with a nonlinearity between, at each position by itself; gated, the nonlinearity scales a third map."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        self.input = Linear(config.d_model, config.d_mlp, bias=config.bias)
        self.gate = Linear(config.d_model, config.d_mlp, bias=config.bias) if config.mlp == "gated" else None
        self.output = Linear(config.d_mlp, config.d_model, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.hook_pre, self.hook_pre_linear, self.hook_post = (
            points[block_name(layer, f"mlp.hook_{name}")] for name in ("pre", "pre_linear", "post")
        )

    def forward(self, x: Stream) -> Stream:
        if self.gate is None:
            post = self.activation(self.hook_pre(self.input(x)))  # [batch, position, d_mlp]
        else:
            post = self.activation(self.hook_pre(self.gate(x))) * self.hook_pre_linear(self.input(x))
        out: Tensor = self.output(self.hook_post(post))
        return out


class Block(nn.Module):
    """Attention, then MLP; each adds its output to the stream. The norm stands before it reads (pre) or after it added (post)."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        self.post = config.norm_placement == "post"
        self.ln1 = _norm(config, points, block_name(layer, "ln1"))
        self.attn = Attention(config, points, layer)
        self.ln2 = _norm(config, points, block_name(layer, "ln2")) if config.mlp != "none" else None
        self.mlp = MLP(config, points, layer) if config.mlp != "none" else None
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_mid, self.hook_mlp_out, self.hook_resid_post = (
            points[block_name(layer, f"hook_{name}")]
            for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )

    def forward(self, x: Stream, view: View) -> Stream:
        x = self.hook_resid_pre(x)
        return self.finish(x, self.attend(x, view))

    def attend(self, x: Stream, view: View) -> Float[Tensor, "batch position head d_head"]:
        """The first half of the block: what the heads read."""
        return self.attn.attend(self._read(x, self.ln1), view)

    def finish(self, x: Stream, z: Float[Tensor, "batch position head d_head"]) -> Stream:
        """The second half, at each position by itself: what the heads read is written, then the MLP reads and writes."""
        x = self._add(x, self.hook_attn_out(self.attn.output(z)), self.ln1)
        if self.mlp is not None and self.ln2 is not None:
            x = self.hook_resid_mid(x)
            x = self._add(x, self.hook_mlp_out(self.mlp(self._read(x, self.ln2))), self.ln2)
        return self.hook_resid_post(x)

    def _read(self, x: Tensor, norm: nn.Module) -> Tensor:
        return x if self.post else cast(Tensor, norm(x))

    def _add(self, x: Tensor, out: Tensor, norm: nn.Module) -> Tensor:
        return cast(Tensor, norm(x + out)) if self.post else x + out


def _norm(config: ModelConfig, points: Points, name: str) -> nn.Module:
    return nn.Identity() if config.norm == "none" else Norm(config, points, name)


class Transformer(Hooked, Fingerprinted, Prompted, Generating, nn.Module):
    """A language model whose every intermediate value can be read and changed by name.

    Args:
        config: the architecture.
        tokenizer: for prompts given as text; None where the model only ever sees ids.
        name: shown in results and figures.
        seed: of the random initialisation (N(0, init_std^2); projections into the stream divided by sqrt(2 n_layers), as
            in GPT-2). None leaves the weights unallocated, for a loader to fill.
    """

    W_E: Tensor
    W_pos: Tensor

    def __init__(
        self, config: ModelConfig, *, tokenizer: Tokenizer | None = None, name: str = "unnamed", seed: int | None = 0
    ) -> None:
        super().__init__()
        if tokenizer is not None and len(tokenizer) > config.d_vocab:
            raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens but the model only {config.d_vocab}.")
        self.config, self.tokenizer, self.name = config, tokenizer, name
        points = Points({name: HookPoint(name, axes) for name, axes in hook_axes(config).items()})
        self.hook_points: dict[str, HookPoint] = points
        self.hook_embed, self.hook_pos_embed = points["hook_embed"], points["hook_pos_embed"]
        with torch.device("meta"):
            self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
            if config.positions == "learned":
                self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))
            self.blocks = nn.ModuleList(Block(config, points, layer) for layer in range(config.n_layers))
            self.ln_final = Norm(config, points, "ln_final") if config.has_final_norm else nn.Identity()
            self.unembedding = None if config.tied else nn.Parameter(torch.empty(config.d_vocab, config.d_model))
            self.b_U = nn.Parameter(torch.empty(config.d_vocab)) if config.unembed_bias else None
        if config.positions == "sinusoidal":
            self.register_buffer("W_pos", sinusoidal(config.n_ctx, config.d_model), persistent=False)
        self._explicit_attention = False
        if seed is not None:
            initialise(self, config, seed)

    def forward(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """The logits of the next token at every position.

        Args:
            tokens: ids. `PAD` (-1) marks places without a token, as `to_tokens` puts them at the end of shorter rows;
                each row's logits equal those of its own single run, and the logits at padding are NaN.

        Raises:
            TokenError: empty, longer than the context, or an id out of range.
        """
        real = self.check_tokens(tokens)
        logits = self.unembed(self.run_blocks(self.embed(tokens), real=real))
        return logits if real is None else logits.masked_fill(~real[..., None], torch.nan)

    def embed(
        self, tokens: Int[Tensor, "batch position"], positions: Int[Tensor, "batch position"] | None = None
    ) -> Stream:
        """The stream that enters block 0: the token's embedding, plus the position's where the model has such.

        Args:
            positions: where the tokens stand; None counts the tokens of each row from 0.
        """
        positions = place(tokens != PAD) if positions is None else positions
        self.tell_positions(positions)
        embedded = self.hook_embed(self.W_E[tokens.clamp(min=0)])
        if not self.config.has_position_embedding:
            return embedded
        return embedded + self.hook_pos_embed(self.W_pos[positions])

    def run_blocks(
        self,
        residual: Stream,
        *,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        real: Bool[Tensor, "batch position"] | None = None,
        past: KeyValues | None = None,
    ) -> Stream:
        """Run blocks `start_at_layer` to `stop_at_layer - 1` (default: the last) on the stream that enters the first of them.

        Args:
            real: False at padding, which no position attends to; None where there is none.
            past: keys and values of the tokens before these, which the blocks add theirs to.

        Raises:
            ConfigError: layers outside 0 <= start <= stop <= n_layers.
        """
        stop = self.config.n_layers if stop_at_layer is None else stop_at_layer
        if not 0 <= start_at_layer <= stop <= self.config.n_layers:
            raise ConfigError(
                f"layers {start_at_layer} to {stop} asked for; need 0 <= start <= stop <= {self.config.n_layers}."
            )
        new = residual.shape[1]
        view = whole(self.config, residual, real) if past is None else continued(self.config, past, new, residual.dtype)
        view = replace(view, explicit=self._explicit_attention)
        self.tell_positions(view.positions)
        for block in self.blocks[start_at_layer:stop]:
            residual = block(residual, view)
        return residual

    @contextmanager
    def explicit_attention(self) -> Iterator[None]:
        """Within the block, compute scores and pattern one by one: fused kernels have no forward-mode derivative (jvp) and no vmap rule."""
        before, self._explicit_attention = self._explicit_attention, True
        try:
            yield
        finally:
            self._explicit_attention = before

    def unembed(self, residual: Stream) -> Float[Tensor, "batch position vocab"]:
        """The logits of a stream that leaves the last block: the final norm, where there is one, then `to_logits`."""
        return self.to_logits(self.ln_final(residual))

    def to_logits(self, normed: Stream) -> Float[Tensor, "batch position vocab"]:
        """The inner product of a normed stream with every token's unembedding vector, plus the bias where there is one."""
        return F.linear(normed, self.W_U.mT, self.b_U)

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding; tied, it is the embedding transposed."""
        return self.W_E.mT if self.unembedding is None else self.unembedding.mT

    def run_with_cache(
        self, tokens: Int[Tensor, "batch position"], names: Selection = None
    ) -> tuple[Float[Tensor, "batch position vocab"], ActivationCache]:
        """The logits, and the activations at the named hook points (glob, list or predicate; None is all of them)."""
        with self.capture(names) as values:
            logits = self(tokens)
        axes = {name: point.axes for name, point in self.hook_points.items() if name in values}
        return logits, ActivationCache({name: values[name] for name in axes}, axes)
