"""From a checkpoint, a name or a model in memory to a `Transformer`."""

from interp.loading.checkpoint import load_directory
from interp.loading.saving import save_directory
from interp.loading.sources import EMBEDDED, embedded_models, load

__all__ = ["EMBEDDED", "embedded_models", "load", "load_directory", "save_directory"]
