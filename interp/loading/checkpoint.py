"""Checkpoint directories on disk: config.json, model.safetensors and tokenizer files. Nothing is ever unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import CheckpointError
from interp.files import write_whole
from interp.loading.families import FAMILIES, gpt2
from interp.loading.finite import check_file
from interp.model import Transformer
from interp.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load_directory(directory: Path, name: str) -> Transformer:
    """The model in a checkpoint directory, with its tokenizer where it has one; weights stay in the dtype of the file.

    Raises:
        CheckpointError: a file that is absent, truncated or not what it claims; an unknown architecture; a missing,
            extra or misshapen tensor; a weight that is not finite; weights only as a pickle.
    """
    settings = read_json(directory / "config.json")
    family = FAMILIES.get(str(settings.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"{directory}: model_type {settings.get('model_type')!r} is not supported. Supported: {', '.join(FAMILIES)}."
        )
    config = family.read_config(settings, str(directory))
    state = family.read_weights(read_tensors(directory), config, str(directory))
    model = Transformer(config, tokenizer=Tokenizer.from_directory(directory), name=name, seed=None)
    fill(model, state, str(directory))
    return model


def fill(model: Transformer, state: Mapping[str, Tensor], source: str) -> None:
    """Give an unallocated model its weights, after checking each one's shape and dtype; the memory is shared."""
    for name, parameter in model.named_parameters():
        value = state[name]
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)} from the configuration."
            )
        if not value.is_floating_point():
            raise CheckpointError(f"{source}: {name} has dtype {value.dtype}, expected floating point.")
    dtypes = {value.dtype for value in state.values()}
    if len(dtypes) > 1:
        raise CheckpointError(f"{source}: the weights mix dtypes: {', '.join(sorted(map(str, dtypes)))}.")
    model.load_state_dict(dict(state), assign=True)
    model.requires_grad_(False).eval()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where it is absent or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
        return _read_file(directory / WEIGHTS)
    if (directory / INDEX).exists():
        return _read_shards(directory)
    pickles = sorted(p.name for p in directory.glob("*.bin"))
    if pickles:
        raise CheckpointError(
            f"{directory}: the weights are only there as {pickles[0]}, a pickle, which can run code when it is read and "
            "is refused. Convert it to safetensors where you trust it: model.save_pretrained(..., safe_serialization=True)."
        )
    raise CheckpointError(f"{directory}: there is no {WEIGHTS}.")


def _read_shards(directory: Path) -> dict[str, Tensor]:
    places = read_json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{directory / INDEX} has no weight_map.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name:
            raise CheckpointError(f"{directory / INDEX} names a shard outside its folder: {name!r}.")
        if not (directory / name).exists():
            raise CheckpointError(f"{directory}: the shard {name} that the index names is not there.")
        tensors |= _read_file(directory / name)
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{directory}: the shards lack {len(missing)} tensors of the index, such as {missing[0]!r}."
        )
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or truncated, or no safetensors file: {error}") from error
    check_file(path)
    return tensors


def save_directory(model: Transformer, directory: Path) -> None:
    """Write a model as a GPT-2 checkpoint that `interp.load` and `transformers` read.

    Each file is written beside its place and renamed, so an interrupted save leaves the old file or none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = gpt2.write_config(model.config) | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    tensors = gpt2.write_weights(model.state_dict(), model.config)
    write_whole(directory / "config.json", lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))
    write_whole(directory / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    if model.tokenizer is not None:
        model.tokenizer.save(directory)
