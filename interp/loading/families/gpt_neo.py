"""GPT-Neo (TinyStories): GPT-2 with scores that are not divided, a window in every other layer, no biases on queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.exact import check_held
from interp.loading.families.settings import NAMES, Settings
from interp.loading.families.table import STACKED, Row, both_ways, layers, row

BLOCK = [
    *(
        row(f"{ours}.{part}", f"{theirs}.{part}")
        for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2"))
        for part in ("weight", "bias")
    ),
    row("attn.qkv.weight", *(f"attn.attention.{name}_proj.weight" for name in "qkv"), change=STACKED),
    *(row(f"attn.o.{part}", f"attn.attention.out_proj.{part}") for part in ("weight", "bias")),
    *(
        row(f"mlp.{ours}.{part}", f"mlp.{theirs}.{part}")
        for ours, theirs in (("input", "c_fc"), ("output", "c_proj"))
        for part in ("weight", "bias")
    ),
]
BUFFERS = (".attn.attention.bias", ".attn.attention.masked_bias")
KINDS = ("global", "local")
EACH_OTHER = [[["global", "local"], 12]]  # where a file says nothing of it
ALIASES = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    top = [row("W_E", "wte.weight"), row("W_pos", "wpe.weight")]
    top += [row(f"ln_final.{part}", f"ln_f.{part}") for part in ("weight", "bias")]
    return [*top, *layers(config.n_layers, "h", BLOCK)]


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a GPT-Neo config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source, ALIASES)
    d_model, n_heads, n_layers = (given.whole(name) for name in ("hidden_size", "num_heads", "num_layers"))
    local = [layer for layer, kind in enumerate(_kinds(given, n_layers)) if kind == "local"]
    window = {"window": given.whole("window_size", 256)} if local else {}
    return given.config(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_model // max(n_heads, 1),
        d_mlp=given.whole("intermediate_size", 4 * d_model, null=4 * d_model),
        n_ctx=given.whole("max_position_embeddings", 2048),
        d_vocab=given.whole("vocab_size"),
        activation=given.activation("activation_function", default="gelu_new"),
        norm_eps=given.number("layer_norm_epsilon", 1e-5),
        init_std=given.number("initializer_range", 0.02),
        tied=given.flag("tie_word_embeddings", True),
        causal=True,  # whatever `is_causal` says: attention itself masks
        attn_scale=1.0,
        qkv_bias=False,
        windowed_layers=None if not local or len(local) == n_layers else tuple(local),
        **window,
    )


def _kinds(given: Settings, n_layers: int) -> list[str]:
    """Whether each layer is global or local: `attention_layers`, or `attention_types`, [[kinds, times], ...], written out."""
    kinds = given.get("attention_layers", None)
    if kinds is None:
        types = given.get("attention_types", EACH_OTHER, null=EACH_OTHER)
        try:
            kinds = [kind for group, times in types for _ in range(min(times, n_layers + 1)) for kind in group]
        except (TypeError, ValueError):
            kinds = types
    known = isinstance(kinds, (list, tuple)) and all(isinstance(kind, str) and kind in KINDS for kind in kinds)
    if not known or len(kinds) != n_layers:
        raise CheckpointError(
            f"{given.source}: attention_types must give global or local for each of {n_layers} layers, found {kinds!r}."
        )
    return list(kinds)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A GPT-Neo config.json of our configuration. Raises ConfigError naming an option that GPT-Neo has not."""
    kinds = ["global" if config.window_of(layer) is None else "local" for layer in range(config.n_layers)]
    settings = {
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "num_layers": config.n_layers,
        "hidden_size": config.d_model,
        "num_heads": config.n_heads,
        "intermediate_size": config.d_mlp,
        "max_position_embeddings": config.n_ctx,
        "vocab_size": config.d_vocab,
        "activation_function": NAMES[config.activation],
        "layer_norm_epsilon": float(config.norm_eps),
        "initializer_range": float(config.init_std),
        "tie_word_embeddings": config.tied,
        "attention_types": [[[kind], 1] for kind in kinds],
        "attention_layers": kinds,
        "window_size": 256 if config.window is None else config.window,
    }
    check_held(config, lambda: read_config(settings, "gpt_neo"), "gpt_neo")
    return settings


read_weights, write_weights = both_ways(table, prefix="transformer.", heads=("lm_head.weight",), ignored=BUFFERS)
