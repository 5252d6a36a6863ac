"""Byte-level BPE from vocab.json and merges.txt alone: the classes of `transformers` whose splitting is known."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from interp.errors import CheckpointError

GPT2 = ("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
QWEN2 = ("Qwen2Tokenizer",)
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_pairs(model: models.BPE, settings: Mapping[str, Any], source: str) -> Backend:
    """The tokenizer of a vocabulary and its merges, split as the class named in tokenizer_config.json does; GPT-2's where none is.

    Raises CheckpointError for a class whose splitting these two files do not tell.
    """
    name = settings.get("tokenizer_class")
    kind = "GPT2Tokenizer" if name is None else str(name).removesuffix("Fast")
    backend, prefix = Backend(model), settings.get("add_prefix_space") is True
    backend.decoder = decoders.ByteLevel()
    if kind in GPT2 or name in GPT2:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=True)
        if backend.token_to_id("<|endoftext|>") is not None:
            backend.add_special_tokens(["<|endoftext|>"])
    elif kind in QWEN2:
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
            ]
        )
    else:
        raise CheckpointError(
            f"{source}: vocab.json and merges.txt do not say how {name} splits text, and there is no tokenizer.json. Write one: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    return backend
