"""Activation patching: which value, put from one run into another, moves the answer?"""

from analyses.patching.ablation import ablate_heads
from analyses.patching.activation import activation_patching
from analyses.patching.attribution import attribution_patching
from analyses.patching.methodology import compare_patching
from analyses.patching.tracing import causal_tracing

__all__ = ["ablate_heads", "activation_patching", "attribution_patching", "causal_tracing", "compare_patching"]
