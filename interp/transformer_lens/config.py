"""The shape of a model in the field names of `HookedTransformerConfig`, to and from ours."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any

import torch

from interp.config import Activation, MLPKind, ModelConfig, Norm, Positions
from interp.errors import ConfigError, nearest
from interp.loading.devices import device_there
from interp.transformer_lens.utils import get_device
from interp.whole_numbers import LARGEST, whole_number

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "silu": "silu",
}
NORMS: dict[str | None, Norm] = {
    "LN": "layernorm",
    "LNPre": "layernorm",
    "RMS": "rmsnorm",
    "RMSPre": "rmsnorm",
    None: "none",
}
POSITIONS: dict[str, Positions] = {"standard": "learned", "rotary": "rotary", "alibi": "alibi", "none": "none"}
ONLY: dict[str, Any] = {
    "init_mode": "gpt2",
    "scale_attn_by_inverse_layer_idx": False,
    "use_attn_in": False,
    "ungroup_grouped_query_attention": False,
    "use_NTK_by_parts_rope": False,
    "relative_attention_max_distance": None,
    "relative_attention_num_buckets": None,
    "post_embedding_ln": False,
    "rotary_adjacent_pairs": False,
    "num_experts": None,
    "n_devices": 1,
    "load_in_4bit": False,
}
"""Fields that can only stay what they are."""


WHOLE = {
    "n_layers": 1, "d_model": 1, "n_ctx": 1, "d_head": 1, "n_heads": -1, "d_vocab": -1, "d_vocab_out": -1, "d_mlp": 1,
    "window_size": 1, "rotary_dim": 1, "n_key_value_heads": 1, "seed": -LARGEST,
}  # fmt: skip
"""Fields that are whole numbers, and the least that each may be."""
MAY_BE_NONE = ("d_mlp", "window_size", "rotary_dim", "n_key_value_heads", "seed")
NUMBERS = ("eps", "attn_scale", "initializer_range", "rotary_base", "attn_scores_soft_cap", "output_logits_soft_cap")


@dataclass(kw_only=True)
class HookedTransformerConfig:
    """The fields of TransformerLens' configuration, with its defaults; what -1 and None stand for is filled in.

    Raises:
        ConfigError: a value that this layer does not have, such as another way to initialise.
    """

    n_layers: int
    d_model: int
    n_ctx: int
    d_head: int
    model_name: str = "custom"
    n_heads: int = -1
    d_mlp: int | None = None
    act_fn: str | None = None
    d_vocab: int = -1
    eps: float = 1e-5
    use_attn_result: bool = False
    use_attn_scale: bool = True
    attn_scale: float = -1.0
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    use_local_attn: bool = False
    original_architecture: str | None = None
    from_checkpoint: bool = False
    checkpoint_index: int | None = None
    checkpoint_label_type: str | None = None
    checkpoint_value: int | None = None
    tokenizer_name: str | None = None
    window_size: int | None = None
    attn_types: list[str] | None = None
    init_mode: str = "gpt2"
    normalization_type: str | None = "LN"
    device: torch.device | str | None = None
    n_devices: int = 1
    attention_dir: str = "causal"
    attn_only: bool = False
    seed: int | None = None
    initializer_range: float = -1.0
    init_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    positional_embedding_type: str = "standard"
    final_rms: bool = False
    d_vocab_out: int = -1
    parallel_attn_mlp: bool = False
    rotary_dim: int | None = None
    n_params: int | None = None
    use_hook_tokens: bool = False
    gated_mlp: bool = False
    default_prepend_bos: bool = True
    dtype: Any = torch.float32
    tokenizer_prepends_bos: bool | None = None
    n_key_value_heads: int | None = None
    post_embedding_ln: bool = False
    rotary_base: int | float = 10000
    trust_remote_code: bool = False
    rotary_adjacent_pairs: bool = False
    load_in_4bit: bool = False
    num_experts: int | None = None
    experts_per_token: int | None = None
    tie_word_embeddings: bool = False
    use_normalization_before_and_after: bool = False
    attn_scores_soft_cap: float = -1.0
    output_logits_soft_cap: float = -1.0
    use_qk_norm: bool = False
    ungroup_grouped_query_attention: bool = False
    relative_attention_max_distance: int | None = None
    relative_attention_num_buckets: int | None = None
    decoder_start_token_id: int | None = None
    use_NTK_by_parts_rope: bool = False  # noqa: N815  # theirs
    NTK_by_parts_low_freq_factor: float = 1.0
    NTK_by_parts_high_freq_factor: float = 4.0
    NTK_by_parts_factor: float = 8.0

    def __post_init__(self) -> None:
        for name, value in ONLY.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"HookedTransformerConfig.{name} can only be {value!r} here; got {getattr(self, name)!r}."
                )
        for name, least in WHOLE.items():
            value = getattr(self, name)
            if value is not None or name not in MAY_BE_NONE:
                setattr(self, name, whole_number(value, f"HookedTransformerConfig.{name}", ConfigError, least=least))
        for name in NUMBERS:
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, Real):
                raise ConfigError(f"HookedTransformerConfig.{name} must be a number, got {value!r}.")
        self.dtype = dtype_of(self.dtype)
        if self.attn_types is not None and (
            not isinstance(self.attn_types, (list, tuple)) or len(self.attn_types) != self.n_layers
        ):
            raise ConfigError(
                f"HookedTransformerConfig.attn_types must name {self.n_layers} layers 'local' or 'global'; got {self.attn_types!r}."
            )
        if self.n_heads == -1:
            self.n_heads = self.d_model // self.d_head
        if not self.attn_only:
            self.d_mlp = 4 * self.d_model if self.d_mlp is None else self.d_mlp
            if self.act_fn is None:
                raise ConfigError(
                    f"HookedTransformerConfig.act_fn is needed for a model with MLPs: {', '.join(ACTIVATIONS)}."
                )
        if self.d_vocab_out == -1:
            self.d_vocab_out = self.d_vocab
        if self.attn_scale == -1.0:
            self.attn_scale = math.sqrt(self.d_head)
        if self.initializer_range < 0:
            self.initializer_range = 0.8 / math.sqrt(self.d_model)
        if self.positional_embedding_type == "rotary" and self.rotary_dim is None:
            self.rotary_dim = self.d_head
        self.device = get_device() if self.device is None else str(device_there(self.device, ConfigError))
        per_layer = 4 * self.d_model * self.d_head * self.n_heads
        per_layer += 0 if self.d_mlp is None or self.attn_only else self.d_model * self.d_mlp * (2 + self.gated_mlp)
        self.n_params = self.n_layers * per_layer

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "HookedTransformerConfig":
        """From a dictionary of the fields. Raises ConfigError for a name that is none of them."""
        if not isinstance(config, Mapping):
            raise ConfigError(f"HookedTransformerConfig: give a dictionary of the fields, got {type(config).__name__}.")
        names = {field.name for field in fields(cls)}
        if wrong := [name for name in config if name not in names]:
            raise ConfigError(f"HookedTransformerConfig has no field {wrong[0]!r}. {nearest(wrong[0], names)}")
        needed = [field.name for field in fields(cls) if field.default is MISSING and field.name not in config]
        if needed:
            raise ConfigError(f"HookedTransformerConfig.{needed[0]} is needed.")
        return cls(**config)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as a dictionary."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, config: ModelConfig, name: str, **changes: Any) -> "HookedTransformerConfig":
        """The configuration of a model of ours."""
        kind: str | None = {"layernorm": "LN", "rmsnorm": "RMS", "none": None}[config.norm]
        windowed = [config.window_of(layer) is not None for layer in range(config.n_layers)]
        given: dict[str, Any] = {
            "n_layers": config.n_layers, "d_model": config.d_model, "n_ctx": config.n_ctx, "d_head": config.d_head,
            "model_name": name, "n_heads": config.n_heads, "d_vocab": config.d_vocab, "eps": config.norm_eps,
            "d_mlp": None if config.mlp == "none" else config.d_mlp, "act_fn": config.activation,
            "attn_only": config.mlp == "none", "gated_mlp": config.mlp == "gated", "normalization_type": kind,
            "final_rms": config.norm == "rmsnorm", "attention_dir": "causal" if config.causal else "bidirectional",
            "positional_embedding_type": {"learned": "standard"}.get(config.positions, config.positions),
            "parallel_attn_mlp": config.parallel, "n_key_value_heads": config.n_kv_heads,
            "attn_scale": 1 / config.score_scale, "rotary_base": config.rotary_base, "rotary_dim": config.rotary_dims,
            "use_local_attn": any(windowed), "window_size": config.window,
            "attn_types": ["local" if near else "global" for near in windowed] if any(windowed) else None,
            "attn_scores_soft_cap": config.score_cap or -1.0, "output_logits_soft_cap": config.logit_cap or -1.0,
            "use_normalization_before_and_after": config.norms == ("reads", "output"),
            "use_qk_norm": config.qk_norm != "none", "initializer_range": config.init_std,
        }  # fmt: skip
        return cls(**(given | changes))

    def architecture(self) -> ModelConfig:
        """Ours, of a fresh model: embedding and unembedding apart, biases everywhere. Raises ConfigError for what it does not have."""
        if self.final_rms and self.normalization_type not in ("RMS", "RMSPre"):
            raise ConfigError("HookedTransformerConfig.final_rms is supported beside RMS norms only.")
        local: dict[str, Any] = {}
        if self.use_local_attn:
            kinds = self.attn_types or ["local"] * self.n_layers
            local = {"window": self.window_size, "windowed_layers": [i for i, k in enumerate(kinds) if k == "local"]}
        mlp: MLPKind = "none" if self.attn_only else "gated" if self.gated_mlp else "plain"
        return ModelConfig(
            n_layers=self.n_layers, d_model=self.d_model, n_heads=self.n_heads, d_head=self.d_head,
            d_mlp=self.d_mlp or 4 * self.d_model, n_ctx=self.n_ctx, d_vocab=max(self.d_vocab, self.d_vocab_out),
            activation=_one_of("act_fn", self.act_fn or "relu", ACTIVATIONS),
            positions=_one_of("positional_embedding_type", self.positional_embedding_type, POSITIONS),
            norm=_one_of("normalization_type", self.normalization_type, NORMS),
            norm_placement="both" if self.use_normalization_before_and_after else "pre",
            norm_eps=self.eps, mlp=mlp, n_kv_heads=self.n_key_value_heads, tied=False, bias=True, unembed_bias=True,
            causal=_one_of("attention_dir", self.attention_dir, {"causal": True, "bidirectional": False}),
            parallel=self.parallel_attn_mlp, attn_scale=1 / self.attn_scale if self.use_attn_scale else 1.0,
            score_cap=self.attn_scores_soft_cap if self.attn_scores_soft_cap > 0 else None,
            logit_cap=self.output_logits_soft_cap if self.output_logits_soft_cap > 0 else None,
            qk_norm="head" if self.use_qk_norm else "none", rotary_base=float(self.rotary_base),
            rotary_dims=self.rotary_dim if self.positional_embedding_type == "rotary" else None,
            init_std=self.initializer_range, **local,
        )  # fmt: skip


def dtype_of(given: Any) -> torch.dtype:
    """A dtype, or its name. Raises ConfigError for one that is none of numbers with a fraction."""
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype must be a floating one such as torch.float32, or its name; got {given!r}.")
    return found


def _one_of(field: str, value: Any, known: dict[Any, Any]) -> Any:
    if not isinstance(value, str | None) or value not in known:
        names = ", ".join(repr(name) for name in known)
        raise ConfigError(f"HookedTransformerConfig.{field} must be one of {names} here; got {value!r}.")
    return known[value]
