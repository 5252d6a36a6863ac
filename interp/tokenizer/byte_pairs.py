"""Byte-level BPE from vocab.json and merges.txt alone: the classes of `transformers` whose splitting is known."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from interp.errors import CheckpointError

GPT2 = ("GPT2Tokenizer", "CodeGenTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
GPT_NEOX = ("GPTNeoXTokenizer",)
QWEN2 = ("Qwen2Tokenizer",)
END = "<|endoftext|>"
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_pairs(model: models.BPE, settings: Mapping[str, Any], source: str) -> Backend:
    """The tokenizer of a vocabulary and its merges, split as the class named in tokenizer_config.json does; GPT-2's where none is.

    Raises CheckpointError for a class whose splitting these two files do not tell.
    """
    kind = _kind(settings)
    prefix = settings.get("add_prefix_space") is True
    backend = Backend(model)
    backend.decoder = decoders.ByteLevel()
    if kind not in (*GPT2, *GPT_NEOX, *QWEN2):
        raise CheckpointError(
            f"{source}: vocab.json and merges.txt do not say how {kind} splits text, and there is no tokenizer.json. Write one: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=kind not in QWEN2)
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, level]) if kind in QWEN2 else level
    if kind not in GPT2:
        backend.normalizer = normalizers.NFC()
    if backend.token_to_id(END) is not None:
        backend.add_special_tokens([END])
    return backend


def set_prefix(backend: Backend, settings: Mapping[str, Any]) -> None:
    """Give tokenizer.json's the `add_prefix_space` of tokenizer_config.json, where its class is one that goes by that."""
    wanted = settings.get("add_prefix_space")
    byte_level = isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
    if (
        isinstance(wanted, bool)
        and byte_level
        and settings.get("tokenizer_class")
        and _kind(settings) in (*GPT2[:2], *GPT_NEOX)
    ):
        backend.pre_tokenizer.add_prefix_space = wanted


def _kind(settings: Mapping[str, Any]) -> str:
    """The class of the tokenizer, for which slow and fast are one."""
    return str(settings.get("tokenizer_class") or "GPT2Tokenizer").removesuffix("Fast")
