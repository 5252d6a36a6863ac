"""A state's prompts as a model reads them, and what the answer is compared with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.explorer.limits import WHO
from analyses.explorer.state import State
from interp.errors import InterpError
from interp.finite import not_finite
from interp.metrics import log_probabilities
from interp.model import Transformer

MOST_TOKENS = 256
"""Tokens of a prompt here: of longer ones attention alone would fill the memory."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Prompts with their answers.

    Args:
        tokens: [1, position] of each run, `clean` and where there is one `corrupt`.
        log_p: [vocab] of each, after its last token.
        answer: the token that the clean text is to be followed by.
        wrong: what it is compared with; None where there is nothing to compare.
        why: why there is nothing.
    """

    tokens: dict[str, Int[Tensor, "one position"]]
    log_p: dict[str, Float[Tensor, " vocab"]]
    answer: int
    wrong: int | None
    why: str = ""

    @property
    def aligned(self) -> bool:
        """Whether both runs have a token at each position of the other."""
        return "corrupt" in self.tokens and self.tokens["clean"].shape == self.tokens["corrupt"].shape

    @property
    def unaligned(self) -> str:
        """Why values of one run cannot be put into the other; empty where they can."""
        if "corrupt" not in self.tokens:
            return "a patch takes its value from the other text; write a corrupt one."
        if self.aligned:
            return ""
        a, b = (self.tokens[run].shape[1] for run in ("clean", "corrupt"))
        return f"the clean text has {a} tokens and the corrupt one {b}; they must match token by token."

    def differing(self) -> list[int]:
        """Positions at which the two texts have different tokens; beyond the end of the shorter one all."""
        if "corrupt" not in self.tokens:
            return []
        a, b = (self.tokens[run][0].tolist() for run in ("clean", "corrupt"))
        return [at for at in range(max(len(a), len(b))) if at >= min(len(a), len(b)) or a[at] != b[at]]

    def check_aligned(self) -> None:
        """Raise InterpError, with the reason, where values of one run cannot be put into the other."""
        if self.unaligned:
            raise InterpError(f"{WHO}: {self.unaligned}")

    def pair(self) -> tuple[int, int]:
        """Answer and wrong answer. Raises InterpError, with the reason, where two runs cannot be compared by them."""
        if self.wrong is None:
            raise InterpError(self.why)
        return self.answer, self.wrong


def tokens_of(model: Transformer, text: str, which: str) -> Int[Tensor, "one position"]:
    """The tokens of a text. Raises TokenError for one that the model cannot take, InterpError for one that is too long for the page."""
    if not text:
        raise InterpError(f"{WHO}: the {which} text is empty. Write one, or take an example.")
    tokens = model.to_tokens(text)
    most = min(MOST_TOKENS, model.config.n_ctx)
    if tokens.shape[1] > most:
        raise InterpError(
            f"{WHO}: the {which} text has {tokens.shape[1]} tokens; this page takes up to {most}. Shorten it, or use the library."
        )
    return tokens


@torch.no_grad()
def read(model: Transformer, state: State) -> Asked:
    """What a state asks of a model.

    Raises:
        InterpError: an empty or too long text. TokenError: texts or answers that the model cannot take.
        ResultError: predictions that are no numbers.
    """
    texts = {"clean": state.clean} | ({"corrupt": state.corrupt} if state.corrupt else {})
    tokens = {which: tokens_of(model, text, which) for which, text in texts.items()}
    log_p = {}
    for which, rows in tokens.items():
        logits = model(rows)[0, -1]
        if not bool(torch.isfinite(logits.amax())):
            raise not_finite(model, rows, f"{WHO}: the prediction after the {which} text")
        log_p[which] = log_probabilities(logits)
    answer = model.to_single_token(state.answer) if state.answer else int(log_p["clean"].argmax())
    if not state.corrupt:
        why = "Only one text is given: write a corrupt one, which differs in what matters, to compare it with."
        return Asked(tokens, log_p, answer, model.to_single_token(state.wrong) if state.wrong else None, why)
    wrong = model.to_single_token(state.wrong) if state.wrong else int(log_p["corrupt"].argmax())
    if wrong == answer:
        said = model.need_tokenizer().pieces([answer])[0]
        why = f"Answer and wrong answer are both {said!r}, so nothing tells the runs apart. Give an answer and a wrong one."
        return Asked(tokens, log_p, answer, None, why)
    return Asked(tokens, log_p, answer, wrong)
