"""Tuned lenses that Belrose et al. (2023) and others published with the `tuned-lens` package: `config.json` beside `params.pt`."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analyses.lenses.translators import TunedLens
from interp.errors import CheckpointError
from interp.files import regular
from interp.model import Transformer
from interp.strict_json import parse

REPOSITORY = "AlignmentResearch/tuned-lens"
PREFIX = "layer_translators."


def published_lens(name: str | Path, model: Transformer) -> TunedLens:
    """Read a published lens: from a directory, else from the Hugging Face hub or its cache.

    Only tensors are read from `params.pt` (`torch.load(weights_only=True)`), so that a file cannot run code.

    Args:
        name: a directory with both files, or the lens' name on the hub, such as "gpt2".

    Raises:
        CheckpointError: not to be had; damaged; a key that is missing, extra or misshapen; or the hash of the unembedding that it was
            trained with is not this model's.
    """
    config_path, weights_path = _files(name)
    try:
        config: dict[str, Any] = parse(regular(config_path).read_text(encoding="utf-8"))
        state: dict[str, Tensor] = torch.load(regular(weights_path), map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"tuned lens: {name} cannot be read: {error}") from error
    layers, width = model.config.n_layers, model.config.d_model
    expected = {f"{layer}.{part}" for layer in range(layers) for part in ("weight", "bias")}
    if not isinstance(config, dict) or not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise CheckpointError(f"tuned lens: {name} holds no tensors by name, or no configuration.")
    found = {str(key).removeprefix(PREFIX): value for key, value in state.items()}
    if set(found) != expected:
        missing, extra = sorted(expected - set(found)), sorted(set(found) - expected)
        raise CheckpointError(
            f"tuned lens: {name} does not fit {model.name}: missing {missing[:4]}, extra {extra[:4]}."
        )
    for key, value in found.items():
        shape = (width, width) if key.endswith("weight") else (width,)
        if tuple(value.shape) != shape or not bool(torch.isfinite(value.float()).all()):
            raise CheckpointError(
                f"tuned lens: {key} of {name} has shape {tuple(value.shape)} or is not finite; expected {shape}."
            )
    _check_unembedding(name, model, config.get("unembed_hash"))
    weight, bias = (
        torch.stack([found[f"{layer}.{part}"].float() for layer in range(layers)]) for part in ("weight", "bias")
    )
    about = {"method": "tuned lens (Belrose et al. 2023), published", "source": str(Path(name).name), "config": config}
    return TunedLens(weight.to(model.device), bias.to(model.device), "", "float32", about)


def _check_unembedding(name: str | Path, model: Transformer, recorded: str | None) -> None:
    if recorded is None:
        return
    unembedding = model.W_U.mT.detach().to("cpu", torch.float32).contiguous()
    if hashlib.sha256(unembedding.numpy().tobytes()).hexdigest() != recorded:
        raise CheckpointError(
            f"tuned lens: {name} was trained with another unembedding than {model.name}'s. Load the model that it names, without "
            "weight processing."
        )


def _files(name: str | Path) -> tuple[Path, Path]:
    folder = Path(name)
    try:
        there = folder.is_dir()
    except OSError as error:  # a name that is too long
        raise CheckpointError(f"tuned lens: {str(name)[:80]!r} cannot be read: {error.strerror or error}.") from error
    if there:
        paths = folder / "config.json", folder / "params.pt"
        for path in paths:
            if not path.exists():
                raise CheckpointError(f"tuned lens: {folder} has no {path.name}.")
        return paths
    from huggingface_hub import hf_hub_download  # loading it costs a fifth of a second
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        config, weights = (
            Path(hf_hub_download(REPOSITORY, file, repo_type="space", subfolder=f"lens/{name}"))
            for file in ("config.json", "params.pt")
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"tuned lens: {name!r} is no directory, is not in the local Hugging Face cache, and could not be downloaded "
            f"({type(error).__name__}). On a connected machine run `hf download {REPOSITORY} --repo-type space --include 'lens/{name}/*'` "
            "and give the folder by its path."
        ) from error
    return config, weights
