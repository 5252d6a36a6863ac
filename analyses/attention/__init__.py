"""Attention: patterns, what heads do, and what their weights say."""

from analyses.attention.circuits import (
    circuit_slice,
    composition,
    copying_scores,
    effective_embedding,
    ov_circuit,
    qk_circuit,
    singular_tokens,
)
from analyses.attention.detectors import detect_heads
from analyses.attention.importance import head_importance
from analyses.attention.patterns import attention_patterns
from analyses.attention.table import head_table

__all__ = [
    "attention_patterns",
    "circuit_slice",
    "composition",
    "copying_scores",
    "detect_heads",
    "effective_embedding",
    "head_importance",
    "head_table",
    "ov_circuit",
    "qk_circuit",
    "singular_tokens",
]
