"""`HookedTransformer` and what belongs to it, by TransformerLens' names, on the models of this library.

from interp.transformer_lens import HookedTransformer, HookedTransformerConfig, ActivationCache, utils, patching
"""

from interp.transformer_lens import patching, utils
from interp.transformer_lens.cache import ActivationCache
from interp.transformer_lens.config import HookedTransformerConfig
from interp.transformer_lens.factored import FactoredMatrix
from interp.transformer_lens.model import HookedTransformer
from interp.transformer_lens.points import HookPoint

__all__ = [
    "ActivationCache",
    "FactoredMatrix",
    "HookPoint",
    "HookedTransformer",
    "HookedTransformerConfig",
    "patching",
    "utils",
]
