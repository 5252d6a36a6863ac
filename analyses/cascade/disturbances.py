"""What makes two generations begin apart."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.set_apart import begins_with_bos
from interp.errors import InterpError
from interp.finite import not_finite
from interp.generation import left_aligned
from interp.geometry import seen
from interp.hooks import HookPoint
from interp.model import Transformer
from interp.names import block_name
from interp.prompts import Prompt
from interp.tokenizer import PAD
from interp.whole_numbers import in_64_bits, whole_number


class InTokens:
    """A disturbance that is in the tokens alone, so that nothing is to be done while the model runs."""

    step: ClassVar[int] = 0
    """The step at which it first changes what is drawn."""

    def attached(
        self, model: Transformer, rows: Tensor, prompts: Tensor, lengths: Tensor
    ) -> AbstractContextManager[None]:
        """Within the block, disturb these rows of a batch: nothing to do."""
        return nullcontext()


@dataclass(frozen=True)
class Swap(InTokens):
    """One token of the prompt is another.

    Args:
        position: of the token; negative counts from each prompt's end.
        token: what stands there instead; None is, for each prompt, the most probable other token after those before it.
    """

    position: int = -1
    token: str | SupportsIndex | None = None

    def __post_init__(self) -> None:
        """Raises InterpError for what is no whole number."""
        object.__setattr__(self, "position", whole_number(self.position, "Swap: position", InterpError))
        if self.token is not None and not isinstance(self.token, str):
            object.__setattr__(self, "token", whole_number(self.token, "Swap: a token id"))

    def begin(
        self, model: Transformer, tokens: Int[Tensor, "prompt position"], who: str, *, bos: bool | None = None
    ) -> Int[Tensor, "prompt position"]:
        """The disturbed prompts."""
        swapped, position = tokens.clone(), self.position
        for row, length in zip(swapped, (tokens != PAD).sum(1).tolist(), strict=True):
            if not -length <= position < length:
                raise InterpError(
                    f"{who}: a prompt has {length} tokens, so there is none at position {self.position} to swap."
                )
            at = position % length
            row[at] = self._instead(model, row[:length], at, who)
        return swapped

    def _instead(self, model: Transformer, prompt: Tensor, at: int, who: str) -> int:
        if self.token is not None:
            token = model.to_single_token(self.token)
            if token == int(prompt[at]):
                raise InterpError(f"{who}: the token to put in at position {self.position} is there already.")
            return token
        if at == 0:
            raise InterpError(
                f"{who}: nothing predicts the token at position 0, so say which is to stand there: Swap(position, token)."
            )
        with torch.no_grad():
            logits = model(prompt[None, :at])[0, -1]
        if not bool(torch.isfinite(logits).all()):
            raise not_finite(model, prompt[None, :at], f"{who}: the prediction that is swapped in")
        logits[prompt[at]] = -torch.inf
        return int(logits.argmax())

    def about(self) -> dict[str, Any]:
        """What shaped the numbers, for provenance."""
        return {"kind": "swap", "position": self.position, "token": self.token}


@dataclass(frozen=True, eq=False)
class Nudge:
    """The stream is nudged at the last token, once: a random disturbance, or a steering vector applied for one step.

    Args:
        layer: where, in the stream that enters it.
        dose: length of the nudge over that of the stream there, as its readers see it (`interp.geometry`); None adds `vector` as it is.
        vector: [d_model], its direction; None is a random one for each prompt.
        step: at the last token of the prompt (0), or at the token generated so many steps later.
        seed: of the random directions.
    """

    layer: int = 0
    dose: float | None = 0.1
    vector: Float[Tensor, " d_model"] | None = None
    step: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InterpError for what is no whole number, and for a vector that is none."""
        if self.vector is not None and not isinstance(self.vector, Tensor):
            try:
                object.__setattr__(self, "vector", torch.from_numpy(np.array(self.vector, dtype=float)))
            except (TypeError, ValueError) as error:
                raise InterpError(f"Nudge: the vector must hold numbers [d_model]: {error}.") from error
        for name in ("layer", "step", "seed"):
            object.__setattr__(self, name, whole_number(getattr(self, name), f"Nudge: {name}", InterpError))

    def begin(
        self, model: Transformer, tokens: Int[Tensor, "prompt position"], who: str, *, bos: bool | None = None
    ) -> Int[Tensor, "prompt position"]:
        """The prompts as they are; raises InterpError where the request makes no sense."""
        if not 0 <= self.layer < model.config.n_layers or self.step < 0:
            raise InterpError(
                f"{who}: a nudge at layer {self.layer}, step {self.step}: layers are 0 to {model.config.n_layers - 1}, steps from 0."
            )
        real = isinstance(self.dose, Real | None) and not isinstance(self.dose, bool)
        if not real or (self.dose is not None and not 0 < self.dose < float("inf")):
            raise InterpError(f"{who}: the dose of a nudge must be positive, got {self.dose!r}.")
        if self.vector is None and self.dose is None:
            raise InterpError(f"{who}: a nudge needs a dose, a vector, or both.")
        if self.vector is not None and tuple(self.vector.shape) != (model.config.d_model,):
            raise InterpError(
                f"{who}: the vector has shape {tuple(self.vector.shape)}; expected ({model.config.d_model},)."
            )
        if self.vector is not None:
            length = float(self.vector.double().norm())
            if not length < float("inf") or (length == 0 and self.dose is not None):
                raise InterpError(f"{who}: the vector of a nudge must be finite, and with a dose have a direction.")
        return tokens

    @property
    def is_nothing(self) -> bool:
        """Whether it adds exactly zero."""
        return self.dose is None and self.vector is not None and not bool(self.vector.any())

    @contextmanager
    def attached(
        self, model: Transformer, rows: Int[Tensor, " row"], prompts: Int[Tensor, " row"], lengths: Int[Tensor, " row"]
    ) -> Iterator[None]:
        """Within the block, nudge these rows of a batch.

        Args:
            prompts: which prompt each row continues, of which its direction depends.
            lengths: of the prompts, so that the nudged position is known.
        """
        at = lengths - 1 + self.step
        unit = self._directions(model, prompts)

        def nudge(value: Tensor, hook: HookPoint) -> Tensor | None:
            positions = hook.positions
            assert positions is not None
            here, column = (positions.expand(len(value), -1)[rows] == at[:, None]).nonzero(as_tuple=True)
            if not len(here):
                return None
            value = value.clone()
            stream = value[rows[here], column]
            size = 1.0 if self.dose is None else self.dose * seen(model.config, stream).norm(dim=-1, keepdim=True)
            value[rows[here], column] = stream + size * unit[here]
            return value

        with model.hooks({block_name(self.layer, "hook_resid_pre"): nudge}):
            yield

    def _directions(self, model: Transformer, prompts: Tensor) -> Float[Tensor, "row d_model"]:
        if self.vector is not None:
            vector = self.vector.to(model.W_E)
            return (vector if self.dose is None else vector / vector.norm()).expand(len(prompts), -1)
        drawn = {}
        for prompt in sorted(set(prompts.tolist())):
            generator = torch.Generator().manual_seed(in_64_bits(self.seed * 1_000_003 + prompt))
            direction = seen(model.config, torch.randn(model.config.d_model, generator=generator, dtype=torch.float64))
            drawn[prompt] = (direction / direction.norm()).to(model.W_E)
        return torch.stack([drawn[prompt] for prompt in prompts.tolist()])

    def about(self) -> dict[str, Any]:
        """What shaped the numbers, for provenance."""
        about = {"kind": "nudge", "layer": self.layer, "dose": self.dose, "step": self.step, "seed": self.seed}
        if self.vector is None:
            return about | {"vector": "random"}
        numbers = self.vector.detach().double().cpu().contiguous().numpy().tobytes()
        return about | {"vector": "given", "vector_sha256": hashlib.sha256(numbers).hexdigest()}


@dataclass(frozen=True, eq=False)
class Replace(InTokens):
    """Other prompts, one for each: the corrupt partners of a task, or a text edited by hand. Lengths may differ. Texts begin with BOS where
    the analysis' `bos=` says so, as the prompts themselves do."""

    prompts: Prompt

    def begin(
        self, model: Transformer, tokens: Int[Tensor, "prompt position"], who: str, *, bos: bool | None = None
    ) -> Int[Tensor, "prompt other"]:
        """The disturbed prompts. Raises InterpError for as many as there are not, and for texts that begin with BOS where ids do not."""
        other = model.to_tokens(self.prompts, bos=bos)
        if len(other) != len(tokens):
            raise InterpError(f"{who}: {len(tokens)} prompts but {len(other)} to replace them by.")
        if not isinstance(self.prompts, Tensor):
            unlike = (begins_with_bos(model, left_aligned(other)) != begins_with_bos(model, tokens)).nonzero()
            if len(unlike):
                raise InterpError(
                    f"{who}: prompt {int(unlike[0])} and the text that replaces it do not both begin with the beginning-of-text token, so "
                    "that it would be part of what is compared. Give both as texts, with the same bos=, or both as ids."
                )
        return other

    def about(self) -> dict[str, Any]:
        """What shaped the numbers, for provenance; the prompts themselves are with the result's."""
        return {"kind": "replace"}


@dataclass(frozen=True)
class Unrelated(InTokens):
    """The next prompt of the list in place of each: how far apart texts are that have nothing to do with each other."""

    def begin(
        self, model: Transformer, tokens: Int[Tensor, "prompt position"], who: str, *, bos: bool | None = None
    ) -> Int[Tensor, "prompt position"]:
        """The other prompts."""
        if len(tokens) < 2:
            raise InterpError(f"{who}: unrelated texts need two prompts at least.")
        return tokens.roll(-1, dims=0)

    def about(self) -> dict[str, Any]:
        """What shaped the numbers, for provenance."""
        return {"kind": "unrelated"}


Disturbance = Swap | Nudge | Replace | Unrelated


def disturbance_of(given: Disturbance | None, who: str, *, default: Disturbance | None = None) -> Disturbance:
    """What users give as a disturbance; None is the default, or else `Swap()`. Raises InterpError for what is none."""
    if given is None:
        return Swap() if default is None else default
    if not isinstance(given, Disturbance):
        raise InterpError(
            f"{who}: a disturbance is Swap(...), Nudge(...), Replace(...) or Unrelated() of analyses.cascade, got {given!r}."
        )
    return given


def stacked(streams: Sequence[Int[Tensor, "_ _"]]) -> Int[Tensor, "rows position"]:
    """Beginnings of several streams one below the other, the shorter ones padded at the end."""
    width = max(rows.shape[1] for rows in streams)
    return torch.cat([torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=PAD) for rows in streams])
