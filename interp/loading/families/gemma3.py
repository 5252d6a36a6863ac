"""Gemma 3, its text part: Gemma 2 with norms on each head's queries and keys, and windowed layers whose rotary base is their own."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.exact import check_held
from interp.loading.families import gemma2, llama
from interp.loading.families.rotary import check_whole, scaled, write_rotary
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
    period = given.whole("sliding_window_pattern", 6, least=1)
    width = given.whole("sliding_window", 4096)
    windows = read_windows(given, fields["n_layers"], width, lambda layer: bool((layer + 1) % period))
    if windows:
        windows["rotary_local_base"] = _local_base(given)
    return given.config(
        **fields,
        **windows,
        **_positions(given, fields["d_head"]),
        qk_norm="head",
        logit_cap=given.number("final_logit_softcapping", None, null=None),
    )


def _positions(given: Settings, d_head: int) -> dict[str, Any]:
    """How positions are told in layers without a window: as `rope_parameters` says of them, with `rope_scaling` over it."""
    said = given.nested("rope_parameters")
    named = said.get("full_attention", None, null=None) is not None
    if (
        not named
        and given.get("rope_parameters", None, null=None) is not None
        and given.get("rope_scaling", None, null=None)
    ):
        raise CheckpointError(
            f"{given.source}: rope_scaling is for layers with full_attention, of which rope_parameters says nothing; give it there."
        )
    # A scaling that is named by `type`, as old files do, is not looked at: `transformers` has a `rope_type` by then.
    own = said.nested("full_attention") if named else Settings({"rope_type": "default"}, given.source)
    whole = own.updated(given.nested("rope_scaling"))
    fields = scaled(whole, whole.get("original_max_position_embeddings", given.get("max_position_embeddings")))
    check_whole(whole if "partial_rotary_factor" in whole else given, d_head, fields)
    base = (whole if "rope_theta" in whole else given).number("rope_theta", 1_000_000.0)
    return fields | {"positions": "rotary", "rotary_base": base}


def _local_base(given: Settings) -> float:
    """The rotary base in layers with a window."""
    local = given.nested("rope_parameters").nested("sliding_attention")
    if scaled(local, 1):
        raise CheckpointError(
            f"{given.source}: rope_parameters scales positions in layers with sliding_attention, which is not supported; only "
            "rope_type = 'default' is."
        )
    found: float = (
        local.number("rope_theta") if "rope_theta" in local else given.number("rope_local_base_freq", 10_000.0)
    )
    return found


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
