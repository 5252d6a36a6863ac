"""The token that a tokenizer puts before every text, as its post-processor says."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import processors

from interp.tokenizer.spelling import parts


def opening_of(backend: Backend) -> list[int]:
    """The ids that are put before a text, by a template (Llama 3, Gemma) or in BERT's or RoBERTa's way; empty where none is."""
    for part in parts(backend.post_processor):
        match part:
            case {"type": "TemplateProcessing", "single": template, "special_tokens": special}:
                return _before_the_text(template, special)
            case {"type": "BertProcessing" | "RobertaProcessing", "cls": [_, i]}:
                return [int(i)]
    return []


def set_opening(backend: Backend, bos: int | None) -> None:
    """Make the tokenizer put that token, and no other, before every text and nothing after it."""
    if opening_of(backend) == ([] if bos is None else [bos]):
        return
    token = None if bos is None else backend.id_to_token(bos)
    template = processors.TemplateProcessing(
        single="$A" if token is None else [token, "$A"], special_tokens=[] if token is None else [(token, bos)]
    )
    byte_level = [part for part in parts(backend.post_processor) if part["type"] == "ByteLevel"]
    trims = [processors.ByteLevel(trim_offsets=part["trim_offsets"]) for part in byte_level]
    backend.post_processor = processors.Sequence([*trims, template]) if trims else template


def _before_the_text(template: Sequence[dict[str, Any]], special: dict[str, Any]) -> list[int]:
    ids: list[int] = []
    for piece in template:
        if "SpecialToken" not in piece:
            break
        ids += special[piece["SpecialToken"]["id"]]["ids"]
    return ids
