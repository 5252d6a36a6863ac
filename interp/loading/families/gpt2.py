"""The GPT-2 family: how its configuration and its weights map onto ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, nearest
from interp.loading.exact import check_held
from interp.loading.families.settings import Settings
from interp.loading.keys import same

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
BUFFERS = (".attn.bias", ".attn.masked_bias")
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# Settings that change what the model computes; other values than these are not GPT-2 as implemented here.
REQUIRED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def table(config: ModelConfig) -> list[tuple[str, str, bool]]:
    """Every weight of a model but an untied head: our name, GPT-2's name, stored transposed."""
    rows = list(TOP)
    for layer in range(config.n_layers):
        rows += [(f"blocks.{layer}.{ours}", f"h.{layer}.{theirs}", flip) for ours, theirs, flip in BLOCK]
    return [row for row in rows if config.bias or not row[0].endswith(".bias")]


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from a GPT-2 config.json. Raises CheckpointError naming a field that is missing or unsupported."""
    given = Settings(settings, source, ALIASES)
    given.only(**REQUIRED)
    d_model, n_heads = given.whole("n_embd"), given.whole("n_head")
    if n_heads < 1 or d_model % n_heads:
        raise CheckpointError(f"{source}: n_embd = {d_model} is not a multiple of n_head = {n_heads}.")
    return given.config(
        n_layers=given.whole("n_layer"),
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_model // n_heads,
        d_mlp=given.whole("n_inner", 4 * d_model, null=4 * d_model),
        n_ctx=given.whole("n_positions"),
        d_vocab=given.whole("vocab_size"),
        activation=given.activation("activation_function", default="gelu_new"),
        norm_eps=given.number("layer_norm_epsilon", 1e-5),
        tied=given.flag("tie_word_embeddings", True),
        init_std=given.number("initializer_range", 0.02),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """A GPT-2 config.json of our configuration, readable by `transformers`. Raises ConfigError naming an option that GPT-2 has not."""
    settings = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layers,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": config.d_mlp,
        "n_positions": config.n_ctx,
        "vocab_size": config.d_vocab,
        "activation_function": config.activation,
        "layer_norm_epsilon": float(config.norm_eps),
        "initializer_range": float(config.init_std),
        "tie_word_embeddings": config.tied,
    }
    check_held(config, lambda: read_config(settings, "gpt2"), "gpt2")
    return settings


def read_weights(tensors: Mapping[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """Our state dict from GPT-2's tensors, sharing their memory. Linear weights as nanoGPT has them, untransposed, are told by their shape.

    Raises CheckpointError for a missing or extra tensor, and for a head that does not fit what the configuration says of tying.
    """
    left = {key: value for key, value in tensors.items() if not key.endswith(BUFFERS)}
    head = left.pop("lm_head.weight", None)
    transposed = _is_transposed(left, config)
    state = {}
    for ours, theirs, flip in table(config):
        if theirs not in left:
            raise CheckpointError(f"{source}: the tensor {theirs!r} is missing. {nearest(theirs, left)}")
        value = left.pop(theirs)
        state[ours] = value.mT if flip and transposed else value
    if left:
        raise CheckpointError(
            f"{source}: {len(left)} tensors are not part of GPT-2 with {config.n_layers} layers: {', '.join(list(left)[:5])}."
        )
    if not config.tied and head is None:
        raise CheckpointError(f"{source}: tie_word_embeddings is false, but there is no lm_head.weight.")
    if config.tied and head is not None and not same(head, state["W_E"]):
        raise CheckpointError(
            f"{source}: lm_head.weight differs from wte.weight, but tie_word_embeddings says that they are one. Where the head is meant "
            'to be one of its own, set "tie_word_embeddings": false in config.json.'
        )
    return state if config.tied or head is None else state | {"unembedding": head}


def write_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """GPT-2's tensors from our state dict."""
    prefix = "" if config.tied else "transformer."  # `transformers` tells a model with a head of its own by it
    tensors = {f"{prefix}{theirs}": state[ours].mT if flip else state[ours] for ours, theirs, flip in table(config)}
    return tensors if config.tied else tensors | {"lm_head.weight": state["unembedding"]}


def _is_transposed(tensors: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """False where queries, keys and values of the first block come as [out, in], which is never square."""
    fused = tensors.get("h.0.attn.c_attn.weight")
    return fused is None or fused.shape != (3 * config.d_model, config.d_model)
