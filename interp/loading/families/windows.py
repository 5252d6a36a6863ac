"""Which layers have a sliding window, as configurations of `transformers` say it."""

from collections.abc import Callable
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.families.settings import Settings

KINDS = {"sliding_attention": True, "full_attention": False}


def read_windows(
    settings: Settings, n_layers: int, default: Callable[[int], bool], window: Any = None
) -> dict[str, Any]:
    """The window and the layers that have it; where no layer has it there is none.

    Args:
        default: whether a layer has it, where `layer_types` is missing.
        window: where `sliding_window` is missing.
    """
    width = settings.whole("sliding_window", window)
    kinds = settings.get("layer_types", None)
    if kinds is None:
        sliding = [layer for layer in range(n_layers) if default(layer)]
    else:
        if not isinstance(kinds, (list, tuple)) or len(kinds) != n_layers or set(kinds) - set(KINDS):
            raise CheckpointError(
                f"{settings.source}: layer_types must name {' or '.join(KINDS)} for each of {n_layers} layers, found {kinds!r}."
            )
        sliding = [layer for layer, kind in enumerate(kinds) if KINDS[kind]]
    if width is None or not sliding:
        return {}
    return {"window": width, "windowed_layers": None if len(sliding) == n_layers else tuple(sliding)}


def write_windows(config: ModelConfig) -> dict[str, Any]:
    """What `sliding_window` and `layer_types` say of a configuration."""
    full, sliding = "full_attention", "sliding_attention"
    kinds = [full if config.window_of(layer) is None else sliding for layer in range(config.n_layers)]
    return {"sliding_window": config.window, "layer_types": kinds}
