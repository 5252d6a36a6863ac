"""Which layers have a sliding window, as configurations of `transformers` say it."""

from collections.abc import Callable
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.families.settings import Settings

KINDS = {"sliding_attention": True, "full_attention": False}


def read_windows(
    settings: Settings, n_layers: int, width: int | None, default: Callable[[int], bool]
) -> dict[str, Any]:
    """The window and the layers that have it; where no layer has it there is none.

    Args:
        width: of the window; None where the configuration says that there is none.
        default: whether a layer has it, where `layer_types` is missing.
    """
    kinds = settings.get("layer_types", None, null=None)
    if kinds is None:
        sliding = [layer for layer in range(n_layers) if default(layer)]
    else:
        known = isinstance(kinds, (list, tuple)) and all(isinstance(kind, str) and kind in KINDS for kind in kinds)
        if not known or len(kinds) != n_layers:
            raise CheckpointError(
                f"{settings.source}: layer_types must name {' or '.join(KINDS)} for each of {n_layers} layers, found {kinds!r}."
            )
        sliding = [layer for layer, kind in enumerate(kinds) if KINDS[kind]]
    if not sliding:
        return {}
    if width is None:
        raise CheckpointError(
            f"{settings.source}: layer_types names sliding_attention, but no window is set; give sliding_window (and use_sliding_window)."
        )
    return {"window": width, "windowed_layers": None if len(sliding) == n_layers else tuple(sliding)}


def write_windows(config: ModelConfig, unused: int | None = None) -> dict[str, Any]:
    """What `sliding_window` and `layer_types` say of a configuration.

    Args:
        unused: the window where no layer has one.
    """
    full, sliding = "full_attention", "sliding_attention"
    kinds = [full if config.window_of(layer) is None else sliding for layer in range(config.n_layers)]
    return {"sliding_window": unused if config.window is None else config.window, "layer_types": kinds}
