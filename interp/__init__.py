"""Read and change every intermediate value of a GPT-2-style transformer."""

from interp.cache import ActivationCache
from interp.config import ModelConfig
from interp.decompose import Decomposition, decompose, frozen_norm
from interp.factored import FactoredMatrix
from interp.gradients import gradients
from interp.hooks import HookPoint
from interp.loading import load, save_directory
from interp.model import Transformer
from interp.sweep import Add, Apply, Intervention, Patch, Row, Scale, Set, Swept, sweep
from interp.tokenizer import PAD, Tokenizer

__all__ = [
    "PAD",
    "ActivationCache",
    "Add",
    "Apply",
    "Decomposition",
    "FactoredMatrix",
    "HookPoint",
    "Intervention",
    "ModelConfig",
    "Patch",
    "Row",
    "Scale",
    "Set",
    "Swept",
    "Tokenizer",
    "Transformer",
    "decompose",
    "frozen_norm",
    "gradients",
    "load",
    "save_directory",
    "sweep",
]
