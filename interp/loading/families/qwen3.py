"""Qwen 3: an RMS norm on each head's queries and keys, and heads whose width is a choice of its own."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families import llama
from interp.loading.families.qwen2 import shared
from interp.loading.families.rotary import read_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.table import Row
from interp.loading.families.windows import write_windows


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    return llama.table(config, more=llama.HEAD_NORMS)


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Qwen 3 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    fields = shared(given)
    fields["d_head"] = given.whole("head_dim", 128)
    return given.config(**fields, **read_rotary(given, fields["d_head"]), **llama.attention_bias(given), qk_norm="head")


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Qwen 3 config.json of our configuration. Raises ConfigError naming an option that Qwen 3 has not."""
    settings = llama.written(config, "qwen3", "Qwen3ForCausalLM") | {"use_sliding_window": config.window is not None}
    settings |= write_windows(config) | {"max_window_layers": config.n_layers, "attention_bias": config.has_qkv_bias}
    check_held(config, lambda: read_config(settings, "qwen3"), "qwen3")
    return settings


read_weights, write_weights = llama.weights(table)
