"""Text in and out by TransformerLens' names and defaults: BOS is prepended, shorter rows are filled with the end-of-text token."""

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import interp
from interp.errors import ConfigError, TokenError
from interp.tokenizer import PAD, Tokenizer
from interp.transformer_lens.config import HookedTransformerConfig
from interp.transformer_lens.their_tokenizer import TheirTokenizer
from interp.whole_numbers import is_one, whole_numbers

Side = Literal["left", "right"]
Texts = str | list[str]
Ids = Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]]


class WithTexts(nn.Module):
    """What a model does with text. It fills `core`, `cfg` and `default_padding_side`."""

    core: interp.Transformer
    cfg: HookedTransformerConfig
    default_padding_side: Side

    @property
    def tokenizer(self) -> TheirTokenizer | None:
        """An `interp.Tokenizer`, with names of those of `transformers`; or None."""
        return cast("TheirTokenizer | None", self.core.tokenizer)

    def set_tokenizer(self, tokenizer: object, default_padding_side: Side | None = None) -> None:
        """Take another tokenizer: ours, one of the `tokenizers` library, or a fast one of `transformers`."""
        self.core.tokenizer = TheirTokenizer(Tokenizer.of(tokenizer))
        self.default_padding_side = default_padding_side or self.default_padding_side

    @property
    def bos_id(self) -> int:
        """What is prepended. Raises TokenError where the tokenizer has no such token."""
        opening = self.core.need_tokenizer().opening
        if opening is None:
            raise TokenError("prepend_bos: this tokenizer has no beginning-of-text token; give prepend_bos=False.")
        return opening

    @property
    def pad_id(self) -> int:
        """What shorter rows are filled with: the end-of-text token, else the one that begins a text."""
        tokenizer = self.core.need_tokenizer()
        return self.bos_id if tokenizer.eos is None else tokenizer.eos

    def to_tokens(
        self,
        input: Texts,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Int[Tensor, "batch position"]:
        """Token ids of one text or several.

        Args:
            prepend_bos: None is `cfg.default_prepend_bos`, see `from_pretrained`.
            padding_side: where shorter rows are filled with the end-of-text token; None is `default_padding_side`.
            truncate: cut what is longer than the context.
        """
        rows = self._rows(input, prepend_bos, padding_side, truncate)
        tokens = rows.masked_fill(rows == PAD, self.pad_id if bool((rows == PAD).any()) else PAD)
        return tokens.to(self.core.device) if move_to_device else tokens

    def _rows(
        self, input: Texts, prepend_bos: bool | None, padding_side: Side | None, truncate: bool = True
    ) -> Int[Tensor, "batch position"]:
        """The same, PAD where a row has no token."""
        texts = list(input) if isinstance(input, (list, tuple)) else [input]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise TokenError(
                f"give a text, a list of texts, or a tensor of ids [batch, position]; got {type(input).__name__}."
            )
        tokenizer = self.core.need_tokenizer()
        first = [self.bos_id] if self._prepends(prepend_bos) else []
        rows = [[*first, *tokenizer.encode(text)] for text in texts]
        rows = [row[: self.cfg.n_ctx] for row in rows] if truncate else rows
        longest = max(map(len, rows))
        if longest == 0:
            raise TokenError("to_tokens: the text is empty, and no BOS is prepended.")
        fills = [[PAD] * (longest - len(row)) for row in rows]
        left = self._side(padding_side) == "left"
        return torch.tensor([[*fill, *row] if left else [*row, *fill] for row, fill in zip(rows, fills, strict=True)])

    def _prepends(self, prepend_bos: bool | None) -> bool:
        return self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos

    def _side(self, padding_side: Side | None) -> Side:
        side = self.default_padding_side if padding_side is None else padding_side
        if side not in ("left", "right"):
            raise ConfigError(f"padding_side must be 'left' or 'right', got {side!r}.")
        return side

    def to_string(self, tokens: Ids) -> str | list[str]:
        """The text of ids; of several rows, a list of texts."""
        rows = tokens.ndim == 2 if isinstance(tokens, (Tensor, np.ndarray)) else _has_rows(tokens)
        if rows:
            return [self._decoded(row) for row in tokens]
        return self._decoded(tokens)

    def _decoded(self, ids: Ids | int) -> str:
        return self.core.need_tokenizer().decode(whole_numbers(ids, "to_string: a token id"))

    def tokenizer_text(self, token: int) -> str:
        """The text of one id; bytes that are no whole character show as U+FFFD."""
        return self.core.need_tokenizer().decode([token])

    def to_str_tokens(
        self, input: Texts | Ids | int, prepend_bos: bool | None = None, padding_side: Side | None = None
    ) -> list[str] | list[list[str]]:
        """The text of each token: of a text or one row of ids a list, of a list of texts a list for each."""
        if isinstance(input, list) and input and all(isinstance(one, str) for one in input):
            return [self._pieces(self._rows(str(text), prepend_bos, padding_side)[0]) for text in input]
        if isinstance(input, str):
            return self._pieces(self._rows(input, prepend_bos, padding_side)[0])
        if not isinstance(input, (Tensor, np.ndarray)):
            row: Any = input[0] if _has_rows(input) and len(input) == 1 else input  # type: ignore[index,arg-type]
            return self._pieces(row)
        ids = input[None] if input.ndim == 0 else input
        row = ids[0] if ids.ndim == 2 and len(ids) == 1 else ids
        if row.ndim != 1:
            raise TokenError(f"to_str_tokens: give one row of ids, got shape {tuple(ids.shape)}.")
        return self._pieces(row)

    def _pieces(self, row: Ids | int) -> list[str]:
        return [self.tokenizer_text(i) for i in whole_numbers(row, "to_str_tokens: a token id")]

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token. Raises TokenError for one that is not."""
        tokenizer = self.core.need_tokenizer()
        if not isinstance(string, str):
            raise TokenError(f"to_single_token: give a text; got {type(string).__name__}.")
        return tokenizer.single(string)

    def to_single_str_token(self, int_token: int) -> str:
        """The text of one id."""
        return self.tokenizer_text(self.core.to_single_token(int_token))

    def get_token_position(
        self,
        single_token: str | SupportsIndex | Tensor,
        input: str | Ids,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
    ) -> int:
        """Where a token stands in a prompt, for the first time or the last. Raises TokenError where it does not."""
        tokens = self._rows(input, prepend_bos, padding_side)[0] if isinstance(input, str) else self.ids_of(input)
        tokens = tokens[0] if tokens.ndim == 2 and len(tokens) == 1 else tokens
        if tokens.ndim != 1 or mode not in ("first", "last"):
            raise TokenError(
                f"get_token_position: give one prompt and mode 'first' or 'last'; got {tuple(tokens.shape)}, {mode!r}."
            )
        token = self.core.to_single_token(_alone(single_token))
        places = (tokens == token).nonzero()[:, 0].tolist()
        if not places:
            raise TokenError(f"get_token_position: token {single_token!r} is not in the prompt.")
        return int(places[0] if mode == "first" else places[-1])

    def tokens_to_residual_directions(
        self, tokens: str | SupportsIndex | Ids | Sequence[str | SupportsIndex]
    ) -> Float[Tensor, "*tokens d_model"]:
        """The unembedding vectors of a token given as text or id, or of several [*tokens, d_model].

        Raises:
            TokenError: a text that is not one token, an id that the model has no logit of.
        """
        directions: Tensor = self.core.W_U.mT[self.ids_of(tokens, self.cfg.d_vocab_out)]
        return directions.reshape(-1) if directions.numel() == self.cfg.d_model else directions

    def ids_of(self, given: Any, below: int | None = None) -> Int[Tensor, "*tokens"]:
        """Ids in whatever form tokens are given: a text that is one token, a number, a tensor or array of any shape, a list of these.

        Args:
            below: what they must be less than; None takes them as they are.

        Raises:
            TokenError: anything else.
        """
        if isinstance(given, (list, tuple)) and given and not _has_rows(given):
            ids = torch.tensor([self.core.to_single_token(_alone(one)) for one in given])
        elif isinstance(given, (Tensor, np.ndarray)):
            ids = _of_numbers(given)
        elif isinstance(given, (list, tuple)):
            ids = torch.tensor(_rows_alike(given))
        else:
            ids = torch.tensor(self.core.to_single_token(given))
        if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
            raise TokenError(f"token ids must be whole numbers, got {ids.dtype} of shape {tuple(ids.shape)}.")
        ids = ids.long().to(self.core.device)
        if below is not None and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < below:
            wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise TokenError(f"token id {wrong} is out of range: the model has logits of 0 to {below - 1}.")
        return ids


def _of_numbers(given: Tensor | np.ndarray) -> Tensor:
    """As a tensor. Raises TokenError for an array of anything but numbers."""
    if isinstance(given, np.ndarray) and given.dtype.kind not in "biufc":
        raise TokenError(f"token ids must be whole numbers, got an array of {given.dtype}.")
    return torch.as_tensor(given)


def _rows_alike(given: Sequence[Any]) -> list[list[int]]:
    """Rows of ids. Raises TokenError where one is no row, or not as long as the first."""
    rows = [[] if is_one(row) else whole_numbers(row, "a token id") for row in given]
    if wrong := [at for at, row in enumerate(rows) if is_one(given[at]) or len(row) != len(rows[0])]:
        raise TokenError(
            f"token ids in rows: give each as many as the first, {len(rows[0])}; row {wrong[0]} is {given[wrong[0]]!r}."
        )
    return rows


def _has_rows(given: Any) -> bool:
    """Whether a list holds rows."""
    return (
        isinstance(given, (list, tuple))
        and bool(given)
        and isinstance(given[0], (list, tuple, Tensor, np.ndarray))
        and np.ndim(given[0]) == 1
    )


def _alone(token: Any) -> Any:
    """One token out of a tensor that holds one."""
    return token.reshape(()) if isinstance(token, (Tensor, np.ndarray)) and np.size(token) == 1 else token
