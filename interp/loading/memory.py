"""Models that another library holds in memory. They are read and left untouched."""

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from interp.errors import CheckpointError
from interp.loading.checkpoint import assemble, family_of
from interp.loading.finite import FLOATS, check_tensors
from interp.loading.keys import clean_names
from interp.model import Transformer
from interp.tokenizer import Tokenizer


def is_transformers_model(source: object) -> TypeGuard[nn.Module]:
    """Whether this is a torch module with a `transformers` configuration. `transformers` itself is not imported."""
    return isinstance(source, nn.Module) and hasattr(getattr(source, "config", None), "model_type")


def from_transformers(source: nn.Module, tokenizer: object = None) -> Transformer:
    """A copy of a `transformers` model of one of the families, with or without its head.

    Args:
        tokenizer: for prompts given as text, see `Tokenizer.of`; the model itself has none.

    Raises CheckpointError for another architecture, for weights that do not fit its configuration, are quantised or not there, or an
    adapter's.
    """
    settings: dict[str, Any] = source.config.to_dict()  # type: ignore[union-attr, operator]
    label = f"the {type(source).__name__} in memory"
    if settings["model_type"] == "mistral":
        settings.pop("layer_types", None)  # of a file they make a Ministral; Mistral's own class does not look at them
    family = family_of(settings["model_type"], label)
    config = family.read_config(settings, label)
    copied: dict[tuple[object, ...], Tensor] = {}  # tied weights are one tensor under two names; copy it once
    tensors = {}
    state = source.state_dict()
    for key, value in state.items():
        _check_plain(value, f"{label}: {key}")
    for key, value in clean_names(state, label).items():
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        tensors[key] = copied.setdefault(place, value.detach().clone()) if value.numel() else value
    check_tensors(tensors, label)
    return assemble(
        config,
        family.read_weights(tensors, config, label),
        source=label,
        name=str(settings.get("_name_or_path") or type(source).__name__),
        format=str(settings["model_type"]),
        tokenizer=None if tokenizer is None else Tokenizer.of(tokenizer, stops=_stops(source)),
    )


def _check_plain(value: object, name: str) -> None:
    """Raise CheckpointError for an entry of a state dict that is no plain tensor of floating-point numbers, or a mask."""
    plain = type(value) in (Tensor, nn.Parameter, nn.Buffer)
    if isinstance(value, Tensor) and value.is_meta:
        raise CheckpointError(f"{name} is on the meta device, without values; load the model without offloading.")
    if not plain or not isinstance(value, Tensor) or value.dtype not in (*FLOATS.values(), torch.bool):
        found = f"a {type(value).__module__}.{type(value).__qualname__}"
        found += f" of dtype {value.dtype}" if isinstance(value, Tensor) else ""
        raise CheckpointError(
            f"{name} is {found}, expected a tensor of {', '.join(map(str, FLOATS.values()))}: the weights are quantised, or spread over "
            "devices. Give the model as it was before (a bitsandbytes model after dequantize())."
        )


def _stops(source: nn.Module) -> Iterable[int]:
    """The ids at which the model's own generation ends."""
    declared = getattr(getattr(source, "generation_config", None), "eos_token_id", None)
    return [declared] if isinstance(declared, int) else list(declared or ())
