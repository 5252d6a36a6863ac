"""What a format would make of a configuration: the same one, or it cannot hold it."""

from collections.abc import Callable
from dataclasses import fields

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError


def check_held(config: ModelConfig, read_back: Callable[[], ModelConfig], format: str) -> None:
    """Raise ConfigError where what a format's settings read back as is another model than `config`, naming the options that are lost.

    `n_kv_heads` may come back as the number of heads for None, or the other way round, which is the same.
    """
    try:
        back = read_back()
    except CheckpointError as error:
        raise ConfigError(f"the format {format!r} cannot hold this model: {error}") from error
    lost = [
        f"{field.name} = {getattr(config, field.name)!r} (it would be read as {getattr(back, field.name)!r})"
        for field in fields(ModelConfig)
        if getattr(config, field.name) != getattr(back, field.name)
        and not (field.name == "n_kv_heads" and config.kv_heads == back.kv_heads)
    ]
    if lost:
        raise ConfigError(
            f"the format {format!r} cannot hold {', '.join(lost)}. The format 'criticalpile' holds every model."
        )
