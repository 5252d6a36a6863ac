"""Models that another library holds in memory. They are read and left untouched."""

from typing import Any, TypeGuard

from torch import Tensor, nn

from interp.errors import CheckpointError
from interp.loading.checkpoint import fill
from interp.loading.families import gpt2
from interp.loading.finite import check_tensors
from interp.model import Transformer


def is_transformers_model(source: object) -> TypeGuard[nn.Module]:
    """Whether this is a torch module with a `transformers` configuration. `transformers` itself is not imported."""
    return isinstance(source, nn.Module) and hasattr(getattr(source, "config", None), "model_type")


def from_transformers(source: nn.Module) -> Transformer:
    """A copy of a `transformers` GPT-2 (`GPT2LMHeadModel` or `GPT2Model`), without a tokenizer.

    Raises CheckpointError for another architecture, or for weights that do not fit its configuration.
    """
    settings: dict[str, Any] = source.config.to_dict()  # type: ignore[union-attr, operator]
    label = f"the {type(source).__name__} in memory"
    if settings["model_type"] != "gpt2":
        raise CheckpointError(f"{label} has model_type {settings['model_type']!r}; only 'gpt2' is supported.")
    config = gpt2.read_config(settings, label)
    copied: dict[int, Tensor] = {}  # tied weights are one tensor under two names; copy it once
    tensors = {}
    for key, value in source.state_dict().items():
        tensors[key] = copied.setdefault(value.data_ptr(), value.detach().clone())
    check_tensors(tensors, label)
    model = Transformer(config, name=str(settings.get("_name_or_path") or type(source).__name__), seed=None)
    fill(model, gpt2.read_weights(tensors, config, label), label)
    return model
