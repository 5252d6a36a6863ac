"""Sizes that a configuration names, against those of the tensors that are there: before anything is made of that size."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from interp.config import ModelConfig
from interp.errors import CheckpointError

LAYERS = ("n_layer", "n_layers", "num_layers", "num_hidden_layers")
"""What the number of layers is called; each layer has a tensor of its own at least."""

LARGEST_TABLE = 2**26
"""Numbers of a position table that no file holds; a larger one needs a file of that size."""


def check_layers(settings: Mapping[str, Any], n_tensors: int, source: str) -> None:
    """Raise CheckpointError where settings name more layers than there are tensors."""
    own = settings.get("config")
    for fields in (settings, own if isinstance(own, Mapping) else {}):
        for name in LAYERS:
            value = fields.get(name)
            if isinstance(value, (int, float)) and value > n_tensors:
                raise CheckpointError(f"{source}: {name} = {value!r}, but there are only {n_tensors} tensors.")


def check_sizes(config: ModelConfig, shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise CheckpointError where one of the weights that a configuration asks for is larger than all tensors together."""
    there = sum(prod(shape) for shape in shapes.values())
    wanted = {
        ("d_vocab", "d_model"): config.d_vocab * config.d_model,
        ("n_heads", "d_head", "d_model"): config.n_heads * config.d_head * config.d_model,
        ("d_mlp", "d_model"): config.d_mlp * config.d_model if config.mlp != "none" else 0,
        ("n_ctx", "d_model"): config.n_ctx * config.d_model if config.positions == "learned" else 0,
    }
    for names, size in wanted.items():
        if size > there:
            said = " times ".join(f"{name} = {getattr(config, name)}" for name in names)
            raise CheckpointError(f"{source}: {said} are {size} weights, but there are only {there} in all tensors.")
    if config.positions == "sinusoidal" and config.n_ctx * config.d_model > max(there, LARGEST_TABLE):
        raise CheckpointError(
            f"{source}: n_ctx = {config.n_ctx} times d_model = {config.d_model} is a table of sinusoidal positions larger than all "
            f"tensors, and than {LARGEST_TABLE} numbers."
        )
