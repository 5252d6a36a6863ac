"""Text to token ids and back, on the `tokenizers` library."""

from interp.tokenizer.tokenizer import PAD, Tokenizer

__all__ = ["PAD", "Tokenizer"]
