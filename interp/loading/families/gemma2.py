"""Gemma 2: a norm before and after attention and MLP, soft caps, a window in every other layer, a query scale of its own.

Its norms multiply by 1 + w; what they multiply by is what is loaded.
"""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families import llama
from interp.loading.families.rotary import read_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.table import ONE_LESS, Row
from interp.loading.families.windows import read_windows, write_windows

NORMS = {
    "ln1": "input_layernorm",
    "ln1_post": "post_attention_layernorm",
    "ln2": "pre_feedforward_layernorm",
    "ln2_post": "post_feedforward_layernorm",
}


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    return llama.table(config, NORMS, norm_change=ONE_LESS)


def shared(given: Settings) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 say alike."""
    given.only(use_bidirectional_attention=False)
    shape = llama.sizes(given, 4)
    d_head = given.whole("head_dim", 256)
    scalar = given.whole("query_pre_attn_scalar", 256, least=1)
    return {
        **shape,
        **llama.attention_bias(given),
        "d_head": d_head,
        "norm_placement": "both",
        "attn_scale": None if scalar == d_head else scalar**-0.5,
        "embed_scale": shape["d_model"] ** 0.5,
        "activation": given.activation("hidden_activation", default="gelu_pytorch_tanh"),
        "norm_eps": given.number("rms_norm_eps", 1e-6),
        "tied": given.flag("tie_word_embeddings", True),
    }


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Gemma 2 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    fields = shared(given)
    return given.config(
        **fields,
        **read_windows(given, fields["n_layers"], given.whole("sliding_window", 4096), lambda layer: layer % 2 == 0),
        **read_rotary(given, fields["d_head"]),
        score_cap=given.number("attn_logit_softcapping", 50.0, null=None),
        logit_cap=given.number("final_logit_softcapping", 30.0, null=None),
    )


def written(config: ModelConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The fields of config.json that Gemma 2 and 3 say alike."""
    settings = llama.written(config, model_type, architecture) | write_windows(config, unused=config.n_ctx)
    del settings["hidden_act"]
    activation = "gelu_pytorch_tanh" if config.activation == "gelu_new" else config.activation
    scalar = config.d_head if config.attn_scale is None else config.attn_scale**-2
    return settings | {
        "hidden_activation": activation,
        "attention_bias": config.has_qkv_bias,
        "query_pre_attn_scalar": max(1, round(scalar)),  # whole, so that another scale reads back as another
        "attn_logit_softcapping": None if config.score_cap is None else float(config.score_cap),
        "final_logit_softcapping": None if config.logit_cap is None else float(config.logit_cap),
    }


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Gemma 2 config.json of our configuration. Raises ConfigError naming an option that Gemma 2 has not."""
    settings = written(config, "gemma2", "Gemma2ForCausalLM")
    check_held(config, lambda: read_config(settings, "gemma2"), "gemma2")
    return settings


read_weights, write_weights = llama.weights(table)
