"""The Llama family (Llama 2 and 3, SmolLM2, TinyLlama): how its configuration and its weights map onto ours, and back.

Mistral, Qwen, Gemma and OLMo are named alike; their files build on the tables here and say what differs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError
from interp.loading.exact import check_held
from interp.loading.families.rotary import read_rotary, write_rotary
from interp.loading.families.settings import NAMES, Settings
from interp.loading.families.table import HEADS_FLAT, STACKED, Change, Reader, Row, Writer, both_ways, layers, row

TOP = [row("W_E", "embed_tokens.weight")]
PROJECTIONS = [
    row("attn.qkv.weight", *(f"self_attn.{name}_proj.weight" for name in "qkv"), change=STACKED),
    row("attn.qkv.bias", *(f"self_attn.{name}_proj.bias" for name in "qkv"), change=STACKED),
    *(row(f"attn.o.{part}", f"self_attn.o_proj.{part}") for part in ("weight", "bias")),
    *(
        row(f"mlp.{ours}.{part}", f"mlp.{theirs}_proj.{part}")
        for ours, theirs in (("gate", "gate"), ("input", "up"), ("output", "down"))
        for part in ("weight", "bias")
    ),
]
NORMS = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
"""Our name and theirs, of Llama's own norms."""

HEAD_NORMS = [row(f"attn.{name}_norm.weight", f"self_attn.{name}_norm.weight") for name in "qk"]
WHOLE_NORMS = [row(one.ours, *one.theirs, change=HEADS_FLAT) for one in HEAD_NORMS]
BUFFERS = ("rotary_emb.inv_freq",)
PREFIX, HEAD = "model.", "lm_head.weight"
DIVIDED = ("llama", "gemma2", "gemma3_text")
"""Families whose class in `transformers` wants the width to be a multiple of the number of heads, whatever the heads' width."""


def table(
    config: ModelConfig, norms: Mapping[str, str] = NORMS, more: Sequence[Row] = (), norm_change: Change | None = None
) -> list[Row]:
    """Every weight but an untied head.

    Args:
        norms: of a block: our name, and theirs.
        more: further rows of a block.
        norm_change: what is done to the norms' weights.
    """
    changed = {} if norm_change is None else {"change": norm_change}
    block = [
        *PROJECTIONS,
        *(row(f"{ours}.weight", f"{theirs}.weight", **changed) for ours, theirs in norms.items()),
        *more,
    ]
    return [*TOP, row("ln_final.weight", "norm.weight", **changed), *layers(config.n_layers, "layers", block)]


def sizes(settings: Settings, n_kv_heads: int | None = None) -> dict[str, Any]:
    """The fields of our configuration that all families named like Llama say alike.

    Args:
        n_kv_heads: where the configuration does not say it; None is as many as there are heads.
    """
    d_model, n_heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
    n_kv_heads = settings.whole("num_key_value_heads", n_kv_heads or n_heads, null=n_heads)
    d_head = d_model // max(n_heads, 1)
    return {
        "n_layers": settings.whole("num_hidden_layers"),
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": settings.whole("head_dim", d_head, null=d_head),
        "d_mlp": settings.whole("intermediate_size"),
        "n_ctx": settings.whole("max_position_embeddings"),
        "d_vocab": settings.whole("vocab_size"),
        "n_kv_heads": None if n_kv_heads == n_heads else n_kv_heads,
        "norm": "rmsnorm",
        "mlp": "gated",
        "bias": False,
        "init_std": settings.number("initializer_range", 0.02),
    }


def attention_bias(settings: Settings) -> dict[str, Any]:
    """Biases of the four maps of attention, where the configuration says so."""
    there = settings.flag("attention_bias", False) or None
    return {"qkv_bias": there, "out_bias": there}


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Llama config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    given.only(pretraining_tp=1)
    shape = sizes(given)
    if shape["init_std"] > 1:
        raise CheckpointError(f"{source}: initializer_range must be at most 1, found {shape['init_std']!r}.")
    return given.config(
        **shape,
        **read_rotary(given, shape["d_head"]),
        **attention_bias(given),
        mlp_bias=given.flag("mlp_bias", False) or None,
        activation=given.activation("hidden_act", default="silu"),
        norm_eps=given.number("rms_norm_eps", 1e-6),
        tied=given.flag("tie_word_embeddings", False),
    )


def written(config: ModelConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The fields of config.json that all families named like Llama say alike.

    Raises ConfigError where the family's class in `transformers` refuses such sizes.
    """
    if model_type in DIVIDED and config.d_model % config.n_heads:
        raise ConfigError(
            f"the format {model_type!r} cannot hold d_model = {config.d_model}, which is no multiple of n_heads = {config.n_heads}."
        )
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "num_hidden_layers": config.n_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_mlp,
        "max_position_embeddings": config.n_ctx,
        "vocab_size": config.d_vocab,
        "hidden_act": NAMES[config.activation],
        "rms_norm_eps": float(config.norm_eps),
        "initializer_range": float(config.init_std),
        "tie_word_embeddings": config.tied,
        "rope_parameters": write_rotary(config),
    }


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Llama config.json of our configuration, readable by `transformers`. Raises ConfigError naming an option that Llama has not."""
    settings = written(config, "llama", "LlamaForCausalLM")
    settings |= {"attention_bias": config.has_qkv_bias, "mlp_bias": config.has_mlp_bias}
    check_held(config, lambda: read_config(settings, "llama"), "llama")
    return settings


def weights(table: Callable[[ModelConfig], Sequence[Row]]) -> tuple[Reader, Writer]:
    """`read_weights` and `write_weights` by the table of a family that is named like Llama."""
    return both_ways(table, prefix=PREFIX, heads=(HEAD,), ignored=BUFFERS)


read_weights, write_weights = weights(table)
