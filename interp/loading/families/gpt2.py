"""The GPT-2 family: how its configuration and its weights map onto ours."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.config import Activation, ModelConfig
from interp.errors import CheckpointError, ConfigError, nearest

# Our name, GPT-2's name, and whether GPT-2 stores it transposed (its Conv1D keeps [in, out] where a Linear keeps [out, in]).
TOP: tuple[tuple[str, str, bool], ...] = (
    ("W_E", "wte.weight", False),
    ("W_pos", "wpe.weight", False),
    ("ln_final.weight", "ln_f.weight", False),
    ("ln_final.bias", "ln_f.bias", False),
)
BLOCK: tuple[tuple[str, str, bool], ...] = (
    ("ln1.weight", "ln_1.weight", False),
    ("ln1.bias", "ln_1.bias", False),
    ("attn.qkv.weight", "attn.c_attn.weight", True),
    ("attn.qkv.bias", "attn.c_attn.bias", False),
    ("attn.o.weight", "attn.c_proj.weight", True),
    ("attn.o.bias", "attn.c_proj.bias", False),
    ("ln2.weight", "ln_2.weight", False),
    ("ln2.bias", "ln_2.bias", False),
    ("mlp.input.weight", "mlp.c_fc.weight", True),
    ("mlp.input.bias", "mlp.c_fc.bias", False),
    ("mlp.output.weight", "mlp.c_proj.weight", True),
    ("mlp.output.bias", "mlp.c_proj.bias", False),
)
# Buffers that older checkpoints carry: the causal mask and its fill value.
BUFFERS = ("attn.bias", "attn.masked_bias")
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Settings that change what the model computes; other values than these are not GPT-2 as implemented here.
REQUIRED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def table(n_layers: int) -> list[tuple[str, str, bool]]:
    """Every weight of a model with `n_layers` blocks: our name, GPT-2's name, stored transposed."""
    rows = list(TOP)
    for layer in range(n_layers):
        rows += [(f"blocks.{layer}.{ours}", f"h.{layer}.{theirs}", flip) for ours, theirs, flip in BLOCK]
    return rows


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a GPT-2 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    for field, needed in REQUIRED.items():
        if settings.get(field, needed) != needed:
            raise CheckpointError(f"{source}: {field} = {settings[field]!r} is not supported; only {needed!r} is.")
    activation = settings.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{source}: activation_function {activation!r} is unknown. {nearest(activation, ACTIVATIONS)}"
        )
    try:
        d_model, n_heads = int(settings["n_embd"]), int(settings["n_head"])
        if n_heads < 1 or d_model % n_heads:
            raise CheckpointError(f"{source}: n_embd = {d_model} is not a multiple of n_head = {n_heads}.")
        return ModelConfig(
            n_layers=int(settings["n_layer"]),
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            d_mlp=int(settings.get("n_inner") or 4 * d_model),
            n_ctx=int(settings["n_positions"]),
            d_vocab=int(settings["vocab_size"]),
            activation=ACTIVATIONS[activation],
            norm_eps=float(settings.get("layer_norm_epsilon", 1e-5)),
            init_std=float(settings.get("initializer_range", 0.02)),
        )
    except KeyError as error:
        raise CheckpointError(f"{source}: the configuration has no field {error}.") from error
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{source}: the configuration is not usable: {error}") from error


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A GPT-2 config.json of our configuration, readable by `transformers`."""
    if config.d_head * config.n_heads != config.d_model:
        raise ConfigError("GPT-2's format needs d_head * n_heads == d_model.")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layers,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": config.d_mlp,
        "n_positions": config.n_ctx,
        "vocab_size": config.d_vocab,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": config.init_std,
        "tie_word_embeddings": True,
    }


def read_weights(tensors: Mapping[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """Our state dict from GPT-2's tensors, sharing their memory.

    Raises CheckpointError for a missing, extra or misshapen tensor, one that is not floating point or not finite, and
    an unembedding that is not tied.
    """
    left = {key.removeprefix("transformer."): value for key, value in tensors.items()}
    head = left.pop("lm_head.weight", None)
    state = {}
    for ours, theirs, flip in table(config.n_layers):
        if theirs not in left:
            raise CheckpointError(f"{source}: the tensor {theirs!r} is missing. {nearest(theirs, left)}")
        value = left.pop(theirs)
        state[ours] = value.mT if flip else value
    extra = [key for key in left if not key.endswith(BUFFERS)]
    if extra:
        raise CheckpointError(
            f"{source}: {len(extra)} tensors are not part of GPT-2 with {config.n_layers} layers: {', '.join(extra[:5])}."
        )
    if head is not None and not (head.data_ptr() == state["W_E"].data_ptr() or torch.equal(head, state["W_E"])):
        raise CheckpointError(
            f"{source}: lm_head.weight differs from wte.weight; only a tied unembedding is supported."
        )
    return state


def write_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """GPT-2's tensors from our state dict."""
    return {
        theirs: (state[ours].mT if flip else state[ours]).detach().contiguous()
        for ours, theirs, flip in table(config.n_layers)
    }
