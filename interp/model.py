"""A transformer language model, config to logits on one page. Every named value can be read and changed.

The defaults of the configuration make it GPT-2 (Radford et al. 2019).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from interp.cache import ActivationCache
from interp.config import Activation, ModelConfig
from interp.copies import Copied
from interp.errors import ConfigError
from interp.fingerprint import Fingerprinted
from interp.fused import each_head, fused_attention
from interp.generation import Generating
from interp.head_weights import HeadWeights
from interp.hooks import Points, unless_changed
from interp.initial import initialise
from interp.key_values import KeyValues
from interp.linear import Linear
from interp.modes import may_reuse
from interp.names import Selection, block_name, hook_axes
from interp.norms import head_norms, norm_or_nothing
from interp.positions import Rotary, sinusoidal, turned
from interp.prompts import Prompted, as_ids
from interp.reader_inputs import Inputs, ListeningToInputs, points_of
from interp.scopes import Scope, Scopes
from interp.tokenizer import PAD, Tokenizer
from interp.view import View, check_stream, continued, place, whole
from interp.whole_numbers import whole_number

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}

Stream = Float[Tensor, "batch position d_model"]


class Attention(HeadWeights):
    """Self-attention with several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, config.window_of(layer)
        self.counts = [config.n_heads, config.kv_heads, config.kv_heads]
        self.widths = [heads * config.d_head for heads in self.counts]
        self.qkv = Linear(config.d_model, sum(self.widths), bias=config.has_qkv_bias)  # three in one product
        self.o = Linear(self.widths[0], config.d_model, bias=config.has_out_bias)
        self.q_norm, self.k_norm = head_norms(config, points, layer)
        self.rotary = Rotary.of(config, layer) if config.positions == "rotary" else None
        self.hook_q, self.hook_k, self.hook_v, self.hook_rot_q, self.hook_rot_k = (
            points[block_name(layer, f"attn.hook_{name}")] for name in ("q", "k", "v", "rot_q", "rot_k")
        )
        self.hook_attn_scores, self.hook_pattern, self.hook_z, self.hook_result = (
            points[block_name(layer, f"attn.hook_{name}")] for name in ("attn_scores", "pattern", "z", "result")
        )

    def attend(self, x: Stream, view: View, moved: Tensor | None) -> Float[Tensor, "batch position head d_head"]:
        """What each head reads, before anybody changes it at `hook_z`; its queries, keys and values `moved` where hooks do so."""
        flat = self.qkv(x) if moved is None else self.qkv(x) + moved
        q, k, v = flat.unflatten(-1, (-1, self.config.d_head)).split_with_sizes(self.counts, dim=2)
        return self.meet(q, k, v, view)

    def meet(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Float[Tensor, "batch position head d_head"]:
        """What each head reads, from queries, keys and values as they come from their maps."""
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            turns = view.turns(self.rotary, q.dtype)
            q, k = self.hook_rot_q(turned(q, *turns)), self.hook_rot_k(turned(k, *turns))
        if view.past is not None:
            k, v = view.past.extend(self.layer, view.positions, k, v, view.n_keys)
        if view.shared is not None:
            return view.shared.attend(self.layer, q, k, v, self.weigh)
        return self.weigh(q, k, v, view)

    def output(self, z: Float[Tensor, "batch position head d_head"]) -> Stream:
        """What the heads together write into the stream."""
        z = self.hook_z(z)
        if not self.hook_result.active:
            return cast(Tensor, self.o(z.flatten(2)))
        result = einsum(z, self.W_O, "b p h e, h e d -> b p h d")
        heard = self.hook_result(result)
        summed = heard.sum(2) if self.o.bias is None else heard.sum(2) + self.o.bias
        return unless_changed(summed, [(result, heard)], lambda: self.o(z.flatten(2)))

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """What heads read, from queries, keys and values as they meet: the values, weighted by how well query and key agree."""
        heard = self.hook_attn_scores.active or self.hook_pattern.active
        if view.explicit or heard or self.config.score_cap is not None:
            return self._explicit(q, k, v, view)
        return self._fused(q, k, v, view)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        mask = view.seen(self.config.causal, self.window)
        if view.bias is not None:
            mask = view.bias.masked_fill(~view.mask(self.config.causal, self.window), -torch.inf)
        return fused_attention(q, k, v, mask, causal=self.config.causal, scale=self.config.score_scale)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        wide = torch.promote_types(q.dtype, torch.float32)  # half precision would overflow; so q is scaled first
        keys, values = each_head(k, q.shape[2]), each_head(v, q.shape[2])
        scores = einsum(q.to(wide) * self.config.score_scale, keys.to(wide), "b i h e, b j h e -> b h i j")
        scores = capped(scores, self.config.score_cap)
        scores = scores if view.bias is None else scores + view.bias
        scores = scores.masked_fill(~view.mask(self.config.causal, self.window), -torch.inf)
        heard_scores = self.hook_attn_scores(scores)
        pattern = heard_scores.softmax(-1).to(q.dtype)  # torch subtracts the maximum first, so large scores are safe
        heard = self.hook_pattern(pattern)
        z = einsum(heard, values, "b h i j, b j h e -> b i h e")
        if view.explicit or self.config.score_cap is not None:  # there is no other way
            return z
        return unless_changed(z, [(scores, heard_scores), (pattern, heard)], lambda: self._fused(q, k, v, view))


class MLP(nn.Module):
    """Two linear maps with a nonlinearity between, at each position by itself; gated, the nonlinearity scales a third map."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        bias = config.has_mlp_bias
        self.input = Linear(config.d_model, config.d_mlp, bias=bias)
        self.gate = Linear(config.d_model, config.d_mlp, bias=bias) if config.mlp == "gated" else None
        self.output = Linear(config.d_mlp, config.d_model, bias=bias)
        self.activation = ACTIVATIONS[config.activation]
        self.hook_pre, self.hook_pre_linear, self.hook_post = (
            points[block_name(layer, f"mlp.hook_{name}")] for name in ("pre", "pre_linear", "post")
        )

    def forward(self, x: Stream) -> Stream:
        if self.gate is None:
            post = self.activation(self.hook_pre(self.input(x)))  # [batch, position, d_mlp]
        else:
            active, passed = self.activation(self.hook_pre(self.gate(x))), self.hook_pre_linear(self.input(x))
            post = active.mul_(passed) if may_reuse() else active * passed
        out: Tensor = self.output(self.hook_post(post))
        return out


class Block(nn.Module):
    """Attention, then MLP, or both side by side; each adds its output to the stream. The configuration says where norms stand."""

    def __init__(self, config: ModelConfig, points: Points, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.reads_normed, self.norms_sum = "reads" in config.norms, "after" in config.norms
        stream, output = self.reads_normed or self.norms_sum, "output" in config.norms
        self.ln1, self.ln1_post = (
            norm_or_nothing(config, points, block_name(layer, name), there)
            for name, there in (("ln1", stream), ("ln1_post", output))
        )
        self.attn = Attention(config, points, layer)
        has_mlp = config.mlp != "none"
        self.ln2, self.ln2_post = (
            norm_or_nothing(config, points, block_name(layer, name), there and has_mlp)
            for name, there in (("ln2", stream), ("ln2_post", output))
        )
        self.mlp = MLP(config, points, layer) if has_mlp else None
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_mid, self.hook_mlp_out, self.hook_resid_post = (
            points[block_name(layer, f"hook_{name}")]
            for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        read = (self.ln1, self.ln2) if self.reads_normed else (None, None)
        self.inputs = Inputs(points, layer, self.attn, *read)

    def forward(self, x: Stream, view: View) -> Stream:
        x = self.hook_resid_pre(x)
        return self.finish(x, self.attend(x, view))

    def attend(self, x: Stream, view: View) -> Float[Tensor, "batch position head d_head"]:
        """The first half of the block: what the heads read."""
        return self.attn.attend(moved=self.inputs.of_heads(x), x=self._read(x, self.ln1), view=view)

    def finish(self, x: Stream, z: Float[Tensor, "batch position head d_head"]) -> Stream:
        """The second half, at each position by itself: what the heads read is written, then the MLP reads and writes."""
        before = x
        x = self._add(x, self.hook_attn_out(self.ln1_post(self.attn.output(z))), self.ln1)
        if self.mlp is not None:
            x = x if self.parallel else self.hook_resid_mid(x)
            stream = before if self.parallel else x
            moved, read = self.inputs.of_mlp(stream), self._read(stream, self.ln2)
            read = read if moved is None else read + moved
            x = self._add(x, self.hook_mlp_out(self.ln2_post(self.mlp(read))), self.ln2)
        return self.hook_resid_post(x)

    def _read(self, x: Tensor, norm: nn.Module) -> Tensor:
        return cast(Tensor, norm(x)) if self.reads_normed else x

    def _add(self, x: Tensor, out: Tensor, norm: nn.Module) -> Tensor:
        return cast(Tensor, norm(x + out)) if self.norms_sum else x + out


def capped(x: Tensor, cap: float | None) -> Tensor:
    """Within -cap to cap, softly (Bello et al. 2016, arXiv 1611.09940); None is no cap."""
    return x if cap is None else cap * torch.tanh(x / cap)


class Transformer(ListeningToInputs, Fingerprinted, Prompted, Generating, Copied):
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

    @torch.inference_mode(False)
    def __init__(
        self, config: ModelConfig, *, tokenizer: Tokenizer | None = None, name: str = "unnamed", seed: int | None = 0
    ) -> None:
        super().__init__()
        if tokenizer is not None and len(tokenizer) > config.d_vocab:
            raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens but the model only {config.d_vocab}.")
        self.config, self.tokenizer, self.name = config, tokenizer, name
        self.all_points = points = points_of(config)
        self.hook_points = {name: points[name] for name in hook_axes(config)}
        self.hook_embed, self.hook_pos_embed = points["hook_embed"], points["hook_pos_embed"]
        with torch.device("meta"):
            self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
            if config.positions == "learned":
                self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))
            self.blocks = nn.ModuleList(Block(config, points, layer) for layer in range(config.n_layers))
            self.ln_final = norm_or_nothing(config, points, "ln_final", config.has_final_norm)
            self.unembedding = None if config.tied else nn.Parameter(torch.empty(config.d_vocab, config.d_model))
            self.b_U = nn.Parameter(torch.empty(config.d_vocab)) if config.unembed_bias else None
        if config.positions == "sinusoidal":
            self.register_buffer("W_pos", sinusoidal(config.n_ctx, config.d_model), persistent=False)
        self._attached, self._explicit = Scopes(), Scopes()
        if seed is not None:
            initialise(self, config, whole_number(seed, "a seed", ConfigError))

    def forward(self, tokens: Integer[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
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
        self, tokens: Integer[Tensor, "batch position"], positions: Int[Tensor, "batch position"] | None = None
    ) -> Stream:
        """The stream that enters block 0: the token's embedding, plus the position's where the model has such.

        Args:
            positions: where the tokens stand; None counts the tokens of each row from 0.
        """
        tokens = as_ids(tokens)
        positions = place(tokens != PAD) if positions is None else positions
        self.tell_positions(positions)
        embedded = self.hook_embed(self.W_E[tokens.clamp(min=0)] * self.config.embed_scale)
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
            ConfigError: layers outside 0 <= start <= stop <= n_layers. HookError: a stream that is not this model's in shape or dtype.
        """
        start_at_layer = whole_number(start_at_layer, "start_at_layer", ConfigError)
        stop = (
            self.config.n_layers if stop_at_layer is None else whole_number(stop_at_layer, "stop_at_layer", ConfigError)
        )
        if not 0 <= start_at_layer <= stop <= self.config.n_layers:
            raise ConfigError(
                f"layers {start_at_layer} to {stop} asked for; need 0 <= start <= stop <= {self.config.n_layers}."
            )
        check_stream(residual, self, "run_blocks")
        new = residual.shape[1]
        view = whole(self.config, residual, real) if past is None else continued(self.config, past, new, residual.dtype)
        view = replace(view, explicit=self._explicit.here)
        self.tell_positions(view.positions)
        for block in self.blocks[start_at_layer:stop]:
            residual = block(residual, view)
        return residual

    @contextmanager
    def explicit_attention(self) -> Iterator[None]:
        """Within the block, compute scores and pattern one by one: fused kernels have no forward-mode derivative (jvp) and no vmap rule."""
        with self._explicit.entered(Scope()):
            yield

    def unembed(self, residual: Stream) -> Float[Tensor, "batch position vocab"]:
        """The logits of a stream that leaves the last block: the final norm, where there is one, then `to_logits`."""
        return self.to_logits(self.ln_final(residual))

    def to_logits(self, normed: Stream, columns: slice = slice(None)) -> Float[Tensor, "batch position vocab"]:
        """The inner product of a normed stream with every token's unembedding vector, plus the bias where there is one, soft-capped
        where the model does so; in float32 at least.

        Args:
            columns: only these tokens.
        """
        return self.finished_logits(
            F.linear(normed, self.W_U.mT[columns], None if self.b_U is None else self.b_U[columns])
        )

    def finished_logits(self, products: Float[Tensor, "*place vocab"]) -> Float[Tensor, "*place vocab"]:
        """Logits from inner products with unembedding vectors, biases added: what the model does after that sum."""
        return capped(products.to(torch.promote_types(products.dtype, torch.float32)), self.config.logit_cap)

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding; tied, it is the embedding transposed."""
        return self.W_E.mT if self.unembedding is None else self.unembedding.mT

    def run_with_cache(
        self, tokens: Integer[Tensor, "batch position"], names: Selection = None
    ) -> tuple[Float[Tensor, "batch position vocab"], ActivationCache]:
        """The logits, and the activations at the named hook points (glob, list or predicate; None is all of them)."""
        with self.capture(names) as values:
            logits = self(tokens)
        axes = {name: point.axes for name, point in self.hook_points.items() if name in values}
        return logits, ActivationCache({name: values[name] for name in axes}, axes)
