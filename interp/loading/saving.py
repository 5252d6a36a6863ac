"""A model written as a checkpoint directory that gives back the same model, to the bit."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError, InterpError, nearest
from interp.files import make_folder, write_whole
from interp.loading.checkpoint import WEIGHTS
from interp.loading.exact import check_held
from interp.loading.families import FAMILIES
from interp.loading.finite import check_tensors
from interp.loading.keys import ADAPTER_CONFIG, clean_names, same
from interp.model import Transformer
from interp.tokenizer.files import VOCABULARIES


def save_directory(model: Transformer, directory: str | os.PathLike[str], format: str | None = None) -> None:
    """Write a model, with its tokenizer, as a checkpoint directory. `interp.load` reads the same configuration and weights from it.

    Weights are written in the dtype that they have; `interp.load` makes them float32 unless it is told another.
    Each file is written beside its place and renamed, so an interrupted save leaves the old file or none.

    Args:
        directory: made where it does not exist.
        format: by its `model_type`: that of a family, which other libraries read too, or `criticalpile`, which holds every model. None is
            the format that the model was loaded from where that holds it exactly, else the first family's that does, else `criticalpile`.

    Raises:
        ConfigError: a format that cannot hold the model, naming the option that is lost; or one that is unknown.
        CheckpointError: weights that are not finite, or not there.
        InterpError: the directory holds files of another model which would be read as this one's; or the disk refuses.
    """
    state = {name: value.detach() for name, value in model.state_dict().items()}
    if any(value.is_meta for value in state.values()):
        raise CheckpointError("save_directory: the model has no weights yet; give it a seed, or load it.")
    check_tensors(state, "save_directory")
    settings, tensors = _in_format(model, state, format)
    settings |= {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    folder = Path(directory)
    make_folder(folder)
    _check_others(model, folder)
    write_whole(folder / "config.json", lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))
    write_whole(folder / WEIGHTS, lambda path: save_file(_own_memory(tensors), path, metadata={"format": "pt"}))
    if model.tokenizer is not None:
        model.tokenizer.save(folder)


def _in_format(
    model: Transformer, state: Mapping[str, Tensor], format: str | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and tensors of a model in the format asked for, or in the first that holds it exactly."""
    if format is not None:
        if format not in FAMILIES:
            raise ConfigError(f"save_directory: the format {format!r} is unknown. {nearest(format, FAMILIES)}")
        return _written(format, model.config, state)
    for name in dict.fromkeys([*([model.format] if model.format in FAMILIES else []), *FAMILIES]):
        try:
            settings, tensors = _written(name, model.config, state)
        except ConfigError:
            continue
        if FAMILIES[name].read_config(settings, name) == model.config:
            return settings, tensors
    raise ConfigError("save_directory: no format holds this model.")


def _written(format: str, config: ModelConfig, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model in a format, after a look that it reads back as the same. Raises ConfigError where it would not."""
    family = FAMILIES[format]
    settings: dict[str, Any] = family.write_config(config)
    check_held(config, lambda: family.read_config(settings, format), format)
    tensors: dict[str, Tensor] = family.write_weights(state, config)
    back: dict[str, Tensor] = family.read_weights(clean_names(tensors, format), config, format)
    lost = [name for name, value in state.items() if name not in back or not same(value, back[name])]
    if lost:
        raise ConfigError(f"the format {format!r} cannot hold the weights exactly: {lost[0]} would be read as others.")
    return settings, tensors


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each contiguous in memory of its own, as the file format needs."""
    seen: set[int] = set()
    out = {}
    for name, value in tensors.items():
        storage = value.untyped_storage()
        whole = value.is_contiguous() and storage.nbytes() == value.numel() * value.element_size()
        own = value if whole and storage.data_ptr() not in seen else value.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
        out[name] = own
    return out


def _check_others(model: Transformer, folder: Path) -> None:
    """Raise InterpError where a folder holds what `interp.load` would take for a part of this model, and this save does not write anew."""
    read = (ADAPTER_CONFIG, *(VOCABULARIES if model.tokenizer is None else ()))
    left = [name for name in read if (folder / name).exists()]
    if left:
        raise InterpError(
            f"save_directory: {folder} holds {left[0]}, of another model, which would be read as this one's. Choose another folder, or "
            "delete it."
        )
