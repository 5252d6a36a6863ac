"""Mistral: Llama with a sliding window, where one is set."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families.llama import positions, read_weights, sizes, write_weights, written
from interp.loading.families.settings import Settings

__all__ = ["read_config", "read_weights", "write_config", "write_weights"]


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Mistral config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    shape = sizes(given)
    # A file that says nothing of the window means the first release's; null means none.
    window = 4096 if "sliding_window" not in settings else given.whole("sliding_window", None)
    return given.config(
        **shape,
        **positions(given, shape["d_head"]),
        window=window,
        activation=given.activation("hidden_act", default="silu"),
        norm_eps=given.number("rms_norm_eps", 1e-6),
        tied=given.flag("tie_word_embeddings", False),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Mistral config.json of our configuration. Raises ConfigError naming an option that Mistral has not."""
    settings = written(config, "mistral", "MistralForCausalLM") | {"sliding_window": config.window}
    check_held(config, lambda: read_config(settings, "mistral"), "mistral")
    return settings
