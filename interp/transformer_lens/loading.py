"""From a model of ours to the weights that TransformerLens works with: embedding and unembedding apart, processed as asked."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import interp
from interp.errors import ConfigError, nearest
from interp.processing import centre_unembedding, centre_writing_weights, fold_layer_norm, fold_value_biases, made_of

SHORT_NAMES = {
    "gpt2-small": "gpt2",
    "distillgpt2": "distilgpt2",
    "pythia-14m": "EleutherAI/pythia-14m",
    "pythia-70m": "EleutherAI/pythia-70m",
    "pythia-160m": "EleutherAI/pythia-160m",
    "pythia-410m": "EleutherAI/pythia-410m",
}
"""Names of TransformerLens' own for models on the hub."""

WITHOUT_BOS = ("gpt_neox", "qwen2", "qwen3")
"""Families whose texts begin without BOS by default, in late versions of `HookedTransformer` and in the bridge of 4.3."""


def processed(
    model: interp.Transformer,
    *,
    fold_ln: bool,
    center_writing_weights: bool,
    center_unembed: bool,
    fold_value_biases_too: bool,
) -> tuple[interp.Transformer, bool]:
    """A copy with the weights processed, and whether its norms were folded. What cannot be done to it is left out, with a warning."""
    config = model.config
    folds = fold_ln and "reads" in config.norms
    made = apart(model)
    if folds:
        made = fold_layer_norm(made)
        if config.norm == "layernorm":
            _centre_readers(made)
    if center_writing_weights:
        if config.norm == "layernorm" and config.norms == ("reads",) and config.positions != "sinusoidal":
            made = centre_writing_weights(made)
        else:
            _left_out("center_writing_weights", f"norm {config.norm!r} placed {config.norm_placement!r}")
    if center_unembed:
        if config.logit_cap is None:
            made = centre_unembedding(made)
        else:
            _left_out("center_unembed", "soft-capped logits")
    if fold_value_biases_too and made.config.has_qkv_bias:
        made = fold_value_biases(made)
    return apart(made), folds


def _left_out(option: str, why: str) -> None:
    warnings.warn(f"from_pretrained: {option} is left out, for it would change a model with {why}.", stacklevel=4)


@torch.no_grad()
def apart(model: interp.Transformer) -> interp.Transformer:
    """A copy whose unembedding is a weight of its own, with a bias."""
    weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
    weights.setdefault("unembedding", weights["W_E"].clone())
    weights.setdefault("b_U", weights["W_E"].new_zeros(len(weights["unembedding"])))
    new = made_of(model, replace(model.config, tied=False, unembed_bias=True))
    new.load_state_dict(weights, assign=True)
    return new.to(device=model.device, dtype=model.dtype).eval()


@torch.no_grad()
def _centre_readers(model: interp.Transformer) -> None:
    """Take away from all that reads the normed stream the mean over its dimensions, which a folded layer norm has none of."""
    for name, weight in model.named_parameters():
        if name.endswith(("attn.qkv.weight", "mlp.input.weight", "mlp.gate.weight", "unembedding")):
            weight.sub_(weight.mean(-1, keepdim=True))


@torch.no_grad()
def initialised(model: interp.Transformer, std: float, seed: int | None) -> None:
    """Draw fresh weights N(0, std^2), from torch's own generator where there is no seed; biases are 0, gains 1.

    Args:
        model: its weights are there, whatever they are.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if name.endswith(("bias", "b_U")):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_(1.0)
        else:
            weight.normal_(0.0, std, generator=generator)


def freeze_fixed(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let the weights of these name endings, which TransformerLens' models do not have, take no gradients."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(not any(part in name for part in names))


def only(what: str, given: dict[str, Any], **known: Any) -> None:
    """Options of TransformerLens' that can only stay what they are. Raises ConfigError for another value, or a name that is none."""
    for name, value in given.items():
        if name in known and value != known[name]:
            raise ConfigError(f"{what}: {name} can only be {known[name]!r} here; got {value!r}.")
        if name not in known:
            raise ConfigError(f"{what}: there is no option {name!r} here. {nearest(name, known)}")


def source_of(name: object) -> object:
    """What `interp.load` takes for a name of TransformerLens'. Raises ConfigError for an empty one."""
    if name == "":
        raise ConfigError("from_pretrained: give the name of a model.")
    return SHORT_NAMES.get(name, name) if isinstance(name, str) else name
