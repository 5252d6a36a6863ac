"""Small attention-only models whose weights are set by hand, so that what each head does is known exactly.

They have no norms, no MLPs and no biases. The stream is a row of named spaces with one direction for each token or position, so
that a head can be written down as what its query, key, value and output read and write. Attention is saturated: a score that
leads does so by at least `SHARP` nats, hence a pattern is 0 or 1 (or evenly shared) to machine precision.

`interp.load("circuit:induction")` and so on; `CIRCUITS` lists them. Prompts are token ids, 0 to 31.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, is_known, nearest
from interp.model import Attention, Transformer

VOCABULARY, CONTEXT = 32, 64
SHARP = 60.0
"""Nats between a score that leads and the next: exp(-60) is 1e-26."""

GAIN = 8.0
"""Logits of a token whose direction in the output space is 1."""

SPACES = {"token": VOCABULARY, "position": CONTEXT, "previous": VOCABULARY, "output": VOCABULARY}
"""The stream: the token that stands here, its position, the token before it once a head has written it, and what is unembedded."""

WIDTH = sum(SPACES.values())
HEAD = VOCABULARY + CONTEXT + 1
"""Dimensions of a head: room to match tokens and positions at once, and one more."""


@dataclass(frozen=True)
class Match:
    """A term of a head's scores: `weight` nats where what the query reads agrees with what the key reads.

    Args:
        query, key: (space, map): the space read, and a matrix [size, k] from it; both maps have the same k. None is the identity.
    """

    query: tuple[str, Tensor | None]
    key: tuple[str, Tensor | None]
    weight: float


@dataclass(frozen=True)
class Head:
    """A head by what it does.

    Args:
        matches: terms of its scores.
        reads, writes: the spaces that its value reads and its output writes.
        weight: of what is written.
        ignores: a token that is read as nothing.
    """

    matches: Sequence[Match]
    reads: str
    writes: str
    weight: float = 1.0
    ignores: int | None = None


def _build(name: str, layers: Sequence[Sequence[Head]]) -> Transformer:
    config = ModelConfig(
        n_layers=len(layers), d_model=WIDTH, n_heads=max(map(len, layers)), d_head=HEAD, d_mlp=1, n_ctx=CONTEXT,
        d_vocab=VOCABULARY, norm="none", mlp="none", tied=False, bias=False,
    )  # fmt: skip
    model = Transformer(config, name=f"circuit:{name}").requires_grad_(False).eval()
    for weight in model.parameters():
        weight.zero_()
    model.W_E[:, _place("token")] = torch.eye(VOCABULARY)
    model.W_pos[:, _place("position")] = torch.eye(CONTEXT)
    model.W_U[_place("output")] = GAIN * torch.eye(VOCABULARY)
    for layer, heads in enumerate(layers):
        attention = model.get_submodule(f"blocks.{layer}.attn")
        assert isinstance(attention, Attention)
        for number, head in enumerate(heads):
            _set(attention, number, head)
    return model


def _set(attention: Attention, number: int, head: Head) -> None:
    """Write a head into the views of its weights. Scores are divided by sqrt(d_head), which the query makes up for."""
    start = 0
    for match in head.matches:
        (query_space, query_map), (key_space, key_map) = match.query, match.key
        query = torch.eye(SPACES[query_space]) if query_map is None else query_map
        key = torch.eye(SPACES[key_space]) if key_map is None else key_map
        inner = slice(start, start + query.shape[1])
        attention.W_Q[number, _place(query_space), inner] += match.weight * math.sqrt(HEAD) * query
        attention.W_K[number, _place(key_space), inner] += key
        start = inner.stop
    size = SPACES[head.reads]
    value = torch.eye(size)
    if head.ignores is not None:
        value[head.ignores] = 0
    attention.W_V[number, _place(head.reads), :size] = value
    attention.W_O[number, :size, _place(head.writes)] = head.weight * torch.eye(size)


def _place(space: str) -> slice:
    start = sum(size for name, size in SPACES.items() if list(SPACES).index(name) < list(SPACES).index(space))
    return slice(start, start + SPACES[space])


def _shift() -> Tensor:
    """From a position to the one before it; the first has none."""
    return torch.diag(torch.ones(CONTEXT - 1), -1)


def _one(space: str, *indices: int) -> Tensor:
    """From a space to a number: 1 at the given directions (all, where none are given)."""
    vector = torch.zeros(SPACES[space], 1)
    vector[list(indices) if indices else slice(None)] = 1
    return vector


def _to_previous(writes: str = "previous", weight: float = 1.0, ignores: int | None = None) -> Head:
    return Head([Match(("position", _shift()), ("position", None), SHARP)], "token", writes, weight, ignores)


def _to_itself(writes: str, weight: float) -> Head:
    return Head([Match(("position", None), ("position", None), SHARP)], "token", writes, weight)


def previous_token() -> Transformer:
    """One layer, one head: every position attends to the one before it and predicts that token again.

    Position 0 attends to itself. The logits are 8 at the token before, else 0.
    """
    return _build("previous-token", [[_to_previous("output")]])


def duplicate_token() -> Transformer:
    """One layer, one head: a token attends evenly to its earlier occurrences, and to itself where there is none.

    The logits are 8 at the token itself, else 0.
    """
    same = Match(("token", None), ("token", None), 2 * SHARP)
    itself = Match(("position", None), ("position", None), -SHARP)  # a match with itself counts half
    return _build("duplicate-token", [[Head([same, itself], "token", "output")]])


def induction() -> Transformer:
    """Two layers of one head (Olsson et al. 2022): head 0.0 writes the token before; head 1.0 seeks where the token here stood before.

    Head 1.0 attends evenly to the earlier positions, but for 0, that follow the token, by K-composition with 0.0; to itself where there is
    none, or where the token has just been repeated. It predicts what stands there: after A B ... A, the logit of B is 8.
    """
    follows = Match(("token", None), ("previous", None), 2 * SHARP)
    itself = Match(("position", None), ("position", None), SHARP / 1.5)
    # Position 0 has no token before it, yet head 0.0 must attend to something there: itself.
    not_first = Match(("position", _one("position")), ("position", _one("position", 0)), -4 * SHARP)
    return _build("induction", [[_to_previous()], [Head([follows, itself, not_first], "token", "output")]])


def copying() -> Transformer:
    """One layer, two heads that attend to themselves: 0.0 copies the token into the prediction, 0.1 takes half of it away.

    The logits are 8 - 4 = 4 at the token itself, else 0. The eigenvalues of the full OV circuits are all positive, and all negative.
    """
    return _build("copying", [[_to_itself("output", 1.0), _to_itself("output", -0.5)]])


def backup() -> Transformer:
    """Two layers: heads 0.0 and 0.1 both predict the token before, each with half the weight; head 1.0 does so only if neither has.

    Prompts begin with token 0 and hold it nowhere else; from position 2 on the logit of the token before is 8 with all heads, 4
    without one of the two, 8 without both, since head 1.0 then takes their place, and 0 without all three. With all heads 1.0 attends to
    position 0, where it reads nothing.
    """
    half = _to_previous("output", 0.5, ignores=0)
    before = Match(("position", _shift()), ("position", None), SHARP)
    written = Match(("output", _one("output")), ("position", _one("position", 0)), 4 * SHARP)
    return _build("backup", [[half, half], [Head([before, written], "token", "output", ignores=0)]])


CIRCUITS: dict[str, Callable[[], Transformer]] = {
    "previous-token": previous_token,
    "duplicate-token": duplicate_token,
    "induction": induction,
    "copying": copying,
    "backup": backup,
}


def circuit(name: str) -> Transformer:
    """A model of `CIRCUITS` by name. Raises CheckpointError for a name that is not one of them."""
    if not is_known(name, CIRCUITS):
        raise CheckpointError(f"there is no circuit {name!r}. {nearest(name, CIRCUITS)}")
    return CIRCUITS[name]()
