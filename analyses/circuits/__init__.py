"""Circuits: which edges between the parts of a model carry the answer?"""

from analyses.circuits.attribution import edge_attribution
from analyses.circuits.circuit import Circuit
from analyses.circuits.comparison import compare_methods
from analyses.circuits.criteria import completeness, minimality
from analyses.circuits.curve import faithfulness_curve
from analyses.circuits.faithfulness import faithfulness, run_circuit
from analyses.circuits.formats import read_eap_ig, read_mib, to_networkx, write_eap_ig, write_graphml, write_mib
from analyses.circuits.patching import edge_patching
from analyses.circuits.paths import path_patching
from analyses.circuits.scores import edge_scores
from analyses.circuits.stability import circuit_stability

__all__ = [
    "Circuit",
    "circuit_stability",
    "compare_methods",
    "completeness",
    "edge_attribution",
    "edge_patching",
    "edge_scores",
    "faithfulness",
    "faithfulness_curve",
    "minimality",
    "path_patching",
    "read_eap_ig",
    "read_mib",
    "run_circuit",
    "to_networkx",
    "write_eap_ig",
    "write_graphml",
    "write_mib",
]
