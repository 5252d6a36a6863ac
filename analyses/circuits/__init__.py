"""Circuits: which edges between the parts of a model carry the answer?"""

from analyses.circuits.patching import edge_patching

__all__ = ["edge_patching"]
