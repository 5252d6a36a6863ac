"""nanoGPT: GPT-2 with weights as `nn.Linear` keeps them, the exact GELU, and biases or none. Its settings are its `model_args`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.exact import check_held
from interp.loading.families import gpt2
from interp.loading.families.settings import Settings

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
ARGUMENTS = (*SIZES, "bias", "dropout")


def is_model_args(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json without a `model_type` holds nanoGPT's `model_args`."""
    return "model_type" not in settings and {"block_size", "n_layer", "n_embd"} <= set(settings)


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from nanoGPT's `model_args`. Raises CheckpointError naming a setting that is missing or cannot be."""
    missing = [name for name in SIZES if name not in settings]
    if missing:
        raise CheckpointError(f"{source}: the configuration has no field {missing[0]!r}, one of nanoGPT's model_args.")
    given = Settings(settings, source)
    layers, heads, width, context, vocabulary = (given.whole(name) for name in SIZES)
    if heads < 1 or width % heads:
        raise CheckpointError(f"{source}: n_embd = {width} is not a multiple of n_head = {heads}.")
    return given.config(
        n_layers=layers, d_model=width, n_heads=heads, d_head=width // heads, d_mlp=4 * width, n_ctx=context,
        d_vocab=vocabulary, activation="gelu", bias=given.flag("bias", True),
    )  # fmt: skip


def write_config(config: ModelConfig) -> dict[str, Any]:
    """nanoGPT's `model_args`. Raises ConfigError naming an option that it does not have."""
    sizes = dict(
        zip(SIZES, (config.n_layers, config.n_heads, config.d_model, config.n_ctx, config.d_vocab), strict=True)
    )
    settings = {"model_type": "nanogpt", **sizes, "bias": config.bias, "dropout": 0.0}
    check_held(config, lambda: read_config(settings, "nanogpt"), "nanogpt")
    return settings


def read_weights(tensors: Mapping[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """Our state dict from nanoGPT's tensors, sharing their memory. Raises CheckpointError as GPT-2's does."""
    return gpt2.read_weights(tensors, config, source)


def write_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """nanoGPT's tensors from our state dict."""
    return {f"transformer.{theirs}": state[ours] for ours, theirs, _ in gpt2.table(config)} | {
        "lm_head.weight": state["W_E"]
    }
