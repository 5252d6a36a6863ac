"""Circuits: which edges between the parts of a model carry the answer?"""

from analyses.circuits.attribution import edge_attribution
from analyses.circuits.patching import edge_patching
from analyses.circuits.paths import path_patching

__all__ = ["edge_attribution", "edge_patching", "path_patching"]
