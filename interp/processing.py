"""Weight processing: the same log-probabilities from weights that are easier to read.

Each function returns a new model and leaves the old one as it was. None is ever applied unasked. `uncapped` alone changes what comes out.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from einops import einsum, repeat
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import ConfigError
from interp.model import Transformer
from interp.names import block_name

Weights = dict[str, Tensor]


def fold_layer_norm(model: Transformer) -> Transformer:
    """Move each norm's gain and bias into the maps that read it (Elhage et al. 2021, appendix): the norms then only divide.

    The unembedding becomes untied and, where the final norm had a bias, gets one; so do maps that had none. Norms on what is written
    and on queries and keys stay as they are.

    Raises:
        ConfigError: no norm stands before the maps that read the stream.
    """
    config = model.config
    if "reads" not in config.norms:
        raise ConfigError(
            f"fold_layer_norm: norm {config.norm!r} placed {config.norm_placement!r} does not stand before the maps that read the "
            "stream, so there is nothing to fold; the model needs norms placed 'pre' or 'both'."
        )
    shifts = config.norm == "layernorm" and config.bias
    new = replace(config, tied=False, unembed_bias=config.unembed_bias or shifts)
    if shifts:
        new = replace(new, qkv_bias=True, mlp_bias=True)

    def change(w: Weights) -> None:
        for layer in range(config.n_layers):
            readers = {"ln1": ["attn.qkv"], "ln2": ["mlp.input", *(["mlp.gate"] if config.mlp == "gated" else [])]}
            for norm, maps in readers.items():
                if norm == "ln2" and config.mlp == "none":
                    continue
                _fold(w, block_name(layer, norm), [block_name(layer, m) for m in maps], shifts)
        if shifts:
            b_U = w["unembedding"] @ w["ln_final.bias"]
            w["b_U"] = b_U + w["b_U"] if "b_U" in w else b_U
            w["ln_final.bias"] = torch.zeros_like(w["ln_final.bias"])
        w["unembedding"] = w["unembedding"] * w["ln_final.weight"]
        w["ln_final.weight"] = torch.ones_like(w["ln_final.weight"])

    return _changed(model, new, change)


def centre_writing_weights(model: Transformer) -> Transformer:
    """Take away from all that writes into the stream the mean over its dimensions, which a layer norm removes anyway.

    Raises:
        ConfigError: the model does not layer-norm the stream wherever it is read, so this would change what it computes.
    """
    config = model.config
    if config.norm != "layernorm" or config.norms != ("reads",):
        raise ConfigError(
            f"centre_writing_weights: with norm {config.norm!r} placed {config.norm_placement!r} the mean of what is written is not "
            "removed wherever the stream is read, so centring would change the model. It needs pre-norm layer norms."
        )

    if config.positions == "sinusoidal":
        raise ConfigError("centre_writing_weights: sinusoidal positions are fixed, so they cannot be centred.")

    def change(w: Weights) -> None:
        for name in ("W_E", "W_pos"):
            if name in w:
                w[name] = w[name] - w[name].mean(-1, keepdim=True)
        for name, value in list(w.items()):
            if name.endswith(("attn.o.weight", "attn.o.bias", "mlp.output.weight", "mlp.output.bias")):
                w[name] = value - value.mean(0, keepdim=True)  # the first axis is the stream's

    return _changed(model, replace(config, tied=False), change)


def uncapped(model: Transformer) -> Transformer:
    """The model with its logits as they are before the soft cap: sums of what is written, which the cap is not. Its weights are shared.

    The model itself where it has no cap.
    """
    if model.config.logit_cap is None:
        return model
    new = made_of(model, replace(model.config, logit_cap=None))
    new.load_state_dict(model.state_dict(), assign=True)
    return new.requires_grad_(False).eval()


def centre_unembedding(model: Transformer) -> Transformer:
    """Take away the mean over tokens from the unembedding: every logit moves by the same amount, so probabilities stay.

    The unembedding becomes untied.

    Raises:
        ConfigError: logits that are soft-capped, which a shared amount changes.
    """
    if model.config.logit_cap is not None:
        raise ConfigError(
            "centre_unembedding: the logits are soft-capped, so moving all by the same amount changes the probabilities."
        )

    def change(w: Weights) -> None:
        for name in ("unembedding", "b_U"):
            if name in w:
                w[name] = w[name] - w[name].mean(0, keepdim=True)

    return _changed(model, replace(model.config, tied=False), change)


def fold_value_biases(model: Transformer) -> Transformer:
    """Move value biases into the output biases, which are added where there are none: attention rows sum to 1, so a value bias adds
    the same vector everywhere.

    Raises:
        ConfigError: values have no biases.
    """
    config = model.config
    if not config.has_qkv_bias:
        raise ConfigError("fold_value_biases: values have no biases.")
    groups = config.n_heads // config.kv_heads
    values = config.kv_heads * config.d_head

    def change(w: Weights) -> None:
        for layer, block in enumerate(model.blocks):
            qkv, o = (block_name(layer, f"attn.{name}.bias") for name in ("qkv", "o"))
            bias = w[qkv][-values:].reshape(config.kv_heads, config.d_head)
            W_O: Tensor = block.get_submodule("attn").W_O  # type: ignore[assignment]
            w[o] = w[o] + einsum(repeat(bias, "h e -> (h g) e", g=groups), W_O, "h e, h e d -> d")
            w[qkv] = torch.cat([w[qkv][:-values], torch.zeros_like(w[qkv][-values:])])

    return _changed(model, config if config.has_out_bias else replace(config, out_bias=True), change)


def _fold(w: Weights, norm: str, maps: list[str], shifts: bool) -> None:
    gain = w[f"{norm}.weight"]
    for name in maps:
        if shifts:
            w[f"{name}.bias"] = w[f"{name}.bias"] + w[f"{name}.weight"] @ w[f"{norm}.bias"]
        w[f"{name}.weight"] = w[f"{name}.weight"] * gain
    w[f"{norm}.weight"] = torch.ones_like(gain)
    if shifts:
        w[f"{norm}.bias"] = torch.zeros_like(w[f"{norm}.bias"])


def made_of(model: Transformer, config: ModelConfig) -> Transformer:
    """A model of that configuration which has no weights yet, and of another one its tokenizer, its name and where it came from."""
    new = Transformer(config, tokenizer=model.tokenizer, name=model.name, seed=None)
    new.source, new.format = model.source, model.format
    return new


@torch.no_grad()
def _changed(model: Transformer, config: ModelConfig, change: Callable[[Weights], None]) -> Transformer:
    """A model of that configuration with the changed weights; tensors that were not changed are copied."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if not config.tied and "unembedding" not in weights:
        weights["unembedding"] = weights["W_E"].clone()
    new = made_of(model, config)
    for name, parameter in new.named_parameters():
        if name.endswith(".bias") and name not in weights:  # the new model has biases that the old one lacks
            weights[name] = torch.zeros(parameter.shape, dtype=model.dtype, device=model.device)
    change(weights)
    new.load_state_dict(weights, assign=True)
    return new.to(device=model.device, dtype=model.dtype).requires_grad_(False).eval()
