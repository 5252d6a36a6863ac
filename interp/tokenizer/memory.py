"""Tokenizers that another library holds in memory."""

import copy
from collections.abc import Iterable

from tokenizers import Tokenizer as Backend

from interp.errors import TokenError
from interp.tokenizer.opening import opening_of
from interp.tokenizer.tokenizer import Tokenizer


def read_object(source: object, stops: Iterable[int], prepends: bool | None) -> Tokenizer:
    """See `Tokenizer.of`."""
    if isinstance(source, Tokenizer):
        return source
    backend = source if isinstance(source, Backend) else getattr(source, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise TokenError(
            f"cannot take a {type(source).__module__}.{type(source).__name__} as a tokenizer: expected one of interp, one of the "
            "tokenizers library, or a fast one of transformers (AutoTokenizer.from_pretrained gives these)."
        )
    backend = copy.deepcopy(backend)
    before = opening_of(backend)
    if len(before) > 1 and prepends is None:
        tokens = ", ".join(repr(backend.id_to_token(i)) for i in before)
        raise TokenError(f"this tokenizer puts several tokens before every text ({tokens}); only one is supported.")
    opening = getattr(source, "bos_token_id", None)
    bos = (before[0] if before else None) if prepends is None else opening if prepends else None
    return Tokenizer(backend, bos=bos, eos=getattr(source, "eos_token_id", None), opening=opening, stops=stops)
