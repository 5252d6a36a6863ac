"""Read and change every intermediate value of a GPT-2-style transformer."""

from interp.cache import ActivationCache
from interp.config import ModelConfig
from interp.hooks import HookPoint
from interp.loading import load
from interp.model import Transformer
from interp.tokenizer import PAD, Tokenizer

__all__ = ["PAD", "ActivationCache", "HookPoint", "ModelConfig", "Tokenizer", "Transformer", "load"]
