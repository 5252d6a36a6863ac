"""The shape of a model."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from interp.errors import ConfigError
from interp.whole_numbers import whole_number, whole_numbers

Activation = Literal["gelu", "gelu_new", "relu", "silu"]
Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm", "none"]
Placement = Literal["pre", "post", "both", "output"]
MLPKind = Literal["plain", "gated", "none"]
QKNorm = Literal["none", "head", "whole"]
RotaryScaling = Literal["none", "linear", "llama3"]


CHOICES = {
    "activation": Activation,
    "positions": Positions,
    "norm": Norm,
    "norm_placement": Placement,
    "mlp": MLPKind,
    "qk_norm": QKNorm,
    "rotary_scaling": RotaryScaling,
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a transformer language model. The defaults are those of GPT-2 (Radford et al. 2019).

    Args:
        n_layers: blocks.
        d_model: width of the residual stream.
        n_heads: attention heads in each block.
        d_head: width of a head; GPT-2 has `d_model // n_heads`.
        d_mlp: neurons of each MLP; GPT-2 has `4 * d_model`.
        n_ctx: longest context in tokens.
        d_vocab: number of token ids.
        activation: of the MLP: `gelu` (exact), `gelu_new` (its tanh approximation), `relu` or `silu`.
        positions: how the model knows them: `learned` or `sinusoidal` (Vaswani et al. 2017) embeddings added to the token's,
            `rotary` queries and keys (Su et al. 2021, arXiv 2104.09864), `alibi`, a penalty on distance in the scores
            (Press et al. 2021, arXiv 2108.12409), or `none`.
        norm: `layernorm` (Ba et al. 2016), `rmsnorm` (Zhang and Sennrich 2019, arXiv 1910.07467) or `none`.
        norm_placement: `pre`, before attention and MLP reads the stream; `output`, on what each writes, before it is added (OLMo 2);
            `both` (Gemma 2); all three with a final norm before the unembedding; or `post`, on the stream after each addition, without
            a final norm (Vaswani et al. 2017).
        norm_eps: added to the variance in a norm.
        qk_norm: an RMS norm on queries and keys, before they are turned: on each `head` by itself (Qwen 3, Gemma 3), on the `whole` of
            a layer's heads (OLMo 2), or `none`.
        mlp: `plain`, `gated` (Shazeer 2020, arXiv 2002.05202) or `none`, which leaves attention only.
        n_kv_heads: heads that have keys and values of their own, shared by groups of query heads (Ainslie et al. 2023,
            arXiv 2305.13245); None is one for each head.
        tied: whether the unembedding is the embedding, transposed.
        bias: whether linear maps and layer norms have biases.
        qkv_bias, out_bias, mlp_bias: whether the maps to queries, keys and values, the heads' output, and the MLP's maps have biases,
            where that is not as in `bias`; None is as there.
        unembed_bias: whether the logits have a bias of their own.
        causal: whether a position sees only itself and earlier ones; False is bidirectional.
        parallel: whether attention and MLP of a block read the same stream, side by side (GPT-J, GPT-NeoX); else the MLP reads what
            attention has written.
        window: how far a position of a windowed layer sees: itself and `window - 1` positions before it (and after it, where attention
            is bidirectional). None is everywhere.
        windowed_layers: the layers that have that window; None is all.
        attn_scale: what queries times keys are multiplied by; None is `1 / sqrt(d_head)`.
        score_cap, logit_cap: a soft cap c on attention scores, or on logits: `c tanh(x / c)` (Gemma 2); None is no cap.
        embed_scale: what token embeddings are multiplied by where they enter the stream.
        rotary_base: slowest wavelength of rotary positions is about `2 pi rotary_base`.
        rotary_dims: how many dimensions of each head are turned; None is all.
        rotary_scaling: of wavelengths, to reach beyond the context of training: `linear` divides every position by `rotary_factor`;
            `llama3` does so for long wavelengths only (Llama 3.1), those of fewer than `rotary_low` turns in `rotary_original_ctx`
            positions, not for those of more than `rotary_high`, and in part between.
        rotary_local_base: the base in windowed layers, which are not scaled (Gemma 3); None is as elsewhere.
        init_std: standard deviation of freshly initialised weights.

    Raises:
        ConfigError: sizes, choices or their combination that cannot be.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    activation: Activation = "gelu_new"
    positions: Positions = "learned"
    norm: Norm = "layernorm"
    norm_placement: Placement = "pre"
    norm_eps: float = 1e-5
    mlp: MLPKind = "plain"
    n_kv_heads: int | None = None
    tied: bool = True
    bias: bool = True
    qkv_bias: bool | None = None
    out_bias: bool | None = None
    mlp_bias: bool | None = None
    unembed_bias: bool = False
    causal: bool = True
    parallel: bool = False
    window: int | None = None
    windowed_layers: Sequence[int] | None = None
    attn_scale: float | None = None
    score_cap: float | None = None
    logit_cap: float | None = None
    embed_scale: float = 1.0
    qk_norm: QKNorm = "none"
    rotary_base: float = 10000.0
    rotary_dims: int | None = None
    rotary_scaling: RotaryScaling = "none"
    rotary_factor: float = 1.0
    rotary_low: float = 1.0
    rotary_high: float = 4.0
    rotary_original_ctx: int | None = None
    rotary_local_base: float | None = None
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if self.windowed_layers is not None:  # JSON has a list; a configuration is hashable
            layers = whole_numbers(self.windowed_layers, "ModelConfig.windowed_layers: a layer", ConfigError)
            object.__setattr__(self, "windowed_layers", tuple(layers))
        for field in fields(self):
            value, kinds = getattr(self, field.name), get_args(field.type) or (field.type,)
            if value is None and type(None) in kinds:
                continue
            if int in kinds:
                try:
                    number = whole_number(value, field.name, ConfigError, least=1)
                except ConfigError:
                    said = f"ModelConfig.{field.name} must be a positive whole number of 64 bits, got {value!r}."
                    raise ConfigError(said) from None
                object.__setattr__(self, field.name, number)
            if float in kinds and not (isinstance(value, (int, float)) and 0 < value <= sys.float_info.max):
                raise ConfigError(f"ModelConfig.{field.name} must be positive, got {value!r}.")
            if bool in kinds and not isinstance(value, bool):
                raise ConfigError(f"ModelConfig.{field.name} must be True or False, got {value!r}.")
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                valid = ", ".join(get_args(choice))
                raise ConfigError(f"ModelConfig.{name} must be one of {valid}, got {getattr(self, name)!r}.")
        self._check_together()

    def _check_together(self) -> None:
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise ConfigError(f"ModelConfig.n_kv_heads must divide n_heads = {self.n_heads}, got {self.n_kv_heads!r}.")
        if self.rotary_dims is not None and (self.rotary_dims % 2 or self.rotary_dims > self.d_head):
            raise ConfigError(
                f"ModelConfig.rotary_dims must be even and at most d_head = {self.d_head}, got {self.rotary_dims}."
            )
        if self.positions == "rotary" and self.rotary_dims is None and self.d_head % 2:
            raise ConfigError(f"ModelConfig.d_head must be even for rotary positions, got {self.d_head}.")
        if self.rotary_scaling == "llama3" and self.rotary_original_ctx is None:
            raise ConfigError("ModelConfig.rotary_original_ctx is needed for rotary_scaling = 'llama3'.")
        if self.rotary_scaling == "llama3" and not self.rotary_low < self.rotary_high:
            raise ConfigError(
                f"ModelConfig.rotary_low must be below rotary_high, got {self.rotary_low} and {self.rotary_high}."
            )
        if self.parallel and (self.mlp == "none" or (self.norm != "none" and self.norm_placement == "post")):
            raise ConfigError(
                f"ModelConfig.parallel needs an MLP, and norms that do not stand after each addition; got mlp = {self.mlp!r}, "
                f"norm_placement = {self.norm_placement!r}."
            )
        wrong = [layer for layer in self.windowed_layers or () if layer not in range(self.n_layers)]
        if wrong or (self.windowed_layers is not None and self.window is None):
            raise ConfigError(
                f"ModelConfig.windowed_layers must be layers from 0 to {self.n_layers - 1}, with a window; got "
                f"{self.windowed_layers} and window = {self.window}."
            )

    @property
    def kv_heads(self) -> int:
        """Heads that have keys and values of their own."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the maps to queries, keys and values have biases."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def has_out_bias(self) -> bool:
        """Whether attention has an output bias."""
        return self.bias if self.out_bias is None else self.out_bias

    @property
    def has_mlp_bias(self) -> bool:
        """Whether the MLP's maps have biases."""
        return self.bias if self.mlp_bias is None else self.mlp_bias

    @property
    def score_scale(self) -> float:
        """What queries times keys are multiplied by."""
        return 1 / math.sqrt(self.d_head) if self.attn_scale is None else self.attn_scale

    def window_of(self, layer: int) -> int | None:
        """How far positions see in that layer; None is everywhere."""
        return self.window if self.windowed_layers is None or layer in self.windowed_layers else None

    @property
    def norms(self) -> tuple[str, ...]:
        """Where a block's norms stand: before it `reads`, on what it writes (`output`), on the stream `after` that was added."""
        if self.norm == "none":
            return ()
        placements = {"pre": ("reads",), "post": ("after",), "both": ("reads", "output"), "output": ("output",)}
        return placements[self.norm_placement]

    @property
    def is_sum(self) -> bool:
        """Whether the stream is the sum of what was written into it; a norm on the stream itself makes it none."""
        return "after" not in self.norms

    @property
    def has_two_halves(self) -> bool:
        """Whether the stream stands between attention and MLP of a block, one reading what the other has written."""
        return self.mlp != "none" and not self.parallel

    @property
    def has_position_embedding(self) -> bool:
        """Whether positions are told by vectors added to the stream."""
        return self.positions in ("learned", "sinusoidal")

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands before the unembedding."""
        return self.norm != "none" and self.norm_placement != "post"

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, for provenance."""
        return asdict(self)
