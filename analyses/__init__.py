"""Questions asked of a model: each returns an `xarray.Dataset` with units and provenance; `plot` draws it.

Names are imported when they are first used, so that the command line shows its help without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses import cascade
    from analyses.attention import (
        attention_patterns,
        circuit_slice,
        composition,
        copying_scores,
        detect_heads,
        head_importance,
        head_table,
        singular_tokens,
    )
    from analyses.attribution import direct_logit_attribution
    from analyses.embeddings import embedding_structure
    from analyses.lenses import (
        component_lens,
        load_lens,
        logit_lens,
        published_lens,
        save_lens,
        train_tuned_lens,
        tuned_lens,
    )
    from analyses.patching import (
        ablate_heads,
        activation_patching,
        attribution_patching,
        causal_tracing,
        compare_patching,
    )
    from analyses.plots import plot
    from analyses.report.viewer import attention_viewer
    from analyses.residual import residual_stream
    from analyses.results import load, save

_HOMES = {
    "ablate_heads": "analyses.patching",
    "activation_patching": "analyses.patching",
    "attention_patterns": "analyses.attention",
    "attention_viewer": "analyses.report.viewer",
    "attribution_patching": "analyses.patching",
    "cascade": "analyses.cascade",
    "causal_tracing": "analyses.patching",
    "circuit_slice": "analyses.attention",
    "compare_patching": "analyses.patching",
    "component_lens": "analyses.lenses",
    "composition": "analyses.attention",
    "copying_scores": "analyses.attention",
    "detect_heads": "analyses.attention",
    "direct_logit_attribution": "analyses.attribution",
    "embedding_structure": "analyses.embeddings",
    "head_importance": "analyses.attention",
    "head_table": "analyses.attention",
    "load": "analyses.results",
    "load_lens": "analyses.lenses",
    "logit_lens": "analyses.lenses",
    "plot": "analyses.plots",
    "published_lens": "analyses.lenses",
    "residual_stream": "analyses.residual",
    "save": "analyses.results",
    "save_lens": "analyses.lenses",
    "singular_tokens": "analyses.attention",
    "train_tuned_lens": "analyses.lenses",
    "tuned_lens": "analyses.lenses",
}

__all__ = [
    "ablate_heads",
    "activation_patching",
    "attention_patterns",
    "attention_viewer",
    "attribution_patching",
    "cascade",
    "causal_tracing",
    "circuit_slice",
    "compare_patching",
    "component_lens",
    "composition",
    "copying_scores",
    "detect_heads",
    "direct_logit_attribution",
    "embedding_structure",
    "head_importance",
    "head_table",
    "load",
    "load_lens",
    "logit_lens",
    "plot",
    "published_lens",
    "residual_stream",
    "save",
    "save_lens",
    "singular_tokens",
    "train_tuned_lens",
    "tuned_lens",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'analyses' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if home.__name__ == f"analyses.{name}" else getattr(home, name)
