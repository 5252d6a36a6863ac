"""Rotary positions as configurations of `transformers` say them: `rope_theta` and `rope_scaling`, or since release 5 `rope_parameters`.

What stands where, and which wins, is as in its `modeling_rope_utils.RotaryEmbeddingConfigMixin`.
"""

from collections.abc import Mapping
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.families.settings import Settings
from interp.loading.families.windows import KINDS

SCALINGS = ("default", "linear", "llama3")


def said(settings: Settings) -> Settings:
    """What is said of all layers alike: `rope_scaling` where it says something, else `rope_parameters`.

    Raises CheckpointError where it is said for each kind of layer by itself.
    """
    name = "rope_scaling" if settings.get("rope_scaling", None, null=None) else "rope_parameters"
    given = settings.nested(name)
    for kind in KINDS:
        if kind in given:
            raise CheckpointError(
                f"{settings.source}: {name} says something of {kind} by itself, which this family has not; give it for all layers alike."
            )
    return given


def read_rotary(settings: Settings, d_head: int) -> dict[str, Any]:
    """The fields of our configuration that say how positions are told, of a family that turns whole heads.

    Raises CheckpointError for a scaling other than linear or llama3.
    """
    given = said(settings)
    at = given if "rope_theta" in given else settings
    fields = scaled(given, original_ctx(settings, given))
    check_whole(given if "partial_rotary_factor" in given else settings, d_head, fields)
    return fields | {"positions": "rotary", "rotary_base": at.number("rope_theta", 10000.0)}


def original_ctx(settings: Settings, given: Settings) -> Any:
    """The context before scaling, which only Llama 3's needs; what stands outside of the rotary fields wins."""
    at = settings if "original_max_position_embeddings" in settings else given
    return at.get("original_max_position_embeddings", settings.get("max_position_embeddings", None), null=None)


def scaled(given: Settings, original: Any) -> dict[str, Any]:
    """The scaling that rotary fields name, as fields of our configuration: empty for none.

    Args:
        original: the context before scaling, where the scaling needs it.
    """
    kind = given.get("rope_type" if "rope_type" in given else "type", "default")
    if kind not in SCALINGS:
        raise CheckpointError(
            f"{given.source}: rotary positions scaled as {kind!r} are not supported; supported: {', '.join(SCALINGS)}."
        )
    if kind == "linear":
        return {"rotary_scaling": "linear", "rotary_factor": given.number("factor")}
    if kind == "llama3":
        return {
            "rotary_scaling": "llama3",
            "rotary_factor": given.number("factor"),
            "rotary_low": given.number("low_freq_factor"),
            "rotary_high": given.number("high_freq_factor"),
            "rotary_original_ctx": Settings({"original_max_position_embeddings": original}, given.source).whole(
                "original_max_position_embeddings"
            ),
        }
    return {}


def check_whole(given: Settings, d_head: int, scaling: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a share of each head is to be turned by a family that turns whole heads.

    Its classes in `transformers` ignore `partial_rotary_factor` where positions are not scaled, and fail where they are.
    """
    share = given.number("partial_rotary_factor", 1.0, null=1.0) if scaling else 1.0
    if share != 1.0 and not (0 < share < 1 and turned(share, d_head) == d_head):
        raise CheckpointError(
            f"{given.source}: partial_rotary_factor = {share!r} beside a scaling is not supported by this family; only 1.0 is."
        )


def turned(share: float, d_head: int) -> int | None:
    """How many dimensions of a head are turned, of a share of them; None is all."""
    return None if share == 1.0 else int(d_head * share)


def write_rotary(config: ModelConfig) -> dict[str, Any]:
    """What `rope_parameters` says of a configuration whose heads are turned as a whole."""
    written: dict[str, Any] = {"rope_type": "default", "rope_theta": float(config.rotary_base)}
    if config.rotary_scaling == "linear":
        written |= {"rope_type": "linear", "factor": float(config.rotary_factor)}
    if config.rotary_scaling == "llama3":
        written |= {
            "rope_type": "llama3",
            "factor": float(config.rotary_factor),
            "low_freq_factor": float(config.rotary_low),
            "high_freq_factor": float(config.rotary_high),
            "original_max_position_embeddings": config.rotary_original_ctx,
        }
    return written
