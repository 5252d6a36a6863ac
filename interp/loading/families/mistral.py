"""Mistral: Llama with a sliding window, where one is set."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families.llama import read_weights, sizes, write_weights, written
from interp.loading.families.rotary import read_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.windows import read_windows

__all__ = ["read_config", "read_weights", "write_config", "write_weights"]


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Mistral config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    shape = sizes(given, 8)
    # A file that says nothing of the window means the first release's; null means none.
    if "layer_types" in given:  # `transformers` takes such a file for Ministral's
        windows = read_windows(given, shape["n_layers"], given.whole("sliding_window", 4096), lambda layer: True)
    else:
        windows = {"window": given.whole("sliding_window", 4096, null=None)}
    return given.config(
        **shape,
        **read_rotary(given, shape["d_head"]),
        **windows,
        activation=given.activation("hidden_act", default="silu"),
        norm_eps=given.number("rms_norm_eps", 1e-6),
        tied=given.flag("tie_word_embeddings", False),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Mistral config.json of our configuration. Raises ConfigError naming an option that Mistral has not."""
    settings = written(config, "mistral", "MistralForCausalLM") | {"sliding_window": config.window}
    check_held(config, lambda: read_config(settings, "mistral"), "mistral")
    return settings
