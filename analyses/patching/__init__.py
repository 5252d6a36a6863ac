"""Activation patching: which value, put from one run into another, moves the answer?"""

from analyses.patching.activation import activation_patching

__all__ = ["activation_patching"]
