"""Pairs of every task."""

from itertools import chain, islice, zip_longest

from interp.errors import InterpError
from interp.tokenizer import Tokenizer
from interp.zoo.tasks import TASKS, Pair


def every_task(n: int, seed: int = 0, tokenizer: Tokenizer | None = None) -> list[Pair]:
    """`n` held-out pairs of all tasks in turn, so that they come from many templates; the same seed gives the same pairs.

    Args:
        tokenizer: as in `Task.sample`. A task that has too few pairs that suit it is made up for by the others.

    Raises:
        InterpError: fewer than one pair asked for, or so many are not found.
    """
    found = [task.suiting(n, seed, tokenizer).pairs for task in TASKS.values()]
    pairs = list(islice((pair for pair in chain(*zip_longest(*found)) if pair is not None), n))
    if len(pairs) < n:
        raise InterpError(f"tasks: only {len(pairs)} pairs suit this tokenizer; {n} were asked for.")
    return pairs
