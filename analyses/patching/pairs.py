"""Pairs of prompts: which position of one belongs to which of the other, and the tokens that decide between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from jaxtyping import Int
from torch import Tensor

from analyses.answers import Tokens, answer_ids
from analyses.patching.metrics import Metric
from interp.errors import InterpError, TokenError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupt prompts, pair by pair.

    Args:
        matched: for each pair, (position in the clean prompt, position in the corrupt prompt) of what is patched.
    """

    clean: Int[Tensor, "pair position"]
    corrupt: Int[Tensor, "pair other"]
    matched: Sequence[Sequence[tuple[int, int]]]

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        """Tokens of each clean and of each corrupt prompt."""
        clean, corrupt = ((rows != PAD).sum(1).tolist() for rows in (self.clean, self.corrupt))
        return clean, corrupt

    def read_at(self, position: Position, who: str) -> tuple[list[int], list[int]]:
        """Where the answer is read in each clean and in each corrupt prompt.

        Args:
            position: one for all pairs, or one for each. A negative one counts from the end of each prompt; else it is one of the clean
                prompt, and the corrupt prompt is read at the position that is matched with it.

        Raises:
            TokenError: a position that a prompt does not have, or whose token has no partner.
        """
        given = given_position(position, who)
        clean = positions_of(given, self.lengths[0], who)
        each = [given] * len(self) if isinstance(given, int) else given
        partners = []
        for number, (at, there) in enumerate(zip(each, clean, strict=True)):
            partner = at if at < 0 else dict(self.matched[number]).get(there)
            if partner is None:
                raise TokenError(
                    f"{who}: pair {number}: position {there} of the clean prompt is matched with none of the corrupt prompt, so there is "
                    "nothing to compare its answer with. Choose a matched position, or count from the end (negative)."
                )
            partners.append(partner)
        return clean, positions_of(partners, self.lengths[1], who)

    @property
    def equal(self) -> bool:
        """Whether every position is matched with itself."""
        return all(i == j for row in self.matched for i, j in row)


def read_pairs(
    model: Transformer, clean: Prompt, corrupt: Prompt, *, bos: bool | None, align: bool | None, who: str
) -> Pairs:
    """Tokenize pairs and match their positions: each to itself where the two are equally long.

    Args:
        align: match pairs of unequal length by their common tokens, and by equally long stretches between these; None where that may not
            be asked for.

    Raises:
        TokenError: not as many clean as corrupt prompts; a pair of unequal length without `align`.
    """
    left, right = (left_aligned(model.to_tokens(prompt, bos=bos)) for prompt in (clean, corrupt))
    if len(left) != len(right):
        raise TokenError(f"{who}: {len(left)} clean prompts but {len(right)} corrupt ones.")
    matched = []
    for number, rows in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        a, b = ([i for i in row if i != PAD] for row in rows)
        if len(a) == len(b):
            matched.append([(i, i) for i in range(len(a))])
        elif align:
            matched.append(_matches(a, b))
        else:
            shown = [model.tokenizer.pieces(row) if model.tokenizer else row for row in (a, b)]
            mending = "" if align is None else " align=True (patch: --align) patches the positions that can be matched."
            first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            raise TokenError(
                f"{who}: pair {number}: the clean prompt has {len(a)} tokens and the corrupt one {len(b)}; they must "
                f"match position by position. They first differ at position {first}.{mending}\n  clean:   {shown[0]}\n  corrupt: {shown[1]}"
            )
    return Pairs(left, right, matched)


def _matches(clean: Sequence[int], corrupt: Sequence[int]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, clean, corrupt, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            pairs += zip(range(i, i_end), range(j, j_end), strict=True)
    return pairs


def read_answers(
    model: Transformer, answer: Tokens, wrong: Tokens | None, metrics: Sequence[Metric], pairs: int, who: str
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"] | None]:
    """The ids of answers and wrong answers. Raises InterpError where a metric needs a wrong answer and there is none."""
    if wrong is None and (needing := [metric.long_name for metric in metrics if metric.compares]):
        raise InterpError(f"{who}: the {needing[0]} needs a wrong answer to compare with (wrong=, --wrong).")
    return (
        answer_ids(model, "answer", answer, pairs, who),
        None if wrong is None else answer_ids(model, "wrong", wrong, pairs, who),
    )
