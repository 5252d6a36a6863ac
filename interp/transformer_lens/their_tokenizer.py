"""The tokenizer under the names that code written for those of `transformers` asks for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp.errors import TokenError
from interp.tokenizer import Tokenizer
from interp.whole_numbers import whole_numbers


class TheirTokenizer(Tokenizer):
    """An `interp.Tokenizer` that has `bos_token_id`, `eos_token_id`, `pad_token_id`, their texts, `vocab_size` and `batch_decode` too.

    Args:
        of: it is the same but for these.
    """

    def __init__(self, of: Tokenizer) -> None:
        self.__dict__.update(of.__dict__)

    @property
    def bos_token_id(self) -> int | None:
        """What is prepended."""
        return self.opening

    @property
    def eos_token_id(self) -> int | None:
        return self.eos

    @property
    def pad_token_id(self) -> int | None:
        """What shorter rows are filled with."""
        return self.opening if self.eos is None else self.eos

    @property
    def bos_token(self) -> str | None:
        return self._text(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        return self._text(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        return self._text(self.pad_token_id)

    @property
    def vocab_size(self) -> int:
        return len(self)

    def _text(self, token: int | None) -> str | None:
        return None if token is None else self.decode([token])

    def decode(self, ids: int | Sequence[int] | np.ndarray | Tensor) -> str:
        """The text of one id or several, special tokens included."""
        return super().decode(whole_numbers(ids, "decode: a token id"))

    def batch_decode(self, rows: Sequence[Sequence[int]] | np.ndarray | Tensor) -> list[str]:
        """The text of each row."""
        if isinstance(rows, str):
            raise TokenError("batch_decode: give rows of ids.")
        given: Any = rows
        return [self.decode(row) for row in given]
