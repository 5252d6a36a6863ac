"""How a text is encoded where it stands inside another: without the space that some kinds put before a whole one."""

import json
import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

from interp.tokenizer.spelling import prefix_of


@dataclass(frozen=True)
class Inside:
    """The steps of a tokenizer, less the one that puts a space before.

    Args:
        backend: the tokenizer itself, for its vocabulary.
        steps: one with its normalizer and pre-tokenizer, without that space.
        added: its added tokens by their texts.
    """

    backend: Backend
    steps: Backend
    added: dict[str, int]

    @classmethod
    def of(cls, backend: Backend) -> "Inside | None":
        """None where the tokenizer puts no space before a text, so that texts are encoded alike everywhere."""
        if prefix_of(backend) == "":
            return None
        parts = {
            name: None if part is None else _without(json.loads(part.__getstate__()))
            for name, part in (("normalizer", backend.normalizer), ("pre_tokenizer", backend.pre_tokenizer))
        }
        model = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
        nothing = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
        steps = Backend.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model} | nothing | parts))
        added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
        return cls(backend, steps, added)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        longest_first = sorted(map(re.escape, self.added), key=len, reverse=True)
        stretches = re.split(f"({'|'.join(longest_first)})", text) if longest_first else [text]
        ids: list[int] = []
        for stretch in filter(None, stretches):
            ids += [self.added[stretch]] if stretch in self.added else self._stretch(stretch)
        return ids

    def _stretch(self, text: str) -> list[int]:
        steps = self.steps
        text = text if steps.normalizer is None else steps.normalizer.normalize_str(text)
        words = [(text, None)] if steps.pre_tokenizer is None else steps.pre_tokenizer.pre_tokenize_str(text)
        return [token.id for word, _ in words for token in self.backend.model.tokenize(word)]


def _without(state: Any) -> Any:
    """A component's description without the step, or the setting, that puts a space before a text."""
    if state["type"] == "Sequence":
        key = next(name for name in state if name != "type")
        return state | {key: [_without(part) for part in state[key] if part["type"] != "Prepend"]}
    if state["type"] == "Metaspace":
        return state | {"prepend_scheme": "never"}
    if state["type"] == "ByteLevel":
        return state | {"add_prefix_space": False}
    return None if state["type"] == "Prepend" else state
