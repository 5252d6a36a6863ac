"""The tokenizer of a model: ids of a text, the text of ids, and where a word stands among them."""

import copy
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend
from torch import Tensor

from interp.errors import ConfigError, TokenError
from interp.tokenizer.inside import Inside
from interp.tokenizer.spelling import Spelling, readable, spans, without_gaps

PAD = -1
"""The id that stands for "no token" where a batch holds prompts of unequal length. It is never in a vocabulary."""


class Tokenizer:
    """Text to ids and back. Of byte-level and SentencePiece kinds with byte fallback, any Unicode text decodes to itself.

    Where a kind puts a space before a text that begins with none, one leading space of a text is not told from it and is lost.

    Args:
        backend: the tokenizer of the `tokenizers` library; it is kept, so do not change it afterwards. Truncation, padding and dropout
            that training left in it are for training and are switched off, in a copy.
        bos: id of the token that the model was trained to see first, or None where it was trained without.
        eos: id of the token that ends a text, or None.
        opening: id that is put first where BOS is asked for; None is `bos`, else `eos`.
        stops: ids at which generation ends besides `eos`, such as the end of a turn of a chat.
        rows: how many ids the model has; None is as many as the tokenizer.

    Raises:
        ConfigError: text would be encoded to ids that the model does not have; added tokens alone may lie beyond.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        bos: int | None = None,
        eos: int | None = None,
        opening: int | None = None,
        stops: Iterable[int] = (),
        rows: int | None = None,
    ) -> None:
        self._backend = _settled(backend)
        self._added = dict(self._backend.get_added_tokens_decoder())
        self._size = 1 + max([*self._backend.get_vocab().values(), -1])
        self.bos, self.eos = bos, eos
        self.opening = next((i for i in (opening, bos, eos) if i is not None), None)
        self.stops = tuple(dict.fromkeys(i for i in (eos, *stops) if i is not None and i >= 0))
        self._fit(self._size if rows is None else rows)

    def __len__(self) -> int:
        """How many ids the tokenizer has a token for, of those that the model has."""
        return min(self._size, self._rows)

    def fitted(self, rows: int) -> "Tokenizer":
        """This tokenizer for a model with `rows` ids. Raises ConfigError as the class does."""
        if rows == self._rows:
            return self
        fitted = copy.copy(self)
        fitted._fit(rows)
        return fitted

    def _fit(self, rows: int) -> None:
        if any(self._backend.id_to_token(i) is not None and i not in self._added for i in range(rows, self._size)):
            raise ConfigError(f"the tokenizer has {self._size} tokens but the model only {rows}.")
        self._rows = rows
        self.stops = tuple(i for i in self.stops if i < rows)

    @property
    def beyond(self) -> dict[int, str]:
        """Added tokens that the model has no row for."""
        return {i: token.content for i, token in self._added.items() if i >= self._rows}

    def ordinary(self) -> list[int]:
        """The ids of the model that stand for text: those that have a token, and no special one."""
        special = {i for i, token in self._added.items() if token.special} | {self.bos, self.eos}
        return [i for i in range(len(self)) if i not in special and self._token(i) is not None]

    def encode(self, text: str, *, inside: bool = False) -> list[int]:
        """The ids of a text; nothing is prepended. Special tokens written out in the text become their ids.

        Args:
            inside: as the text is encoded in the middle of another, without the space that some kinds put before a whole one.

        Raises:
            TokenError: a character that is no Unicode scalar (a lone surrogate), one that the vocabulary cannot express, or a token
                that the model has no row for.
        """
        ids = self._inside.encode(_unicode(text)) if inside and self._inside else list(self._encoding(text).ids)
        wrong = next((i for i in ids if i >= self._rows), None)
        if wrong is not None:
            raise TokenError(
                f"{self._backend.id_to_token(wrong)!r} is token {wrong} of the tokenizer, but the model has ids 0 to {self._rows - 1} "
                "only: it was added without resizing the model."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens included. Bytes that are no complete UTF-8 character show as U+FFFD, ids that have
        no token (of a vocabulary that was padded) as `#50300`."""
        self._check(ids)
        there = [i for i in ids if i != PAD]
        if self._spelling is not None or any(self._token(i) is None for i in there):
            return b"".join(self._spelled(there)).decode("utf-8", "replace")
        return str(self._backend.decode(there, skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, with its space; a padding place is the empty string.

        Bytes that are no complete character show as `<0xE2>`, ids that have no token as `#50300`.
        """
        self._check(ids)
        return ["" if i == PAD else readable(self._spell(i)) for i in ids]

    def single(self, text: str) -> int:
        """The id of a text that is exactly one token where it stands inside another text.

        Raises:
            TokenError: the text is empty or several tokens; the message lists the pieces.
        """
        ids = self.encode(text, inside=True)
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
        first = self.opening
        if bos and first is None:
            raise TokenError("bos=True, but this tokenizer has no beginning-of-text token.")
        if bos and first is not None and first >= self._rows:
            raise TokenError(f"the beginning-of-text token {self.beyond.get(first)!r} has no row in the model.")
        rows = []
        for number, prompt in enumerate(prompts):
            ids = self.encode(prompt)
            if not ids:
                raise TokenError(f"prompt {number} is empty: give it at least one character.")
            rows.append([first, *ids] if bos and ids[0] != first else ids)
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def find(self, ids: Sequence[int], part: str, text: str | None = None) -> list[int]:
        """The positions of the tokens that hold, in whole or in part, a text which stands once among them.

        Args:
            text: what was encoded to these ids, where it is known; a tokenizer that changes its text (to lower case, to one form of
                an accented letter) is then asked which characters each token came from.

        Raises:
            TokenError: the text stands there not at all, or several times.
        """
        whole, places = self._places(ids, text)
        starts = [at.start() for at in re.finditer(f"(?={re.escape(part)})", whole)] if part else []
        if len(starts) != 1:
            times = f"stands {len(starts)} times in the prompt, not once" if part else "is empty"
            raise TokenError(f"{part!r} {times}")
        first, end = starts[0], starts[0] + len(part)
        return [at for at, (start, stop) in enumerate(places) if stop > first and start < end]

    def hash(self) -> str:
        """SHA-256 of all that decides which ids a text gets (what is put before and after these aside)."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        description = self._backend.to_str()
        if self._backend.post_processor is not None:
            state = self._backend.post_processor.__getstate__().decode()
            description = description.replace(f'"post_processor":{state}', '"post_processor":null', 1)
        return hashlib.sha256(description.encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files into a checkpoint directory; `transformers` reads them, and prepends BOS where we do."""
        from interp.tokenizer.files import write  # which knows this class

        write(self, copy.deepcopy(self._backend), directory)

    @classmethod
    def from_directory(cls, directory: Path) -> "Tokenizer | None":
        """The tokenizer of a checkpoint directory: tokenizer.json, or vocab.json with merges.txt; None where neither is.

        Raises:
            CheckpointError: a tokenizer file that cannot be read, one half of the pair, or a kind that is not read.
        """
        from interp.tokenizer.files import read

        return read(directory)

    @classmethod
    def of(cls, source: object, *, stops: Iterable[int] = (), prepends: bool | None = None) -> "Tokenizer":
        """A tokenizer in memory: ours, one of the `tokenizers` library, or a fast one of `transformers`. The source stays as it is.

        Args:
            stops: see the class; ours has its own.
            prepends: whether BOS is put first by default; None is where the source does so of itself.

        Raises:
            TokenError: something else.
        """
        from interp.tokenizer.memory import read_object

        return read_object(source, stops, prepends)

    @cached_property
    def _spelling(self) -> Spelling | None:
        return Spelling.of(self._backend)

    @cached_property
    def _inside(self) -> Inside | None:
        return Inside.of(self._backend)

    def _token(self, i: int) -> str | None:
        token: str | None = self._backend.id_to_token(i) if i < self._size else None
        return token

    def _is_verbatim(self, i: int) -> bool:
        """Whether a token is written as it stands: an added one, unless it is a word of the vocabulary as well."""
        added = self._added.get(i)
        return added is not None and (added.special or self._backend.model.token_to_id(added.content) != i)

    def _spell(self, i: int) -> bytes:
        token = self._token(i)
        if token is None:
            return f"#{i}".encode()
        if self._is_verbatim(i):
            return token.encode()
        if self._spelling is not None:
            return self._spelling.spell(token)
        return str(self._backend.decode([i], skip_special_tokens=False)).encode()

    def _spelled(self, ids: Sequence[int]) -> list[bytes]:
        """What each token adds to the text of all of them."""
        out: list[bytes] = []
        stretch: list[bytes] = []
        for place, i in enumerate([*ids, PAD]):
            if i != PAD and self._token(i) is not None and not self._is_verbatim(i):
                stretch.append(self._spell(i))
                continue
            first = place == len(stretch)
            out += stretch if self._spelling is None else self._spelling.without_prefix(stretch, first=first)
            stretch = []
            if i != PAD:
                out.append(self._spell(i))
        return out

    def _places(self, ids: Sequence[int], text: str | None) -> tuple[str, list[tuple[int, int]]]:
        """A text, and the characters of it that each id stands for."""
        spelled = self._spelled(ids)
        text = self.decode(ids) if text is None else text
        if b"".join(spelled).decode("utf-8", "replace") != text:
            encoding = self._encoding(text)
            if list(encoding.ids) == list(ids):
                return text, without_gaps(text, encoding.offsets)
        return spans(spelled)

    def _encoding(self, text: str) -> Encoding:
        _unicode(text)
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception for every fault
            raise TokenError(f"{text!r} cannot be encoded by this tokenizer: {error}") from error

    def _check(self, ids: Sequence[int]) -> None:
        wrong = [i for i in ids if not (0 <= i < self._rows or i == PAD)]
        if wrong:
            raise TokenError(f"token id {wrong[0]} is out of range: there are ids 0 to {self._rows - 1}.")


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenError(
            f"{text!r} has a lone surrogate at character {error.start}, which is no Unicode character and has no tokens."
        ) from error
    return text


def _settled(backend: Backend) -> Backend:
    """The tokenizer without what was meant for training, and special tokens read as such; a copy where that changes anything."""
    dropout = getattr(backend.model, "dropout", None)
    if not (backend.truncation or backend.padding or dropout or backend.encode_special_tokens):
        return backend
    backend = copy.deepcopy(backend)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    if dropout:
        backend.model.dropout = None
    return backend
