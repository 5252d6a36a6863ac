"""From a GGUF file to a `Transformer`."""

from pathlib import Path
from typing import Any

import torch

from interp.config import ModelConfig
from interp.loading.checkpoint import assemble, family_of
from interp.loading.finite import check_cast
from interp.loading.gguf.architectures import Weights, settings_of
from interp.loading.gguf.container import Container
from interp.loading.gguf.tokenizer import read_tokenizer
from interp.loading.sizes import check_layers, check_sizes
from interp.model import Transformer
from interp.tokenizer import Tokenizer


def load_file(
    path: Path, name: str, dtype: torch.dtype = torch.float32, tokenizer: Tokenizer | None = None
) -> Transformer:
    """The model in a GGUF file, with its tokenizer, or that which is given; its weights are dequantised one tensor after the other into
    `dtype`.

    Raises:
        CheckpointError: a file that is no GGUF, truncated or damaged, of another version; an architecture, a quantisation or a kind of
            tokenizer that is unknown; a tensor that is missing, extra or misshapen.
    """
    container, source = Container(path), str(path)
    settings, config = _read_config(container)
    kind = settings["model_type"]
    family = family_of(kind, source)
    tokenizer = read_tokenizer(container) if tokenizer is None else tokenizer
    state = family.read_weights(Weights(container, settings, dtype), config, source)
    state = {ours: value.to(dtype) for ours, value in state.items()}
    check_cast(state, source)
    model = assemble(config, state, source=source, name=name, format=kind, tokenizer=tokenizer)
    stored = ", ".join(f"{count} {kind}" for kind, count in container.kinds().items())
    model.source = f"GGUF file {path.name}; tensors: {stored}"
    return model


def read_config(path: Path) -> ModelConfig:
    """The configuration of the model in a GGUF file; no weights are read. Raises CheckpointError as `load_file` does."""
    return _read_config(Container(path))[1]


def _read_config(container: Container) -> tuple[dict[str, Any], ModelConfig]:
    """What the metadata say, as `transformers` would and as we do."""
    source, shapes = str(container.path), {name: stored.shape for name, stored in container.tensors.items()}
    said = {name.rpartition(".")[2]: value for name, value in container.metadata.items()}
    check_layers({"n_layers": said.get("block_count")}, len(shapes), source)
    settings = settings_of(container)
    config: ModelConfig = family_of(settings["model_type"], source).read_config(settings, source)
    check_sizes(config, shapes, source)
    return settings, config
