"""GGUF files, as llama.cpp writes them: one file with the configuration, the weights in any of its quantisations, and the tokenizer."""

from interp.loading.gguf.reading import load_file, read_config

__all__ = ["load_file", "read_config"]
