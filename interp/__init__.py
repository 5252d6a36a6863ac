"""Read and change every intermediate value of a GPT-2-style transformer."""

from interp.cache import ActivationCache
from interp.config import ModelConfig
from interp.decompose import Decomposition, decompose, frozen_norm
from interp.gradients import gradients
from interp.hooks import HookPoint
from interp.loading import load
from interp.model import Transformer
from interp.tokenizer import PAD, Tokenizer

__all__ = [
    "PAD",
    "ActivationCache",
    "Decomposition",
    "HookPoint",
    "ModelConfig",
    "Tokenizer",
    "Transformer",
    "decompose",
    "frozen_norm",
    "gradients",
    "load",
]
