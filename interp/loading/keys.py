"""Names of tensors as wrappers and trainers leave them, brought back to those of the family."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import CheckpointError

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""What torch.compile, FSDP, activation checkpointing and DeepSpeed put anywhere into a name."""

PREFIX = re.compile(r"(?:module|model|transformer|gpt_neox)\.")
"""What data parallelism, trainers and the class of `transformers` around the blocks put before a name."""

ADAPTER = re.compile(r"(?:^|\.)(?:lora_|ia3_|base_layer\.|modules_to_save\.|adapter_|prompt_embeddings)|^base_model\.")
ADAPTER_CONFIG = "adapter_config.json"


def clean_names(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors by their names without wrappers and prefixes: `_orig_mod.module.transformer.h.0.ln_1.bias` is `h.0.ln_1.bias`.

    Raises CheckpointError for an adapter's tensors, and for two tensors of one name that are not equal.
    """
    clean: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, value in tensors.items():
        if ADAPTER.search(key):
            raise CheckpointError(f"{source}: the tensor {key!r} belongs to an adapter. {merge_first()}")
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        while prefix := PREFIX.match(name):
            name = name[prefix.end() :]
        if name in clean and not same(clean[name], value):
            raise CheckpointError(f"{source}: the tensors {origin[name]!r} and {key!r} are both {name!r}, and differ.")
        clean.setdefault(name, value)
        origin.setdefault(name, key)
    return clean


def refuse_adapter(directory: Path, settings: Mapping[str, Any]) -> None:
    """Raise CheckpointError for the directory of an adapter, whose weights mean nothing without those of its base model."""
    base = settings.get("base_model_name_or_path")
    kind = settings.get("peft_type") or "adapter"
    raise CheckpointError(
        f"{directory} holds an adapter ({kind}{f' for {base}' if base else ''}), which changes another model's weights. {merge_first()}"
    )


def merge_first() -> str:
    """How an adapter is merged into its base model."""
    return (
        "Merge it into its base model and load that: peft.AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload()"
        ".save_pretrained(FOLDER)."
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, without a look at their values where they share their memory."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    shared = one.data_ptr() == other.data_ptr() and one.stride() == other.stride() and one.device == other.device
    return shared or torch.equal(one, other)
