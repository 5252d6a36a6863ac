"""Small things that notebooks import: names of hook points, losses, what a prompt is answered with."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from rich.console import Console
from torch import Tensor

from interp.errors import HookError, TokenError
from interp.metrics import log_probabilities, pick, rank
from interp.transformer_lens.slices import Slice, SliceInput
from interp.whole_numbers import whole_number

if TYPE_CHECKING:
    from interp.transformer_lens.model import HookedTransformer

__all__ = [
    "Slice",
    "SliceInput",
    "get_act_name",
    "get_device",
    "lm_accuracy",
    "lm_cross_entropy_loss",
    "test_prompt",
    "to_numpy",
]

ALIASES = {
    "attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v",
    "mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post",
}  # fmt: skip
KINDS = {"a": "attn", "m": "mlp", "b": "", "block": "", "blocks": "", "attention": "attn"}
OF_ATTENTION = {"k", "v", "q", "z", "rot_k", "rot_q", "result", "pattern", "attn_scores"}
OF_MLP = {"pre", "post", "mid", "pre_linear"}
OF_NORMS = {"scale", "normalized"}


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full hook name of a short one: `get_act_name("k", 6, "a")` is `blocks.6.attn.hook_k`.

    Args:
        layer: None for points outside of the blocks; one may also stand in the name, as in `pre3mlp`.
        layer_type: `attn` or `mlp` (or `a`, `m`), or a norm, `ln1` or `ln2`.

    Raises:
        HookError: a point of a norm in a layer, without which norm.
    """
    if not isinstance(name, str) or not name:
        raise HookError(f"get_act_name: a hook point is named by text; got {name!r}.")
    if name.startswith("hook_") or ("." in name and layer is None and layer_type is None):
        return name
    if found := re.fullmatch(r"([a-z_]+)(\d+)([a-z]?.*)", name):
        name, layer, layer_type = found[1], int(found[2]), found[3] or layer_type
    kind = KINDS.get(layer_type or "", layer_type or "")
    name = ALIASES.get(name, name)
    if name in OF_ATTENTION:
        kind = "attn"
    elif name in OF_MLP:
        kind = "mlp"
    elif name not in OF_NORMS:
        kind = ""
    if layer is None:
        return f"ln_final.hook_{name}" if name in OF_NORMS else f"hook_{name}"
    if name in OF_NORMS and not kind:
        raise HookError(f"{name!r} of layer {layer}: say of which norm, 'ln1' or 'ln2'.")
    return f"blocks.{layer}.{f'{kind}.' if kind else ''}hook_{name}"


def get_device() -> str:
    """The accelerator that torch finds here, or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor, array, list or number as an array, detached and on the CPU."""
    if not isinstance(tensor, Tensor):
        return np.array(tensor)
    kept = tensor.detach().cpu()
    return (kept.float() if kept.dtype == torch.bfloat16 else kept).numpy()  # numpy has no bfloat16


def lm_cross_entropy_loss(
    logits: Float[Tensor, "batch position vocab"],
    tokens: Integer[Tensor, "batch position"],
    attention_mask: Integer[Tensor, "batch position"] | Bool[Tensor, "batch position"] | None = None,
    per_token: bool = False,
) -> Tensor:
    """Minus the log-probability of each next token, nats: their mean, or [batch, position - 1].

    Args:
        attention_mask: 0 at padding; what is predicted from or at it counts nothing, and is 0 by token.
    """
    mask = None if attention_mask is None else _mask_of(attention_mask, tokens)
    tokens = tokens if mask is None else tokens.masked_fill(~mask, 0)
    _check_fit(logits, tokens)
    losses = -pick(log_probabilities(logits[:, :-1]), tokens[:, 1:])
    if mask is None:
        return losses if per_token else losses.mean()
    counted = mask[:, :-1] & mask[:, 1:]
    losses = losses.masked_fill(~counted, 0.0)
    return losses if per_token else losses.sum() / counted.sum()


def lm_accuracy(
    logits: Float[Tensor, "batch position vocab"], tokens: Integer[Tensor, "batch position"], per_token: bool = False
) -> Tensor:
    """Whether each next token is the most probable one: the share, or [batch, position - 1] of truth values."""
    _check_fit(logits, tokens)
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    return right if per_token else right.float().mean()


def _mask_of(given: Any, tokens: Any) -> Tensor:
    """Where a token counts. Raises TokenError for a mask that does not fit the tokens."""
    if not isinstance(given, Tensor) or not isinstance(tokens, Tensor) or given.shape != tokens.shape:
        mask, ids = (tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in (given, tokens))
        raise TokenError(f"attention_mask must be a tensor that fits the tokens; got {mask} for tokens of {ids}.")
    return given.bool()


def _check_fit(logits: Any, tokens: Any) -> None:
    """Raise TokenError where tokens are not the ones that logits [batch, position, vocab] were computed from."""
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise TokenError("logits must be a tensor [batch, position, vocab].")
    if not isinstance(tokens, Tensor) or tokens.shape != logits.shape[:2] or tokens.is_floating_point():
        found = (
            f"{tokens.dtype} of shape {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        )
        raise TokenError(f"tokens must be ids of shape {tuple(logits.shape[:2])}, as the logits; got {found}.")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < logits.shape[-1]:
        raise TokenError(f"tokens must be ids from 0 to {logits.shape[-1] - 1}, of which there are logits.")


def test_prompt(
    prompt: str,
    answer: str | Sequence[str],
    model: "HookedTransformer",
    prepend_space_to_answer: bool = True,
    print_details: bool = True,
    prepend_bos: bool | None = None,
    top_k: int = 10,
) -> None:
    """Print how a prompt is continued, and where the answer stands: its rank (0 is the first), logit and probability at each token.

    Args:
        answer: one, or several that are compared at the first token.
        prepend_space_to_answer: where it begins with none.

    Raises:
        TokenError: an answer without tokens, a `top_k` that is no whole number.
    """
    top_k = whole_number(top_k, "test_prompt: top_k", least=0)
    console = Console(highlight=False, markup=False, width=120)
    answers: list[Any] = [answer] if isinstance(answer, str) or not isinstance(answer, Sequence) else list(answer)
    if not isinstance(prompt, str) or not all(isinstance(one, str) for one in answers):
        raise TokenError("test_prompt: give one prompt, and an answer or several, as text.")
    spaced = [f" {one}" if prepend_space_to_answer and not one.startswith(" ") else one for one in answers]
    asked = model.to_tokens(prompt, prepend_bos=prepend_bos)
    ids = [model.to_tokens(one, prepend_bos=False)[0] for one in spaced]
    if not ids or any(len(one) == 0 for one in ids):
        raise TokenError("test_prompt: give an answer of at least one token.")
    console.print(f"Tokenized prompt: {model.to_str_tokens(asked)}")
    console.print(
        f"Tokenized answer: {model.to_str_tokens(ids[0]) if len(ids) == 1 else [model.to_str_tokens(one) for one in ids]}"
    )
    steps = ids[0] if len(ids) == 1 else ids[0][:1]
    with torch.no_grad():
        logits = model(torch.cat([asked[0], steps])[None])[0]
    found: list[list[tuple[str, int]]] = []
    for step in range(len(steps)):
        here = logits[asked.shape[1] - 1 + step]
        compared = torch.stack([steps[step]]) if len(ids) == 1 else torch.stack([one[0] for one in ids])
        ranks = [int(rank(here, token)) for token in compared]
        p = here.softmax(-1)
        found.append([(model.tokenizer_text(int(token)), at) for token, at in zip(compared, ranks, strict=True)])
        for token, at in zip(compared.tolist(), ranks, strict=True):
            console.print(
                f"Answer {model.tokenizer_text(token)!r}: rank {at}, logit {here[token]:.2f}, probability {p[token]:.2%}"
            )
        if print_details:
            for place, token in enumerate(here.topk(min(top_k, len(here))).indices.tolist()):
                console.print(
                    f"  {place}: {model.tokenizer_text(token)!r}, logit {here[token]:.2f}, probability {p[token]:.2%}"
                )
    console.print(f"Ranks of the answer tokens: {found}")


test_prompt.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test
