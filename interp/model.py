"""A GPT-2-style transformer (Radford et al. 2019), config to logits on one page. Every named value can be read and changed."""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.cache import ActivationCache
from interp.config import Activation, ModelConfig
from interp.errors import ConfigError, TokenError
from interp.hooks import Hooked, HookPoint
from interp.names import NORM_POINTS, Selection, block_name, hook_axes
from interp.tokenizer import PAD, Tokenizer

Prompt = str | Sequence[str] | Tensor
"""A text, several texts, or token ids [batch, position] or [position]."""

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class LayerNorm(nn.Module):
    """Centre each vector, divide by its standard deviation, then scale and shift (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, config: ModelConfig, points: dict[str, HookPoint], name: str) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.d_model))
        self.bias = nn.Parameter(torch.empty(config.d_model))
        self.hook_scale, self.hook_normalized = (points[f"{name}.{point}"] for point in NORM_POINTS)

    def forward(self, x: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position d_model"]:
        if not self.hook_scale.active:
            return self.hook_normalized(F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps))
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())  # [batch, position, 1]
        return self.hook_normalized(centred / scale * self.weight + self.bias)


class Attention(nn.Module):
    """Causal self-attention with several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig, points: dict[str, HookPoint], layer: int) -> None:
        super().__init__()
        width = config.n_heads * config.d_head
        self.n_heads, self.d_head = config.n_heads, config.d_head
        self.qkv = nn.Linear(config.d_model, 3 * width)  # the three projections in one product
        self.o = nn.Linear(width, config.d_model)
        (
            self.hook_q,
            self.hook_k,
            self.hook_v,
            self.hook_attn_scores,
            self.hook_pattern,
            self.hook_z,
            self.hook_result,
        ) = (
            points[block_name(layer, f"attn.hook_{point}")]
            for point in ("q", "k", "v", "attn_scores", "pattern", "z", "result")
        )

    def forward(
        self, x: Float[Tensor, "batch position d_model"], allowed: Bool[Tensor, "batch 1 query key"] | None
    ) -> Float[Tensor, "batch position d_model"]:
        """`allowed` says which key each query may see; None is every key up to its own position."""
        q, k, v = rearrange(self.qkv(x), "b p (three h e) -> three b p h e", three=3, h=self.n_heads).unbind(0)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)  # [batch, position, head, d_head]
        if self.hook_attn_scores.active or self.hook_pattern.active:
            z = self._explicit(q, k, v, allowed)
        else:
            q, k, v = (value.transpose(1, 2) for value in (q, k, v))  # [batch, head, position, d_head]
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=allowed is None).transpose(1, 2)
        z = self.hook_z(z)
        if not self.hook_result.active:
            out: Tensor = self.o(z.flatten(2))
            return out
        result = self.hook_result(einsum(z, self.W_O, "b p h e, h e d -> b p h d"))
        return result.sum(2) + self.o.bias

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
        if allowed is None:
            allowed = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()
        scores = einsum(q, k, "b i h e, b j h e -> b h i j") / math.sqrt(self.d_head)
        scores = self.hook_attn_scores(scores.masked_fill(~allowed, -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))  # torch subtracts the maximum first, so large scores are safe
        return einsum(pattern, v, "b h i j, b j h e -> b i h e")

    @property
    def W_QKV(self) -> Float[Tensor, "three head d_model d_head"]:
        """The query, key and value weights of each head: `x @ W` maps the stream into the head."""
        return rearrange(self.qkv.weight, "(three h e) d -> three h d e", three=3, h=self.n_heads)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """The output weights of each head: `z @ W` maps the head back into the stream."""
        return rearrange(self.o.weight, "d (h e) -> h e d", h=self.n_heads)


class MLP(nn.Module):
    """Two linear maps with a nonlinearity between, applied at each position by itself."""

    def __init__(self, config: ModelConfig, points: dict[str, HookPoint], layer: int) -> None:
        super().__init__()
        self.input = nn.Linear(config.d_model, config.d_mlp)
        self.output = nn.Linear(config.d_mlp, config.d_model)
        self.activation = ACTIVATIONS[config.activation]
        self.hook_pre, self.hook_post = (points[block_name(layer, f"mlp.hook_{point}")] for point in ("pre", "post"))

    def forward(self, x: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position d_model"]:
        pre = self.hook_pre(self.input(x))  # [batch, position, d_mlp]
        out: Tensor = self.output(self.hook_post(self.activation(pre)))
        return out


class Block(nn.Module):
    """Attention, then MLP; each reads the layer-normed stream and adds its output to the stream (pre-norm)."""

    def __init__(self, config: ModelConfig, points: dict[str, HookPoint], layer: int) -> None:
        super().__init__()
        self.ln1 = LayerNorm(config, points, block_name(layer, "ln1"))
        self.attn = Attention(config, points, layer)
        self.ln2 = LayerNorm(config, points, block_name(layer, "ln2"))
        self.mlp = MLP(config, points, layer)
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_mid, self.hook_mlp_out, self.hook_resid_post = (
            points[block_name(layer, f"hook_{point}")]
            for point in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )

    def forward(
        self, x: Float[Tensor, "batch position d_model"], allowed: Bool[Tensor, "batch 1 query key"] | None
    ) -> Float[Tensor, "batch position d_model"]:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self.attn(self.ln1(x), allowed)))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))


class Transformer(Hooked, nn.Module):
    """A GPT-2-style language model whose every intermediate value can be read and changed by name.

    Args:
        config: the architecture.
        tokenizer: for prompts given as text; None where the model only ever sees ids.
        name: shown in results and figures.
        seed: of the random initialisation (N(0, init_std^2); projections into the stream divided by sqrt(2 n_layers), as
            in GPT-2). None leaves the weights unallocated, for a loader to fill.
    """

    def __init__(
        self, config: ModelConfig, *, tokenizer: Tokenizer | None = None, name: str = "unnamed", seed: int | None = 0
    ) -> None:
        super().__init__()
        if tokenizer is not None and len(tokenizer) > config.d_vocab:
            raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens but the model only {config.d_vocab}.")
        self.config, self.tokenizer, self.name = config, tokenizer, name
        points = self.hook_points = {n: HookPoint(n, axes) for n, axes in hook_axes(config.n_layers).items()}
        self.hook_embed, self.hook_pos_embed = points["hook_embed"], points["hook_pos_embed"]
        with torch.device("meta"):
            self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
            self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))
            self.blocks = nn.ModuleList(Block(config, points, layer) for layer in range(config.n_layers))
            self.ln_final = LayerNorm(config, points, "ln_final")
        self._weight_hash: tuple[tuple[tuple[int, int], ...], str] | None = None
        if seed is not None:
            self.to_empty(device="cpu")
            self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        into_stream = 1 / math.sqrt(2 * self.config.n_layers)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.ndim == 1:  # the gain of a norm
                weight.fill_(1.0)
            else:
                projection = name.endswith(("attn.o.weight", "mlp.output.weight"))
                weight.normal_(0.0, self.config.init_std * (into_stream if projection else 1.0), generator=generator)

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

    def embed(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position d_model"]:
        """The stream that enters block 0: token embedding plus position embedding. A padding place counts no position."""
        real = tokens != PAD
        positions = (real.cumsum(1) - 1).clamp(min=0)
        return self.hook_embed(self.W_E[tokens.clamp(min=0)]) + self.hook_pos_embed(self.W_pos[positions])

    def run_blocks(
        self,
        residual: Float[Tensor, "batch position d_model"],
        *,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        real: Bool[Tensor, "batch position"] | None = None,
    ) -> Float[Tensor, "batch position d_model"]:
        """Run blocks `start_at_layer` to `stop_at_layer - 1` (default: the last) on the stream that enters the first of them.

        Args:
            real: False at padding, which no position attends to; None where there is none.

        Raises:
            ConfigError: layers outside 0 <= start <= stop <= n_layers.
        """
        stop = self.config.n_layers if stop_at_layer is None else stop_at_layer
        if not 0 <= start_at_layer <= stop <= self.config.n_layers:
            raise ConfigError(
                f"layers {start_at_layer} to {stop} asked for; need 0 <= start <= stop <= {self.config.n_layers}."
            )
        allowed = None if real is None else _allowed(real)
        for block in self.blocks[start_at_layer:stop]:
            residual = block(residual, allowed)
        return residual

    def unembed(self, residual: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position vocab"]:
        """Final layer norm, then the inner product with every token's embedding: the logits."""
        return F.linear(self.ln_final(residual), self.W_E)

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding; GPT-2 ties it to the embedding."""
        return self.W_E.mT

    def run_with_cache(
        self, tokens: Int[Tensor, "batch position"], names: Selection = None
    ) -> tuple[Float[Tensor, "batch position vocab"], ActivationCache]:
        """The logits, and the activations at the named hook points (glob, list or predicate; None is all of them)."""
        with self.capture(names) as values:
            logits = self(tokens)
        return logits, ActivationCache({name: values[name] for name in self.hook_points if name in values})

    def check_tokens(self, tokens: Tensor) -> Bool[Tensor, "batch position"] | None:
        """Which places hold a token (None: all of them). Raises TokenError where the model cannot take the ids."""
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
            shape = tuple(tokens.shape)
            raise TokenError(f"tokens must be integer ids [batch, position], got {tokens.dtype} of shape {shape}.")
        if tokens.numel() == 0:
            raise TokenError(f"the prompt is empty: tokens have shape {tuple(tokens.shape)}.")
        if tokens.shape[1] > self.config.n_ctx:
            raise TokenError(f"the prompt has {tokens.shape[1]} tokens; {self.name} takes at most {self.config.n_ctx}.")
        low, high = (int(x) for x in torch.aminmax(tokens))
        if low < PAD or high >= self.config.d_vocab:
            wrong = low if low < PAD else high
            raise TokenError(f"token id {wrong} is out of range: {self.name} has ids 0 to {self.config.d_vocab - 1}.")
        if low != PAD:
            return None
        real = tokens != PAD
        if not bool(real.any(1).all()):
            raise TokenError("the prompt is empty: a row of tokens holds only padding.")
        return real

    def to_tokens(self, prompt: Prompt, *, bos: bool | None = None) -> Int[Tensor, "batch position"]:
        """Token ids of a prompt, on the model's device; shorter rows are padded at the end with PAD.

        Args:
            prompt: a text, several texts, or ids (which are checked and returned as they are).
            bos: begin each text with the BOS token. None does so exactly where the model was trained so
                (`model.tokenizer.bos` is then its id); `to_str_tokens` shows it.

        Raises:
            TokenError: an empty prompt, one beyond the context, ids out of range, or text without a tokenizer.
        """
        if isinstance(prompt, Tensor):
            tokens = prompt[None] if prompt.ndim == 1 else prompt
        else:
            tokenizer = self._need_tokenizer()
            texts = [prompt] if isinstance(prompt, str) else list(prompt)
            tokens = tokenizer.batch(texts, bos=tokenizer.bos is not None if bos is None else bos)
        self.check_tokens(tokens)
        return tokens.to(self.device)

    def to_str_tokens(self, prompt: Prompt, *, bos: bool | None = None) -> list[list[str]]:
        """The text of each token of each row; padding is left out."""
        rows = self.to_tokens(prompt, bos=bos).tolist()
        return [self._need_tokenizer().pieces([i for i in row if i != PAD]) for row in rows]

    def to_string(self, tokens: Int[Tensor, "*batch position"]) -> list[str]:
        """The text of each row of ids."""
        rows = tokens.tolist() if tokens.ndim == 2 else [tokens.tolist()]
        return [self._need_tokenizer().decode(row) for row in rows]

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token; a TokenError lists the pieces of one that is not."""
        return self._need_tokenizer().single(text)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TokenError(f"{self.name} has no tokenizer: give token ids, or load it with its tokenizer files.")
        return self.tokenizer

    @property
    def device(self) -> torch.device:
        return self.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_E.dtype

    def weight_hash(self) -> str:
        """SHA-256 of names, shapes, dtypes and bytes of all weights; computed again only after they changed."""
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if self._weight_hash is None or self._weight_hash[0] != state:
            digest = hashlib.sha256()
            for name, weight in self.state_dict().items():
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
                digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
            self._weight_hash = state, digest.hexdigest()
        return self._weight_hash[1]


def _allowed(real: Bool[Tensor, "batch position"]) -> Bool[Tensor, "batch 1 query key"]:
    """Causal, real keys only; a padding place sees itself, so that no row of the softmax is empty."""
    own = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    causal = torch.ones_like(own).tril()
    return (causal & real[:, None, :] | own)[:, None]
