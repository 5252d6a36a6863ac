"""Decoding: one token after another, with the keys and values of earlier ones kept."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.cache import ActivationCache
from interp.config import ModelConfig
from interp.errors import ConfigError, TokenError
from interp.finite import not_finite
from interp.hooks import HookPoint
from interp.key_values import KeyValues
from interp.metrics import scaled
from interp.names import Selection
from interp.prompts import Prompt
from interp.tokenizer import PAD, Tokenizer
from interp.whole_numbers import Wholes, is_one, one_or_several, whole_number, whole_numbers


@runtime_checkable
class Decoder(Protocol):
    """What decoding needs of a model."""

    config: ModelConfig
    name: str
    hook_points: dict[str, HookPoint]
    tokenizer: Tokenizer | None
    ln_final: Any

    @property
    def dtype(self) -> torch.dtype: ...

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor: ...

    def run_blocks(
        self,
        residual: Tensor,
        *,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        real: Tensor | None = None,
        past: KeyValues | None = None,
    ) -> Tensor: ...

    def to_logits(self, normed: Tensor) -> Tensor: ...

    def capture(self, names: Selection = None) -> AbstractContextManager[dict[str, Tensor]]: ...

    def to_tokens(self, prompt: Prompt, *, bos: bool | None = None) -> Tensor: ...

    def to_single_token(self, token: str | SupportsIndex) -> int: ...


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    Args:
        temperature: divides the logits; 0 takes the most probable token.
        top_k: keep only that many of the most probable tokens.
        top_p: keep only the most probable tokens that together reach this probability (Holtzman et al. 2019,
            arXiv 1904.09751); the most probable is always kept.
        seeds: one for each row. A row's tokens depend on its own seed only, not on the rows beside it.

    Raises:
        TokenError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seeds: Sequence[int] = field(default=(0,))

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, Real) and not isinstance(self.temperature, bool)
        if not number or not 0 <= self.temperature < float("inf"):
            raise TokenError(f"generate: temperature must be 0 (greedy) or positive, got {self.temperature!r}.")
        if self.top_k is not None:
            object.__setattr__(self, "top_k", whole_number(self.top_k, "generate: top_k", least=1))
        if self.top_p is not None and not (isinstance(self.top_p, Real) and 0 < self.top_p <= 1):
            raise TokenError(f"generate: top_p must be above 0 and at most 1, got {self.top_p!r}.")

    def kept(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """Logits less the largest, divided by the temperature, with -inf for the tokens that top-k and top-p leave out."""
        kept = scaled(logits, self.temperature)
        if self.top_k is not None and self.top_k < kept.shape[-1]:
            kept = kept.masked_fill(kept < kept.topk(self.top_k, dim=-1).values[:, -1:], -torch.inf)
        if self.top_p is not None:
            ordered, order = kept.sort(dim=-1, descending=True)
            p = ordered.softmax(-1)
            beyond = p.cumsum(-1) - p >= self.top_p  # what the more probable ones reach without this one
            kept = kept.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
        return kept

    def draws(self) -> Iterator["Draw"]:
        """A drawing function for each step, the noise of step t depending on the row's seed and t only."""
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        while True:
            yield Draw(self, generators)


@dataclass(frozen=True)
class Draw:
    """Draws one step's tokens."""

    sampling: Sampling
    generators: Sequence[torch.Generator]

    def __call__(self, logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        """The most probable token at temperature 0; else argmax(logit / T + Gumbel noise), a draw from softmax(logit / T)."""
        if self.sampling.temperature == 0:
            return logits.argmax(-1)
        return (self.sampling.kept(logits) + gumbel(self.generators, logits.shape[-1]).to(logits.device)).argmax(-1)


def gumbel(generators: Sequence[torch.Generator], vocab: int) -> Float[Tensor, "row vocab"]:
    """Standard Gumbel noise, each row from its own generator, float64: the argmax of log-probabilities plus it is a draw."""
    with ThreadPoolExecutor(
        torch.get_num_threads()
    ) as threads:  # inference mode, if it is on, does not reach into them
        drawn = threads.map(lambda one: torch.empty(vocab, dtype=torch.float64).exponential_(generator=one), generators)
        return -torch.stack(list(drawn)).log()


@torch.no_grad()
def decode(
    model: Decoder,
    tokens: Int[Tensor, "batch position"],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[int],
    use_cache: bool,
    record: "Recorder | None" = None,
) -> Iterator[Int[Tensor, " batch"]]:
    """The next token of each row, step by step; PAD for rows that have met a stop token, until all have.

    Raises:
        TokenError: the longest row and the new tokens together exceed the context. ConfigError: the model is not causal.
        ResultError: the logits are no numbers; it names the first hook point that is none.
    """
    reading = Reading(model, tokens, max_new_tokens, use_cache, record)
    stops = torch.tensor(list(stop), dtype=torch.long, device=tokens.device)
    running = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    for _, draw in zip(range(max_new_tokens), sampling.draws(), strict=False):
        following = draw(reading.logits()).masked_fill(~running, PAD)
        yield following
        running = running & ~torch.isin(following, stops)
        if not bool(running.any()):
            return
        reading.add(following)


def check_room(model: Decoder, tokens: Int[Tensor, "batch position"], max_new_tokens: int) -> None:
    """Raise TokenError where the longest row and the new tokens together exceed the context, ConfigError for a model that is not causal."""
    if not model.config.causal:
        raise ConfigError(f"generate: {model.name} is bidirectional, so a token would depend on those that follow it.")
    longest = int((tokens != PAD).sum(1).max())
    room = model.config.n_ctx - longest
    if max_new_tokens < 1:
        raise TokenError(f"generate: max_new_tokens must be at least 1, got {max_new_tokens}.")
    if max_new_tokens > room:
        raise TokenError(
            f"generate: a prompt of {longest} tokens leaves room for {room} more in {model.name}'s context of "
            f"{model.config.n_ctx}, but {max_new_tokens} were asked for."
        )


class Reading:
    """Texts that are read and continued together, each by any token.

    Args:
        tokens: the beginnings; PAD stands where a shorter one has no token.
        max_new_tokens: how many tokens each will be continued by, at most.
        use_cache: keep keys and values; False reads the whole text anew for each token.
        record: notes activations.

    Raises:
        TokenError: the longest row and the new tokens together exceed the context. ConfigError: the model is not causal.
    """

    def __init__(
        self, model: Decoder, tokens: Int[Tensor, "batch position"], max_new_tokens: int, use_cache: bool = True,
        record: "Recorder | None" = None,
    ) -> None:  # fmt: skip
        check_room(model, tokens, max_new_tokens)
        tokens = left_aligned(tokens)
        self._model, self._record, self._unread = model, record, tokens
        self._read = [tokens]
        capacity = tokens.shape[1] + max_new_tokens
        self._past = KeyValues(model.config, len(tokens), capacity, model.dtype, tokens.device) if use_cache else None

    @torch.no_grad()
    def logits(self) -> Float[Tensor, "batch vocab"]:
        """Logits after the last token of each row; to be asked for once after each token.

        Raises ResultError where those of a row that goes on are no numbers: a draw from them would be a token like any other.
        """
        logits = next_logits(self._model, self._unread, self._past, self._record)
        if not bool(torch.isfinite(logits.amax(-1)[(self._unread != PAD).any(1)]).all()):
            raise not_finite(
                self._model, left_aligned(torch.cat(self._read, dim=1)), "generate: the next token's logit"
            )
        return logits

    def add(self, following: Int[Tensor, " batch"]) -> None:
        """Continue each row; PAD adds nothing to it."""
        self._read.append(following[:, None])
        self._unread = following[:, None] if self._past is not None else appended(self._unread, following)


def next_logits(
    model: Decoder, tokens: Int[Tensor, "batch new"], past: KeyValues | None, record: "Recorder | None" = None
) -> Float[Tensor, "batch vocab"]:
    """Logits after the last token of each row; tokens are all of the row, or with `past` those that come after it."""
    real = tokens != PAD
    positions = past.positions(tokens.shape[1]) if past is not None else None
    if record is None:
        normed = _normed(model, tokens, real, positions, past)
    else:
        with model.capture(record.names) as values:
            normed = _normed(model, tokens, real, positions, past)
        record.keep(values, real, positions)
    last = (real.sum(1) - 1).clamp(min=0)
    rows = torch.arange(len(tokens), device=tokens.device)
    if past is not None:
        past.advance(real)
    logits: Tensor = model.to_logits(normed[rows, last][:, None])[:, 0]
    return logits


def _normed(
    model: Decoder,
    tokens: Int[Tensor, "batch new"],
    real: Bool[Tensor, "batch new"],
    positions: Int[Tensor, "batch new"] | None,
    past: KeyValues | None,
) -> Float[Tensor, "batch new d_model"]:
    mask = None if past is not None or bool(real.all()) else real
    normed: Tensor = model.ln_final(model.run_blocks(model.embed(tokens, positions), real=mask, past=past))
    return normed


class Recorder:
    """Activations of a generation, each computed once, put in order of absolute position."""

    def __init__(self, model: Decoder, names: Selection) -> None:
        self.names = names
        self._axes = {name: point.axes for name, point in model.hook_points.items()}
        self._steps: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []

    def keep(self, values: dict[str, Tensor], real: Tensor, positions: Tensor | None) -> None:
        """Note one step's values, which of its tokens are real, and where they stand."""
        if positions is None:
            self._steps.clear()  # without kept keys and values each step computes everything again
            positions = torch.arange(real.shape[1], device=real.device).expand(real.shape)
        self._steps.append((values, real, positions))

    def cache(self) -> ActivationCache:
        """All steps in one: NaN where a row has no token. Attention has a column for each key of the longest row."""
        length = max(int(positions[real].max()) for _, real, positions in self._steps if bool(real.any())) + 1
        names = [name for name in self._axes if name in self._steps[0][0]]
        return ActivationCache({name: self._joined(name, length) for name in names}, self._axes)

    def _joined(self, name: str, length: int) -> Tensor:
        attention = "key" in self._axes[name]
        whole: Tensor | None = None
        for values, real, positions in self._steps:
            value = values[name]
            if attention:  # [batch, head, query, key], to [batch, query, head, key]
                value = F.pad(value.transpose(1, 2), (0, length - value.shape[-1]), value=torch.nan)[..., :length]
            if whole is None:
                whole = value.new_full((len(real), length, *value.shape[2:]), torch.nan)
            row, place = real.nonzero(as_tuple=True)
            whole[row, positions[row, place]] = value[row if len(value) > 1 else 0, place]
        if whole is None:
            raise TokenError("generate: nothing was recorded.")
        return whole.transpose(1, 2) if attention else whole


def left_aligned(tokens: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The same rows with all padding at the end."""
    return tokens.gather(1, left_order(tokens))


def left_order(tokens: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The place of each in rows whose padding then stands at the end."""
    return (tokens == PAD).to(torch.int8).argsort(dim=1, stable=True)


def appended(tokens: Int[Tensor, "batch position"], following: Int[Tensor, " batch"]) -> Int[Tensor, "batch longer"]:
    """Each row with its next token right after its last, padded at the end. A following PAD adds nothing."""
    return left_aligned(torch.cat([tokens, following[:, None]], dim=1))


def _stops(model: Decoder, stop: Any) -> list[int]:
    """The ids of tokens to stop at. Raises TokenError for a text of several tokens, or an id that the model does not have."""
    try:
        tokens = [stop] if isinstance(stop, str) else one_or_several(stop, "generate: a token to stop at")
        return [model.to_single_token(token) for token in tokens]
    except TokenError as error:
        raise TokenError(f"generate: a row can stop only at a single token: {error}") from error


class Generating:
    """What a model that decodes offers its users."""

    def stream(
        self: Decoder,
        prompt: Prompt,
        *,
        max_new_tokens: SupportsIndex = 20,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Wholes = 0,
        stop: str | Wholes | Sequence[str | SupportsIndex] | None = None,
        bos: bool | None = None,
        use_cache: bool = True,
        record: Recorder | None = None,
    ) -> Iterator[Int[Tensor, " batch"]]:
        """Continue prompts token by token: an iterator over the next token of each row, PAD once a row has met a stop token.

        Args:
            prompt: a text, several texts of any lengths, or token ids.
            max_new_tokens: at most this many steps.
            temperature, top_k, top_p: see `Sampling`; temperature 0 is greedy.
            seed: row r draws with seed + r; or one seed for each row. The same seed gives the same tokens in any batch.
            stop: tokens after which a row ends, one or several, each an id or a text that is one token; None is the tokenizer's
                end-of-text, and others that the checkpoint ends at.
            bos: see `to_tokens`.
            use_cache: keep keys and values; False runs the whole text anew at each step, for comparison.
            record: notes activations, see `generate_with_cache`.

        Hooks attached around the iteration act on every token once, with `hook.positions` absolute. With the cache the values
        are those of the new tokens only; a hook that goes by `hook.positions` does the same with and without it.

        Raises:
            TokenError: a prompt that the model cannot take, prompt and new tokens beyond the context, a sampling value out of
                range, a number of seeds that is not the number of rows, or a text to stop at that is several tokens.
            ResultError: logits that are no numbers.
        """
        tokens = self.to_tokens(prompt, bos=bos)
        most = whole_number(max_new_tokens, "generate: max_new_tokens")
        seeds = whole_numbers(seed, "generate: a seed")
        if is_one(seed):
            seeds = [seeds[0] + row for row in range(len(tokens))]
        if len(seeds) != len(tokens):
            raise TokenError(
                f"generate: {len(seeds)} seeds for {len(tokens)} rows; give one number, or one for each row."
            )
        if stop is None:
            stop = [] if self.tokenizer is None else self.tokenizer.stops
        sampling = Sampling(temperature, top_k, top_p, seeds)
        check_room(self, tokens, most)  # here, not at the first token
        return decode(self, tokens, most, sampling, _stops(self, stop), use_cache, record)

    def generate(self: Decoder, prompt: Prompt, **options: Any) -> Int[Tensor, "batch position"]:
        """The prompts with their continuations, as ids padded at the end with PAD. Options are those of `stream`."""
        tokens = self.to_tokens(prompt, bos=options.get("bos"))
        whole = left_aligned(tokens)
        for following in Generating.stream(self, tokens, **options):
            whole = appended(whole, following)
        return whole[:, : int((whole != PAD).sum(1).max())]

    def generate_with_cache(
        self: Decoder, prompt: Prompt, names: Selection = None, **options: Any
    ) -> tuple[Int[Tensor, "batch position"], ActivationCache]:
        """As `generate`, and the activations at the named hook points, each computed once while decoding.

        Values stand at their absolute positions; the last token of a row was never read, so it has none (NaN).
        """
        tokens = self.to_tokens(prompt, bos=options.get("bos"))
        record, whole = Recorder(self, names), left_aligned(tokens)
        for following in Generating.stream(self, tokens, record=record, **options):
            whole = appended(whole, following)
        return whole[:, : int((whole != PAD).sum(1).max())], record.cache()
