"""GPT-NeoX (Pythia): attention and MLP side by side, each with its norm; a share of each head is turned; queries, keys, values by head."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.exact import check_held
from interp.loading.families.rotary import original_ctx, said, scaled, turned, write_rotary
from interp.loading.families.settings import NAMES, Settings
from interp.loading.families.table import BY_HEAD, Row, both_ways, layers, row

PARTS = ("weight", "bias")
BLOCK = [
    *(row(f"ln1.{part}", f"input_layernorm.{part}") for part in PARTS),
    *(row(f"ln2.{part}", f"post_attention_layernorm.{part}") for part in PARTS),
    *(row(f"attn.qkv.{part}", f"attention.query_key_value.{part}", change=BY_HEAD) for part in PARTS),
    *(row(f"attn.o.{part}", f"attention.dense.{part}") for part in PARTS),
    *(row(f"mlp.input.{part}", f"mlp.dense_h_to_4h.{part}") for part in PARTS),
    *(row(f"mlp.output.{part}", f"mlp.dense_4h_to_h.{part}") for part in PARTS),
]
BUFFERS = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
HEADS = ("embed_out.weight", "lm_head.weight")


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    top = [row("W_E", "embed_in.weight"), *(row(f"ln_final.{part}", f"final_layer_norm.{part}") for part in PARTS)]
    return [*top, *layers(config.n_layers, "layers", BLOCK)]


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a GPT-NeoX config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    d_model, n_heads = given.whole("hidden_size"), given.whole("num_attention_heads")
    d_head = d_model // max(n_heads, 1)
    given.only(head_dim=d_head)
    rotary = said(given)
    base = rotary.number("rope_theta") if "rope_theta" in rotary else given.number("rotary_emb_base", 10000.0)
    named = "partial_rotary_factor" in rotary
    share = rotary.number("partial_rotary_factor") if named else given.number("rotary_pct", 0.25)
    if not 0 < share <= 1:
        raise CheckpointError(
            f"{source}: partial_rotary_factor (rotary_pct) must be a share from 0 to 1, found {share!r}."
        )
    bias = {} if given.flag("attention_bias", True) else {"qkv_bias": False, "out_bias": False}
    return given.config(
        n_layers=given.whole("num_hidden_layers"),
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_head,
        d_mlp=given.whole("intermediate_size"),
        n_ctx=given.whole("max_position_embeddings"),
        d_vocab=given.whole("vocab_size"),
        activation=given.activation("hidden_act", default="gelu"),
        norm_eps=given.number("layer_norm_eps", 1e-5),
        init_std=given.number("initializer_range", 0.02),
        tied=given.flag("tie_word_embeddings", False),
        parallel=given.flag("use_parallel_residual", True),
        positions="rotary",
        rotary_base=base,
        rotary_dims=turned(share, d_head),
        **scaled(rotary, original_ctx(given, rotary)),
        **bias,
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A GPT-NeoX config.json of our configuration. Raises ConfigError naming an option that GPT-NeoX has not."""
    share = 1.0 if config.rotary_dims is None else config.rotary_dims / config.d_head
    settings = {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_hidden_layers": config.n_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_mlp,
        "max_position_embeddings": config.n_ctx,
        "vocab_size": config.d_vocab,
        "hidden_act": NAMES[config.activation],
        "layer_norm_eps": float(config.norm_eps),
        "initializer_range": float(config.init_std),
        "tie_word_embeddings": config.tied,
        "use_parallel_residual": config.parallel,
        "attention_bias": config.has_qkv_bias,
        "rope_parameters": write_rotary(config) | {"partial_rotary_factor": share},
    }
    check_held(config, lambda: read_config(settings, "gpt_neox"), "gpt_neox")
    return settings


read_weights, write_weights = both_ways(table, prefix="gpt_neox.", heads=HEADS, ignored=BUFFERS)
