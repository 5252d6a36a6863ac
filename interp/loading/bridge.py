"""A TransformerLens 4 `TransformerBridge` in memory, read through its stacked weights and left untouched."""

from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from interp.errors import CheckpointError, ConfigError
from interp.loading.checkpoint import assemble
from interp.loading.families import gpt2
from interp.loading.finite import check_tensors
from interp.model import Transformer
from interp.names import block_name
from interp.tokenizer import Tokenizer


def is_bridge(source: object) -> TypeGuard[nn.Module]:
    """Whether this is a `TransformerBridge`. `transformer_lens` itself is not imported."""
    return any(
        one.__name__ == "TransformerBridge" and one.__module__.startswith("transformer_lens")
        for one in type(source).__mro__
    )


def from_bridge(source: nn.Module, tokenizer: object = None) -> Transformer:
    """A copy of a bridge to a GPT-2, as it is at this moment: in compatibility mode with its processed weights, and its tokenizer.

    Its BOS is prepended by default where the bridge does so. The unembedding is untied, and has a bias, where processing made it so.

    Args:
        tokenizer: instead of the bridge's, see `Tokenizer.of`.

    Raises CheckpointError for another architecture, or weights that do not fit it.
    """
    bridge: Any = source
    settings: dict[str, Any] = bridge.original_model.config.to_dict()
    label = f"the TransformerBridge to {bridge.cfg.model_name}"
    if settings.get("model_type") != "gpt2":
        raise CheckpointError(f"{label}: model_type {settings.get('model_type')!r} is not supported; only 'gpt2' is.")
    with torch.no_grad():
        tensors = _weights(bridge, int(settings["n_layer"]))
    check_tensors(tensors, label)
    processed = bool(tensors["b_U"].any()) or not torch.equal(tensors["unembedding"], tensors["W_E"])
    config = replace(gpt2.read_config(settings, label), tied=not processed, unembed_bias=processed)
    if not processed:
        del tensors["b_U"], tensors["unembedding"]
    found = _tokenizer(bridge, config.d_vocab) if tokenizer is None else Tokenizer.of(tokenizer)
    return assemble(config, tensors, source=label, name=str(bridge.cfg.model_name), format="gpt2", tokenizer=found)


def _weights(bridge: Any, n_layers: int) -> dict[str, Tensor]:
    """Our state dict, copied. The bridge's own weights are [layer, head, d_model, d_head], and [in, out] in the MLP."""
    norms = bridge.state_dict()

    def copied(value: Tensor) -> Tensor:
        return value.detach().clone().contiguous()

    state = {
        "W_E": copied(bridge.W_E),
        "W_pos": copied(bridge.W_pos),
        "unembedding": copied(bridge.W_U.T),
        "b_U": copied(bridge.b_U),
    }
    for norm in ("ln_final", *(block_name(layer, name) for layer in range(n_layers) for name in ("ln1", "ln2"))):
        state |= {f"{norm}.{part}": copied(norms[f"{norm}.{part}"]) for part in ("weight", "bias")}
    for layer in range(n_layers):
        heads = [
            getattr(bridge, f"W_{name}")[layer].transpose(1, 2).flatten(0, 1) for name in "QKV"
        ]  # [head d_head, d_model]
        biases = [getattr(bridge, f"b_{name}")[layer].flatten() for name in "QKV"]
        state |= {
            block_name(layer, "attn.qkv.weight"): torch.cat(heads),
            block_name(layer, "attn.qkv.bias"): torch.cat(biases),
            block_name(layer, "attn.o.weight"): copied(bridge.W_O[layer].flatten(0, 1).T),
            block_name(layer, "attn.o.bias"): copied(bridge.b_O[layer]),
            block_name(layer, "mlp.input.weight"): copied(bridge.W_in[layer].T),
            block_name(layer, "mlp.input.bias"): copied(bridge.b_in[layer]),
            block_name(layer, "mlp.output.weight"): copied(bridge.W_out[layer].T),
            block_name(layer, "mlp.output.bias"): copied(bridge.b_out[layer]),
        }
    return state


def _tokenizer(bridge: Any, d_vocab: int) -> Tokenizer | None:
    """The bridge's tokenizer, where it is one of the `tokenizers` library and fits the vocabulary."""
    if getattr(bridge.tokenizer, "backend_tokenizer", None) is None:
        return None
    own = Tokenizer.of(bridge.tokenizer, prepends=bool(bridge.cfg.default_prepend_bos))
    try:
        return own.fitted(d_vocab)
    except ConfigError:
        return None
