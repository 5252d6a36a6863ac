"""What each token of a vocabulary spells, in bytes: for byte-level kinds, and for SentencePiece's with their mark for a space.

The bytes of a text's tokens, one after the other, are the text; a token may hold a part of a character.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tokenizers import Tokenizer as Backend

Prefix = Literal["", "always", "where there is none", "where there is none, at the start"]
"""Whether a space is put before a text that is encoded: before each stretch between added tokens, unless it begins with one,
or before the first stretch only."""

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Spelling:
    """How tokens of one kind spell text.

    Args:
        byte_level: each character stands for a byte, by GPT-2's table.
        space: the character that stands for a space, as SentencePiece's U+2581; "" where there is none.
        byte_tokens: tokens like `<0x0A>` stand for a byte.
        prefix: the space that is put before a text.
    """

    byte_level: bool
    space: str
    byte_tokens: bool
    prefix: Prefix

    @classmethod
    def of(cls, backend: Backend) -> "Spelling | None":
        """The spelling that a tokenizer's decoder declares; None where it is of another kind (word pieces, whole words)."""
        byte_level, space, byte_tokens = False, "", False
        for part in parts(backend.decoder):
            match part:
                case {"type": "ByteLevel"}:
                    byte_level = True
                case {"type": "ByteFallback"}:
                    byte_tokens = True
                case {"type": "Replace", "pattern": {"String": mark}, "content": " "} if len(mark) == 1:
                    space = mark
                case {"type": "Metaspace", "replacement": mark}:
                    space = mark
                case {"type": "Fuse" | "Strip"}:
                    pass
                case _:
                    return None
        return cls(byte_level, space, byte_tokens, prefix_of(backend)) if byte_level or space or byte_tokens else None

    def spell(self, token: str) -> bytes:
        """The bytes that a token of the vocabulary stands for."""
        if self.byte_level:
            try:
                return bytes(map(byte_of_character().__getitem__, token))
            except KeyError:  # a token that was added to the vocabulary as it is
                return token.encode()
        if self.byte_tokens and (byte := BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return (token.replace(self.space, " ") if self.space else token).encode()

    def without_prefix(self, stretch: Sequence[bytes], *, first: bool) -> list[bytes]:
        """A stretch between added tokens, less the space that encoding put before it.

        Where one is put only before a text that begins with none, a single space in front is taken for that one.
        """
        spelled = list(stretch)
        if self.prefix == "" or (self.prefix.endswith("at the start") and not first) or not spelled:
            return spelled
        start = b"".join(spelled[:3])[:2]  # no token spells nothing
        if start[:1] == b" " and (self.prefix == "always" or start not in (b"  ", b" ")):
            spelled[0] = spelled[0][1:]
        return spelled


def parts(component: Any) -> Iterator[dict[str, Any]]:
    """The description of a normalizer, pre-tokenizer, post-processor or decoder; of a sequence, of each in order."""
    if component is not None:
        yield from _flat(json.loads(component.__getstate__()))


def _flat(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if state["type"] == "Sequence":
        for inner in next(value for key, value in state.items() if key != "type"):
            yield from _flat(inner)
    else:
        yield state


def prefix_of(backend: Backend) -> Prefix:
    """The space that a tokenizer puts before a text."""
    for part in parts(backend.normalizer):
        if part["type"] == "Prepend":
            return "always"
    for part in parts(backend.pre_tokenizer):
        match part:
            case {"type": "Metaspace", "prepend_scheme": "first"}:
                return "where there is none, at the start"
            case {"type": "Metaspace", "prepend_scheme": "always"} | {"type": "ByteLevel", "add_prefix_space": True}:
                return "where there is none"
    return ""


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """GPT-2's table (Radford et al. 2019): printable bytes stand for themselves, the others are moved to U+0100 and on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    moved = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + place): byte for place, byte in enumerate(moved)}


def readable(spelled: bytes) -> str:
    """Bytes as text; those that are no whole character are shown as `<0xE2>`."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        text = spelled.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def spans(spelled: Sequence[bytes]) -> tuple[str, list[tuple[int, int]]]:
    """The text that tokens spell, and for each token the characters (start, end) that it spells, in whole or in part.

    A byte that is no part of a whole character counts as one character, a lone surrogate.
    """
    text = b"".join(spelled).decode("utf-8", "surrogateescape")
    owner = [
        place for place, c in enumerate(text) for _ in range(1 if "\udc80" <= c <= "\udcff" else len(c.encode("utf-8")))
    ]  # the character of each byte
    found, at = [], 0
    for part in spelled:
        end = at + len(part)
        start = owner[at] if at < len(owner) else len(text)
        found.append((start, owner[end - 1] + 1 if part else start))
        at = end
    return text, found


def without_gaps(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The characters that each token came from, less none: what stands between two tokens is given to one of them.

    White space belongs to the token after it (some tokenizers leave it out of what they report), all else, such as an accent that was
    joined with its letter, to the token before.
    """
    found: list[tuple[int, int]] = []
    reached = 0
    for start, end in offsets:
        if start > reached:
            middle = reached + len(text[reached:start].rstrip())
            if found:
                found[-1] = found[-1][0], max(found[-1][1], middle)
            start = middle
        found.append((start, end))
        reached = max(reached, end)
    if found:
        found[-1] = found[-1][0], len(text)
    return found
