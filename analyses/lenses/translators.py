"""The translators of a tuned lens (Belrose et al. 2023, arXiv 2303.08112), and the file that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from analyses.architecture import architecture
from analyses.results import as_json
from interp.errors import CheckpointError
from interp.files import write_whole
from interp.loading.header import header_of
from interp.loading.safetensors_file import read_safetensors
from interp.model import Transformer
from interp.strict_json import parse

FORMAT = "criticalpile tuned lens 1"
DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class TunedLens:
    """One affine map for the stream that enters each layer: `x + W x + b` takes the place of the stream that leaves the last.

    Args:
        weight: [layer, d_model, d_model], W; 0 at the start, so that the lens begins as the logit lens.
        bias: [layer, d_model].
        weight_hash: of the model that it was trained for, in the precision `dtype`; "" where the source does not say.
        about: how it was made.
    """

    weight: Float[Tensor, "layer d_model out"]
    bias: Float[Tensor, "layer d_model"]
    weight_hash: str
    dtype: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def identity(cls, model: Transformer, about: Mapping[str, Any]) -> "TunedLens":
        """The untrained lens of a model."""
        layers, width = model.config.n_layers, model.config.d_model
        dtype = torch.promote_types(model.dtype, torch.float32)
        weight = torch.zeros(layers, width, width, dtype=dtype, device=model.device)
        return cls(weight, weight[:, 0].clone(), model.weight_hash(), str(model.dtype).removeprefix("torch."), about)

    def translate(self, layer: int, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The stream that enters a layer, as the final one that it is on its way to."""
        weight, bias = self.weight[layer].to(stream), self.bias[layer].to(stream)
        return torch.nn.functional.linear(stream, weight, bias) + stream

    def check(self, model: Transformer) -> "TunedLens":
        """The lens, if it was trained for this model. Raises CheckpointError where it was not."""
        layers, width = self.bias.shape
        if (layers, width) != (model.config.n_layers, model.config.d_model):
            raise CheckpointError(
                f"tuned lens: it has {layers} layers of width {width}; {model.name} has {model.config.n_layers} of {model.config.d_model}."
            )
        if self.weight_hash and model.weight_hash(cast(torch.dtype, getattr(torch, self.dtype))) != self.weight_hash:
            raise CheckpointError(
                f"tuned lens: it was trained for a model with weights {self.weight_hash[:12]}…, {model.name} has others. "
                "Load the model that it belongs to, or train one with train_tuned_lens."
            )
        if self.about.get("architecture", own := architecture(model)) != own:
            raise CheckpointError(
                f"tuned lens: it was trained for a model of the same weights and another architecture than {model.name} has."
            )
        return self


def save_lens(lens: TunedLens, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a lens as safetensors, whole or not at all. Raises InterpError where the file exists or cannot be written."""
    tensors = {"weight": lens.weight.cpu().contiguous(), "bias": lens.bias.cpu().contiguous()}
    metadata = {
        "format": FORMAT,
        "weight_hash": lens.weight_hash,
        "dtype": lens.dtype,
        "about": as_json(dict(lens.about)),
    }
    write_whole(Path(path), lambda temporary: save_file(tensors, temporary, metadata=metadata), overwrite=overwrite)


def load_lens(path: str | Path, model: Transformer) -> TunedLens:
    """Read a lens that was trained for this model.

    Raises:
        CheckpointError: the file is absent, damaged or no lens, or the lens was trained for another model.
    """
    try:
        tensors, metadata = read_safetensors(Path(path))
    except (CheckpointError, OSError) as error:
        raise CheckpointError(f"tuned lens: {path} cannot be read: {error}") from error
    try:
        weight, bias, about = tensors["weight"], tensors["bias"], parse(metadata["about"])
        shaped = weight.ndim == 3 and weight.shape == (*bias.shape, *bias.shape[-1:]) and isinstance(about, dict)
        ours = metadata["format"] == FORMAT and len(tensors) == 2 and metadata["dtype"] in DTYPES and shaped
        lens = TunedLens(weight, bias, metadata["weight_hash"], metadata["dtype"], about) if ours else None
    except (KeyError, ValueError):
        lens = None
    if lens is None:
        raise CheckpointError(f"tuned lens: {path} is no tuned lens that `save_lens` wrote.")
    return lens.check(model)


def is_shipped(model: Transformer) -> bool:
    """Whether a lens for this model comes with the package."""
    path = _shipped(model)
    if not path.exists():
        return False
    metadata = header_of(path)["__metadata__"]
    return model.weight_hash(cast(torch.dtype, getattr(torch, metadata["dtype"]))) == str(metadata["weight_hash"])


def shipped_lens(model: Transformer) -> TunedLens:
    """The lens that comes with the package for an embedded model. Raises CheckpointError where there is none."""
    path = _shipped(model)
    if not path.exists():
        raise CheckpointError(
            f"tuned lens: none comes with the package for {model.name}. Train one with train_tuned_lens, load one with load_lens, or "
            "read a published one with published_lens."
        )
    return load_lens(path, model)


def _shipped(model: Transformer) -> Path:
    return Path(str(files("analyses.lenses") / "trained" / f"{Path(model.name).name}.safetensors"))
