"""From a GGUF file to a `Transformer`."""

from pathlib import Path

import torch

from interp.config import ModelConfig
from interp.loading.checkpoint import assemble, family_of
from interp.loading.gguf.architectures import Weights, settings_of
from interp.loading.gguf.container import Container
from interp.loading.gguf.tokenizer import read_tokenizer
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
    settings = settings_of(container)
    kind = settings["model_type"]
    family = family_of(kind, source)
    config = family.read_config(settings, source)
    tokenizer = read_tokenizer(container) if tokenizer is None else tokenizer
    state = family.read_weights(Weights(container, settings, dtype), config, source)
    state = {ours: value.to(dtype) for ours, value in state.items()}
    model = assemble(config, state, source=source, name=name, format=kind, tokenizer=tokenizer)
    stored = ", ".join(f"{count} {kind}" for kind, count in container.kinds().items())
    model.source = f"GGUF file {path.name}; tensors: {stored}"
    return model


def read_config(path: Path) -> ModelConfig:
    """The configuration of the model in a GGUF file; no weights are read. Raises CheckpointError as `load_file` does."""
    settings = settings_of(Container(path))
    config: ModelConfig = family_of(settings["model_type"], str(path)).read_config(settings, str(path))
    return config
