"""Text to token ids and back, on the `tokenizers` library."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from interp.errors import CheckpointError, TokenError
from interp.files import write_whole

PAD = -1
"""The id that stands for "no token" where a batch holds prompts of unequal length. It is never in a vocabulary."""


class Tokenizer:
    """A byte-level BPE tokenizer (Radford et al. 2019, section 2.2): any Unicode text encodes, and decodes to itself.

    Args:
        backend: the tokenizer of the `tokenizers` library.
        bos: id of the token that the model was trained to see first, or None where it was trained without.
        eos: id of the token that ends a text, or None.
    """

    def __init__(self, backend: Backend, *, bos: int | None = None, eos: int | None = None) -> None:
        self._backend = backend
        self.bos = bos
        self.eos = eos

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The ids of a text; nothing is prepended. Special tokens written out in the text become their ids."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens included. Bytes that are no complete UTF-8 character show as U+FFFD."""
        self._check(ids)
        return str(self._backend.decode([i for i in ids if i != PAD], skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself; a padding place is the empty string."""
        self._check(ids)
        return ["" if i == PAD else self.decode([i]) for i in ids]

    def single(self, text: str) -> int:
        """The id of a text that is exactly one token.

        Raises:
            TokenError: the text is empty or several tokens; the message lists the pieces.
        """
        ids = self.encode(text)
        if len(ids) != 1:
            pieces = ", ".join(repr(piece) for piece in self.pieces(ids)) or "nothing"
            hint = "" if text.startswith(" ") else " A word inside a sentence is usually written with a leading space."
            raise TokenError(f"{text!r} must be a single token but is {len(ids)}: {pieces}.{hint}")
        return ids[0]

    def batch(self, prompts: Sequence[str], *, bos: bool) -> Int[Tensor, "batch position"]:
        """Ids of several prompts, padded on the right with PAD. With `bos`, each begins with the BOS token.

        Raises:
            TokenError: no prompts, an empty prompt, or `bos` where the tokenizer has no such token.
        """
        if not prompts:
            raise TokenError("there is no prompt: the list is empty.")
        first = self.bos if self.bos is not None else self.eos
        if bos and first is None:
            raise TokenError("bos=True, but this tokenizer has no beginning-of-text token.")
        rows = []
        for number, prompt in enumerate(prompts):
            ids = self.encode(prompt)
            if not ids:
                raise TokenError(f"prompt {number} is empty: give it at least one character.")
            rows.append([first, *ids] if bos and ids[0] != first else ids)
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def hash(self) -> str:
        """SHA-256 of the tokenizer's full description."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into a checkpoint directory."""
        special = {
            name: self._backend.id_to_token(i)
            for name, i in (("bos_token", self.bos), ("eos_token", self.eos))
            if i is not None
        }
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": self.bos is not None, **special}
        write_whole(directory / "tokenizer.json", lambda path: self._backend.save(str(path)))
        write_whole(
            directory / "tokenizer_config.json", lambda path: path.write_text(json.dumps(settings, indent=2) + "\n")
        )

    def _check(self, ids: Sequence[int]) -> None:
        wrong = [i for i in ids if not (0 <= i < len(self) or i == PAD)]
        if wrong:
            raise TokenError(f"token id {wrong[0]} is out of range: this tokenizer has ids 0 to {len(self) - 1}.")

    @classmethod
    def from_directory(cls, directory: Path) -> "Tokenizer | None":
        """The tokenizer of a checkpoint directory: tokenizer.json, or vocab.json with merges.txt; None where neither is.

        BOS is used by default only where tokenizer_config.json says `add_bos_token`.

        Raises:
            CheckpointError: a tokenizer file that cannot be read, or one half of the pair.
        """
        whole, vocab, merges = (directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
        try:
            if whole.exists():
                backend = Backend.from_file(str(whole))
            elif vocab.exists() and merges.exists():
                backend = _byte_level(models.BPE.from_file(str(vocab), str(merges)))
            elif vocab.exists() or merges.exists():
                raise CheckpointError(f"{directory}: vocab.json and merges.txt belong together, and one is missing.")
            else:
                return None
        except CheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception for every fault of a file
            raise CheckpointError(f"{directory}: the tokenizer files cannot be read: {error}") from error
        settings = _settings(directory / "tokenizer_config.json")
        eos = backend.token_to_id(_content(settings.get("eos_token", "<|endoftext|>")))
        bos = backend.token_to_id(_content(settings.get("bos_token", "<|endoftext|>")))
        return cls(backend, bos=bos if settings.get("add_bos_token") is True else None, eos=eos)


def _byte_level(model: models.BPE) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    if backend.token_to_id("<|endoftext|>") is not None:
        backend.add_special_tokens(["<|endoftext|>"])
    return backend


def _settings(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(settings).__name__}.")
    return settings


def _content(token: object) -> str:
    return str(token["content"]) if isinstance(token, dict) and "content" in token else str(token)
