"""How a GGUF file says that rotary positions are scaled."""

import math
from typing import Any

import torch
from torch import Tensor

from interp.errors import CheckpointError
from interp.loading.gguf.fields import Fields

FACTORS = "rope_freqs.weight"
"""The tensor that divides each frequency: how llama.cpp keeps Llama 3.1's scaling."""

LOW, HIGH, ORIGINAL = 1.0, 4.0, 8192
"""Of Llama 3.1, 3.2 and 3.3: turns within the original context below and above which a frequency is scaled in full or not at all."""


def rotary_scaling(fields: Fields, d_head: int) -> dict[str, Any] | None:
    """`rope_scaling` of a config.json, or None. Raises CheckpointError for another kind than linear and Llama 3's."""
    kind = fields.optional("rope.scaling.type")
    factor = fields.optional("rope.scaling.factor") or fields.optional("rope.scale_linear") or 1.0
    original = fields.optional("rope.scaling.original_context_length")
    fields.same("rope.scaling.attn_factor", 1.0)
    if FACTORS in fields.container.tensors:
        return _llama3(fields, original or ORIGINAL, d_head)
    if kind not in (None, "linear"):
        raise CheckpointError(
            f"{fields.source}: {fields.architecture}.rope.scaling.type = {kind!r} is not supported; linear, none, and Llama 3's are."
        )
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def _llama3(fields: Fields, original: int, d_head: int) -> dict[str, Any] | None:
    found = fields.container.read(FACTORS, torch.float64)
    factor = round(float(found.max()), 4)
    if factor == 1 and bool((found == 1).all()):
        return None
    expected = llama3_factors(d_head, fields.number("rope.freq_base", 10000.0), factor, LOW, HIGH, original)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=0):
        raise CheckpointError(
            f"{fields.source}: {FACTORS} holds other factors than Llama 3's (factor {factor:g}, {LOW:g} to {HIGH:g} turns in "
            f"{original} positions), and no other scaling of single frequencies is supported."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": original,
    }


def llama3_factors(d_head: int, base: float, factor: float, low: float, high: float, original: int) -> Tensor:
    """What each of the d_head/2 frequencies is divided by in Llama 3.1 (Grattafiori et al. 2024, arXiv 2407.21783)."""
    rates = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    turns = original * rates / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1 where nothing is scaled
    return 1 / ((1 - kept) / factor + kept)
