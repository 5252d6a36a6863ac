"""Prompts in: text or ids to checked tokens; and tokens back to text."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import TokenError
from interp.modes import as_ordinary
from interp.tokenizer import PAD, Tokenizer
from interp.whole_numbers import is_one, whole_number, whole_numbers

Prompt = (
    str
    | Sequence[str]
    | Sequence[SupportsIndex]
    | Sequence[Sequence[SupportsIndex] | np.ndarray | Tensor]
    | np.ndarray
    | Tensor
)
"""A text, several texts, or token ids [position] or [batch, position] as lists, arrays or tensors; listed rows may differ in length."""


def listed(prompt: Any) -> Any:
    """A tensor or an array of whole numbers as a tensor, what else can be gone through as a list. Raises TokenError for the rest."""
    if isinstance(prompt, Tensor):
        return prompt
    if isinstance(prompt, np.ndarray) and prompt.dtype.kind in "iu":
        return torch.from_numpy(
            np.array(prompt, dtype=np.int64)
        )  # a copy: torch takes no array of another byte order or that is read-only
    one = not isinstance(prompt, Iterable) or getattr(prompt, "ndim", 1) == 0
    if one or isinstance(prompt, (bytes, Mapping, Set)):
        raise TokenError(f"a prompt must be a text, a list of texts, or token ids; got {type(prompt).__name__}.")
    return list(prompt)


def rows_of_ids(given: Any) -> Tensor:
    """Token ids as a tensor [batch, position]; listed rows are padded at the end with PAD.

    Raises:
        TokenError: what is no whole number. A tensor is left to `check_tokens`.
    """
    if isinstance(given, Tensor):
        return given[None] if given.ndim == 1 else given
    if any(isinstance(row, str) for row in given):
        raise TokenError("a list of prompts must hold texts, or token ids, not both.")
    rows = [given] if all(map(is_one, given)) else given
    ids = [whole_numbers(row, f"token ids: each of row {number}") for number, row in enumerate(rows)]
    longest = max(map(len, ids))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in ids], dtype=torch.long).reshape(
        len(ids), longest
    )


def as_ids(tokens: Tensor) -> Tensor:
    """Ids in 64 bits, for narrow integers cannot hold PAD, or their own range's end. Raises TokenError for what are no integers."""
    if not isinstance(tokens, Tensor):
        found = f"{type(tokens).__name__}; model.to_tokens makes them of a text or of listed ids"
        raise TokenError(f"tokens must be a tensor of ids [batch, position], got {found}.")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TokenError(f"tokens must be integer ids, got {tokens.dtype} of shape {tuple(tokens.shape)}.")
    return tokens.long()


class Prompted:
    """What a model with a configuration and perhaps a tokenizer can do with prompts."""

    config: ModelConfig
    name: str
    _tokenizer: Tokenizer | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """For prompts given as text; None where there is none. One that is given is fitted to the model's ids."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = None if tokenizer is None else tokenizer.fitted(self.config.d_vocab)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    def check_tokens(self, tokens: Tensor) -> Bool[Tensor, "batch position"] | None:
        """Which places hold a token (None: all of them). Raises TokenError where the model cannot take the ids."""
        tokens = as_ids(tokens)
        if tokens.ndim != 2:
            raise TokenError(f"tokens must be integer ids [batch, position], got shape {tuple(tokens.shape)}.")
        if tokens.numel() == 0:
            raise TokenError(f"the prompt is empty: tokens have shape {tuple(tokens.shape)}.")
        if tokens.shape[1] > self.config.n_ctx:
            raise TokenError(f"the prompt has {tokens.shape[1]} tokens; {self.name} takes at most {self.config.n_ctx}.")
        low, high = (int(x) for x in torch.aminmax(tokens))
        if low < PAD or high >= self.config.d_vocab:
            wrong = low if low < PAD else high
            raise TokenError(f"token id {wrong} is out of range: {self.name} has ids 0 to {self.config.d_vocab - 1}.")
        if low != PAD:
            return None
        real = tokens != PAD
        if not bool(real.any(1).all()):
            raise TokenError("the prompt is empty: a row of tokens holds only padding.")
        return real

    def to_tokens(self, prompt: Prompt, *, bos: bool | None = None) -> Int[Tensor, "batch position"]:
        """Token ids of a prompt, on the model's device; shorter rows are padded at the end with PAD.

        Args:
            prompt: a text, several texts, or ids (which are checked; nothing is prepended to them).
            bos: begin each text with the BOS token. None does so exactly where the model was trained so
                (`model.tokenizer.bos` is then its id); `to_str_tokens` shows it.

        Raises:
            TokenError: an empty prompt, one beyond the context, ids out of range, or text without a tokenizer.
        """
        texts = [prompt] if isinstance(prompt, str) else listed(prompt)
        if isinstance(texts, list) and (not texts or all(isinstance(text, str) for text in texts)):
            tokenizer = self.need_tokenizer()
            tokens = tokenizer.batch(texts, bos=tokenizer.bos is not None if bos is None else bos)
        else:
            tokens = rows_of_ids(texts)
        self.check_tokens(tokens)
        return as_ordinary(tokens.to(self.device, torch.long))

    def to_str_tokens(self, prompt: Prompt, *, bos: bool | None = None) -> list[list[str]]:
        """The text of each token of each row, with its space; padding is left out.

        Bytes that are no whole character show as `<0xE2>`, ids without a token (of a padded vocabulary) as `#50300`.
        """
        rows = self.to_tokens(prompt, bos=bos).tolist()
        return [self.need_tokenizer().pieces([i for i in row if i != PAD]) for row in rows]

    def to_string(self, tokens: Int[Tensor, "*batch position"]) -> list[str]:
        """The text of each row of ids, or of one row; padding is left out."""
        several = isinstance(tokens, Tensor | np.ndarray) and tokens.ndim == 2
        rows = [[i for i in whole_numbers(row, "a token id") if i != PAD] for row in (tokens if several else [tokens])]
        return [self.need_tokenizer().decode(row) for row in rows]

    def positions_of(self, text: str, prompt: Prompt, *, bos: bool | None = None) -> list[int]:
        """The positions of a prompt's tokens that hold, in whole or in part, a text which stands once in it.

        Raises:
            TokenError: the text does not stand in the prompt, or more than once; the message lists the tokens.
        """
        tokenizer = self.need_tokenizer()
        ids = [i for i in self.to_tokens(prompt, bos=bos)[0].tolist() if i != PAD]
        try:
            if not isinstance(prompt, str):
                return tokenizer.find(ids, text)
            encoded = tokenizer.encode(prompt)
            before = len(ids) - len(encoded)
            return [before + at for at in tokenizer.find(encoded, text, prompt)]
        except TokenError as error:
            raise TokenError(f"{error}.\n  tokens: {tokenizer.pieces(ids)}") from error

    def to_single_token(self, token: str | SupportsIndex) -> int:
        """The id of a text that is one token, or an id itself, a whole number in any form.

        Raises:
            TokenError: a text of several tokens, whose pieces it lists; an id that the model does not have.
        """
        if isinstance(token, str):
            return self.need_tokenizer().single(token)
        token = whole_number(token, "a token id")
        if not 0 <= token < self.config.d_vocab:
            raise TokenError(f"token id {token} is out of range: {self.name} has ids 0 to {self.config.d_vocab - 1}.")
        return token

    def ordinary_ids(self) -> list[int]:
        """The ids that stand for text: all, less special tokens and those that a tokenizer has no token for."""
        return list(range(self.config.d_vocab)) if self.tokenizer is None else self.tokenizer.ordinary()

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer; a TokenError where the model has none."""
        if self.tokenizer is None:
            raise TokenError(f"{self.name} has no tokenizer: give token ids, or load it with its tokenizer files.")
        return self.tokenizer
