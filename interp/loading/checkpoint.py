"""Checkpoint directories on disk: config.json, model.safetensors and tokenizer files. Nothing is ever unpickled."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError, nearest
from interp.files import regular
from interp.fingerprint import Mapped, identity
from interp.loading.families import FAMILIES, nanogpt
from interp.loading.finite import FLOATS
from interp.loading.header import shapes_of
from interp.loading.keys import ADAPTER_CONFIG, clean_names, refuse_adapter
from interp.loading.safetensors_file import read_safetensors
from interp.loading.sizes import check_layers, check_sizes
from interp.model import Transformer
from interp.strict_json import parse
from interp.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load_directory(directory: Path, name: str, tokenizer: Tokenizer | None = None) -> Transformer:
    """The model in a checkpoint directory, with its tokenizer where it has one, or that which is given.

    Weights stay in the dtype of the file; where half precision stands beside float32 (norms), all become float32.

    Raises:
        CheckpointError: a file that is absent, truncated or not what it claims; an unknown architecture; a missing,
            extra or misshapen tensor; a weight that is not finite; weights only as a pickle, quantised, or those of an adapter.
    """
    source = str(directory)
    kind, config = read_config(directory)
    before = {path: identity(path) for path in weight_files(directory)}
    tensors = read_tensors(directory)
    state = family_of(kind, source).read_weights(clean_names(tensors, source), config, source)
    tokenizer = tokenizer or Tokenizer.from_directory(directory)
    model = assemble(config, state, source=source, name=name, format=kind, tokenizer=tokenizer)
    model.mapped = Mapped(before, frozenset(value.untyped_storage().data_ptr() for value in tensors.values()))
    return model


def read_config(directory: Path) -> tuple[str, ModelConfig]:
    """The kind and the configuration of the model in a checkpoint directory, of which no weights are read.

    Raises CheckpointError as `load_directory`, also for sizes that the tensors there cannot have.
    """
    source, settings = str(directory), _read_settings(directory)
    kind = "nanogpt" if nanogpt.is_model_args(settings) else settings.get("model_type")
    family = family_of(kind, source)
    shapes = {name: shape for path in weight_files(directory) for name, shape in shapes_of(path).items()}
    if shapes:
        check_layers(settings, len(shapes), source)
    config: ModelConfig = family.read_config(settings, source)
    if shapes:
        check_sizes(config, shapes, source)
    return str(kind), config


def family_of(model_type: object, source: str) -> ModuleType:
    """The tables of a family by the `model_type` of its configuration. Raises CheckpointError for one that is not supported."""
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise CheckpointError(
            f"{source}: model_type {model_type!r} is not supported. Supported: {', '.join(FAMILIES)}."
        )
    return family


def assemble(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    source: str,
    name: str,
    format: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> Transformer:
    """A model of those weights, whose memory it shares, and that tokenizer.

    A tokenizer with added tokens that the model has no row for is taken with a warning that names them.

    Raises CheckpointError for weights or a tokenizer that do not fit the configuration.
    """
    model = Transformer(config, name=name, seed=None)
    fill(model, state, source)
    model.format = format
    try:
        model.tokenizer = tokenizer
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error} It is another model's; give this one's own as tokenizer=.") from error
    if model.tokenizer is not None and (beyond := model.tokenizer.beyond):
        tokens = ", ".join(f"{token!r} ({i})" for i, token in list(beyond.items())[:5])
        warnings.warn(
            f"{source}: the model has ids 0 to {config.d_vocab - 1} only, and its tokenizer {len(beyond)} added tokens beyond: {tokens}"
            f"{', ...' if len(beyond) > 5 else ''}. Text that holds one of them cannot be encoded.",
            stacklevel=2,
        )
    return model


def fill(model: Transformer, state: Mapping[str, Tensor], source: str) -> None:
    """Give an unallocated model its weights, after checking each one's shape and dtype; the memory is shared."""
    expected = dict(model.named_parameters())
    if missing := [name for name in expected if name not in state]:
        raise CheckpointError(f"{source}: the tensor {missing[0]!r} is missing. {nearest(missing[0], state)}")
    if extra := [name for name in state if name not in expected]:
        raise CheckpointError(f"{source}: {len(extra)} tensors are not part of this model: {', '.join(extra[:5])}.")
    for name, parameter in expected.items():
        value = state[name]
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)} from the configuration."
            )
        if value.dtype not in FLOATS.values():
            raise CheckpointError(
                f"{source}: {name} has dtype {value.dtype}, expected floating point: {', '.join(map(str, FLOATS.values()))}."
            )
    dtypes = {value.dtype for value in state.values()}
    if len(dtypes) > 1:
        if torch.float64 in dtypes:
            raise CheckpointError(f"{source}: the weights mix dtypes: {', '.join(sorted(map(str, dtypes)))}.")
        state = {name: value.float() for name, value in state.items()}
    model.load_state_dict(dict(state), assign=True)
    model.requires_grad_(False).eval()


def _read_settings(directory: Path) -> dict[str, Any]:
    """config.json, of a directory that holds a model as such. Raises CheckpointError for an adapter, or quantised weights."""
    if (directory / ADAPTER_CONFIG).exists():
        refuse_adapter(directory, read_json(directory / ADAPTER_CONFIG))
    if not (directory / "config.json").exists() and (pickles := _pickles(directory)):
        raise CheckpointError(f"{directory}: there is no config.json, and {_refusal(pickles[0])}")
    settings = read_json(directory / "config.json")
    if quantised := settings.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise CheckpointError(
            f"{directory}: the weights are quantised ({method}). Load them in transformers, call dequantize() and save_pretrained(FOLDER), "
            "and load that folder."
        )
    return settings


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where it is absent or not one."""
    try:
        content = parse(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: there is no {path.name}; this is no checkpoint directory.") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(content).__name__}.")
    return content


def has_weights(directory: Path) -> bool:
    """Whether the directory holds weights that `read_tensors` can read."""
    return (directory / WEIGHTS).exists() or (directory / INDEX).exists()


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of a directory's safetensors file, or of the shards that its index names; mapped from disk, not copied."""
    if (directory / WEIGHTS).exists():
        return read_safetensors(directory / WEIGHTS)[0]
    if (directory / INDEX).exists():
        return _read_shards(directory)
    if pickles := _pickles(directory):
        raise CheckpointError(f"{directory}: {_refusal(pickles[0])}")
    raise CheckpointError(f"{directory}: there is no {WEIGHTS}.")


def _pickles(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))


def _refusal(name: str) -> str:
    return (
        f"the weights are only there as {name}, a pickle, which can run code when it is read and "
        "is refused. Convert it to safetensors where you trust it: model.save_pretrained(..., safe_serialization=True), or "
        "safetensors.torch.save_file of its tensors (for nanoGPT's ckpt.pt the page on checkpoints has the lines)."
    )


def weight_files(directory: Path) -> list[Path]:
    """The safetensors file of a directory, or the shards that its index names; none where it has neither."""
    if (directory / WEIGHTS).exists() or not (directory / INDEX).exists():
        return [directory / WEIGHTS] if (directory / WEIGHTS).exists() else []
    names = sorted(set(_places(directory).values()))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{directory / INDEX} names a shard outside its folder: {name!r}.")
        if not (directory / name).exists():
            raise CheckpointError(f"{directory}: the shard {name} that the index names is not there.")
    return [directory / name for name in names]


def _places(directory: Path) -> dict[str, str]:
    """Which shard holds each tensor, as the index says."""
    places = read_json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{directory / INDEX} has no weight_map.")
    return {name: str(place) for name, place in places.items()}


def _read_shards(directory: Path) -> dict[str, Tensor]:
    places = _places(directory)
    tensors: dict[str, Tensor] = {}
    found: dict[str, str] = {}
    for path in weight_files(directory):
        for name, value in read_safetensors(path)[0].items():
            if name in found:
                raise CheckpointError(
                    f"{directory}: the tensor {name!r} is in two shards, {found[name]} and {path.name}."
                )
            if places.get(name, path.name) != path.name:
                raise CheckpointError(
                    f"{directory}: the index says that {name!r} is in {places[name]}, but it is in {path.name}."
                )
            tensors[name], found[name] = value, path.name
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{directory}: the shards lack {len(missing)} tensors of the index, such as {missing[0]!r}."
        )
    return tensors
