"""From a GGUF file to a `Transformer`."""

from pathlib import Path

import torch

from interp.config import ModelConfig
from interp.errors import CheckpointError
from interp.loading.checkpoint import fill
from interp.loading.families import FAMILIES
from interp.loading.gguf.architectures import Weights, settings_of
from interp.loading.gguf.container import Container
from interp.loading.gguf.tokenizer import read_tokenizer
from interp.model import Transformer


def load_file(path: Path, name: str, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model in a GGUF file, with its tokenizer; its weights are dequantised one tensor after the other into `dtype`.

    Raises:
        CheckpointError: a file that is no GGUF, truncated or damaged, of another version; an architecture, a quantisation or a kind of
            tokenizer that is unknown; a tensor that is missing, extra or misshapen.
    """
    container, source = Container(path), str(path)
    settings = settings_of(container)
    family = FAMILIES[settings["model_type"]]
    config = family.read_config(settings, source)
    tokenizer = read_tokenizer(container)
    if tokenizer is not None and len(tokenizer) > config.d_vocab:
        raise CheckpointError(f"{path}: the tokenizer has {len(tokenizer)} tokens, and the embedding {config.d_vocab}.")
    state = family.read_weights(Weights(container, settings, dtype), config, source)
    model = Transformer(config, tokenizer=tokenizer, name=name, seed=None)
    fill(model, state, source)
    stored = ", ".join(f"{count} {kind}" for kind, count in container.kinds().items())
    model.source = f"GGUF file {path.name}; tensors: {stored}"
    return model


def read_config(path: Path) -> ModelConfig:
    """The configuration of the model in a GGUF file; no weights are read. Raises CheckpointError as `load_file` does."""
    settings = settings_of(Container(path))
    config: ModelConfig = FAMILIES[settings["model_type"]].read_config(settings, str(path))
    return config
