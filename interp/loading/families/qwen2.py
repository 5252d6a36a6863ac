"""Qwen 2 and 2.5: Llama with biases on queries, keys and values only."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families.llama import read_weights, sizes, write_weights, written
from interp.loading.families.rotary import read_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.windows import read_windows, write_windows

__all__ = ["read_config", "read_weights", "shared", "write_config", "write_weights"]


def shared(given: Settings) -> dict[str, Any]:
    """The fields that Qwen 2 and 3 say alike."""
    shape = sizes(given, 32)
    width = given.whole("sliding_window", 4096, null=None) if given.flag("use_sliding_window", False) else None
    upper = given.whole("max_window_layers", 28)
    return {
        **shape,
        **read_windows(given, shape["n_layers"], width, lambda layer: width is not None and layer >= upper),
        "activation": given.activation("hidden_act", default="silu"),
        "norm_eps": given.number("rms_norm_eps", 1e-6),
        "tied": given.flag("tie_word_embeddings", False),
    }


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Qwen 2 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    fields = shared(given)
    return given.config(**fields, **read_rotary(given, fields["d_head"]), qkv_bias=True)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Qwen 2 config.json of our configuration. Raises ConfigError naming an option that Qwen 2 has not."""
    settings = written(config, "qwen2", "Qwen2ForCausalLM") | {"use_sliding_window": config.window is not None}
    settings |= write_windows(config) | {"max_window_layers": config.n_layers}
    check_held(config, lambda: read_config(settings, "qwen2"), "qwen2")
    return settings
