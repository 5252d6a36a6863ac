"""OLMo 2: norms on what attention and MLP write, before it is added, and on the whole of queries and of keys."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families import llama
from interp.loading.families.rotary import read_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.table import Row

NORMS = {"ln1_post": "post_attention_layernorm", "ln2_post": "post_feedforward_layernorm"}


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    return llama.table(config, NORMS, llama.WHOLE_NORMS)


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from an OLMo 2 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    given.only(clip_qkv=None)
    shape = llama.sizes(given)
    return given.config(
        **shape,
        **read_rotary(given, shape["d_head"]),
        **llama.attention_bias(given),
        norm_placement="output",
        qk_norm="whole",
        activation=given.activation("hidden_act", default="silu"),
        norm_eps=given.number("rms_norm_eps", 1e-5),
        tied=given.flag("tie_word_embeddings", False),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """An OLMo 2 config.json of our configuration. Raises ConfigError naming an option that OLMo 2 has not."""
    settings = llama.written(config, "olmo2", "Olmo2ForCausalLM") | {"attention_bias": config.has_qkv_bias}
    check_held(config, lambda: read_config(settings, "olmo2"), "olmo2")
    return settings


read_weights, write_weights = llama.weights(table)
