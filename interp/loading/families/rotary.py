"""Rotary positions as configurations of `transformers` say them: `rope_theta` and `rope_scaling`, or since release 5 `rope_parameters`."""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.families.settings import Settings

SCALINGS = ("default", "linear", "llama3")


def read_rotary(settings: Settings, *, base: float = 10000.0, layer_type: str | None = None) -> dict[str, Any]:
    """The fields of our configuration that say how positions are told.

    Args:
        base: where the configuration names none.
        layer_type: read what is said of such layers, where that is said of each kind by itself.

    Raises CheckpointError for a scaling other than linear or llama3.
    """
    given = settings.nested("rope_parameters")
    if layer_type is not None and layer_type in given:
        given = given.nested(layer_type)
    scaling = settings.nested("rope_scaling")
    if "rope_parameters" not in settings:
        given = scaling
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in SCALINGS:
        raise CheckpointError(
            f"{settings.source}: rotary positions scaled as {kind!r} are not supported; supported: {', '.join(SCALINGS)}."
        )
    fields: dict[str, Any] = {
        "positions": "rotary",
        "rotary_base": given.number("rope_theta", settings.number("rope_theta", base)),
    }
    if kind == "linear":
        fields |= {"rotary_scaling": "linear", "rotary_factor": given.number("factor")}
    if kind == "llama3":
        fields |= {
            "rotary_scaling": "llama3",
            "rotary_factor": given.number("factor"),
            "rotary_low": given.number("low_freq_factor"),
            "rotary_high": given.number("high_freq_factor"),
            "rotary_original_ctx": given.whole("original_max_position_embeddings"),
        }
    share = given.number("partial_rotary_factor", settings.number("partial_rotary_factor", 1.0))
    return fields | {"share": share}


def turned(share: float, d_head: int) -> int | None:
    """How many dimensions of a head are turned, of a share of them; None is all."""
    return None if share == 1.0 else int(d_head * share)


def write_rotary(config: ModelConfig) -> Mapping[str, Any]:
    """What `rope_parameters` says of a configuration."""
    written: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if config.rotary_scaling == "linear":
        written |= {"rope_type": "linear", "factor": config.rotary_factor}
    if config.rotary_scaling == "llama3":
        written |= {
            "rope_type": "llama3",
            "factor": config.rotary_factor,
            "low_freq_factor": config.rotary_low,
            "high_freq_factor": config.rotary_high,
            "original_max_position_embeddings": config.rotary_original_ctx,
        }
    if config.rotary_dims is not None:
        written["partial_rotary_factor"] = config.rotary_dims / config.d_head
    return written
