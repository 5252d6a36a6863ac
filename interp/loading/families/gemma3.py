"""Gemma 3, its text part: Gemma 2 with norms on each head's queries and keys, and windowed layers whose rotary base is their own."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.loading.exact import check_held
from interp.loading.families import gemma2, llama
from interp.loading.families.rotary import read_rotary, write_rotary
from interp.loading.families.settings import Settings
from interp.loading.families.table import ONE_LESS, Row, row
from interp.loading.families.windows import read_windows

HEAD_NORMS = [row(one.ours, *one.theirs, change=ONE_LESS) for one in llama.HEAD_NORMS]


def table(config: ModelConfig) -> list[Row]:
    """Every weight but an untied head."""
    return llama.table(config, gemma2.NORMS, HEAD_NORMS, ONE_LESS)


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a Gemma 3 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source)
    fields = gemma2.shared(given)
    period = given.whole("sliding_window_pattern", given.whole("_sliding_window_pattern", 6))
    windows = read_windows(given, fields["n_layers"], lambda layer: bool((layer + 1) % period), 4096)
    whole = llama.positions(given, fields["d_head"], base=1_000_000.0, layer_type="full_attention")
    if windows:
        local = read_rotary(given, base=10_000.0, layer_type="sliding_attention")
        own = "rope_parameters" in given
        base = local["rotary_base"] if own else given.number("rope_local_base_freq", 10_000.0)
        if own and "rotary_scaling" in local:
            given.nested("rope_parameters").nested("sliding_attention").only(rope_type="default")
        windows["rotary_local_base"] = base
    return given.config(**fields, **windows, **whole, qk_norm="head")


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A Gemma 3 config.json of our configuration. Raises ConfigError naming an option that Gemma 3 has not."""
    settings = gemma2.written(config, "gemma3_text", "Gemma3ForCausalLM")
    local = config.rotary_base if config.rotary_local_base is None else config.rotary_local_base
    settings["rope_parameters"] = {
        "full_attention": write_rotary(config),
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    check_held(config, lambda: read_config(settings, "gemma3_text"), "gemma3_text")
    return settings


read_weights, write_weights = llama.weights(table)
