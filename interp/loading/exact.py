"""What a format would make of a configuration: the same one, or it cannot hold it."""

from collections.abc import Callable

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError


def check_held(config: ModelConfig, read_back: Callable[[], ModelConfig], format: str) -> None:
    """Raise ConfigError where what a format's settings read back as is another model than `config`, naming the options that are lost.

    An option that is left to its default and one that says the same are the same, and so are those that do not matter in this model.
    """
    try:
        back = read_back()
    except CheckpointError as error:
        raise ConfigError(f"the format {format!r} cannot hold this model: {error}") from error
    wanted, found = spelt_out(config), spelt_out(back)
    lost = [
        f"{name} = {getattr(config, name)!r} (it would be read as {getattr(back, name)!r})"
        for name in wanted
        if wanted[name] != found[name]
    ]
    if lost:
        raise ConfigError(
            f"the format {format!r} cannot hold {', '.join(lost)}. The format 'criticalpile' holds every model."
        )


def spelt_out(config: ModelConfig) -> dict[str, object]:
    """The fields of a configuration with defaults written out; None for those that do not matter in this model."""
    said = config.to_dict() | {
        "n_kv_heads": config.kv_heads,
        "qkv_bias": config.has_qkv_bias,
        "out_bias": config.has_out_bias,
        "mlp_bias": None if config.mlp == "none" else config.has_mlp_bias,
        "bias": config.bias and config.norm == "layernorm",  # what is left of it: the norms'
        "attn_scale": config.score_scale,
        "norm_placement": config.norms,
        "window": None,
        "windowed_layers": [config.window_of(layer) for layer in range(config.n_layers)],
    }
    if config.norm == "none" and config.qk_norm == "none":
        said["norm_eps"] = None
    if config.mlp == "none":
        said |= {"d_mlp": None, "activation": None}
    if config.positions == "rotary":
        said["rotary_dims"] = config.d_head if config.rotary_dims is None else config.rotary_dims
        if config.rotary_local_base is None or config.window is None:
            said["rotary_local_base"] = config.rotary_base if config.rotary_scaling == "none" else None
    scaled = {"none": (), "linear": ("factor",), "llama3": ("factor", "low", "high", "original_ctx")}
    matters = [f"rotary_{name}" for name in scaled[config.rotary_scaling]]
    matters += ["rotary_base", "rotary_dims", "rotary_scaling", "rotary_local_base"]
    return {
        name: None if name.startswith("rotary") and (config.positions != "rotary" or name not in matters) else value
        for name, value in said.items()
    }
