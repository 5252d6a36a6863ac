"""The head that is shown large: the one that was asked for, or one that its attention chooses."""

import numpy as np
import xarray as xr

from interp.errors import ResultError


def chosen_head(attention: xr.Dataset, answer_id: int | None = None) -> tuple[int, int]:
    """The head whose last position attends most to the answer's token in the prompt; where it is not there, most to any
    one earlier position but the first."""
    from_last = attention["pattern"][0, :, :, -1, :].to_numpy()
    keys = attention["key_token_id"][0].to_numpy()
    if answer_id is not None and (keys == answer_id).any():
        score = from_last[..., keys == answer_id].sum(-1)
    elif len(keys) > 2:
        score = from_last[..., 1:-1].max(-1)
    else:
        score = from_last.max(-1)
    layer, head = np.unravel_index(int(score.argmax()), score.shape)
    return int(layer), int(head)


def parse_head(text: str, attention: xr.Dataset) -> tuple[int, int]:
    """Layer and head of "3.1". Raises ResultError where it is no such pair or the model has no such head."""
    return head_of(text, attention.sizes["layer"], attention.sizes["head"])


def head_of(text: str, layers: int, heads: int) -> tuple[int, int]:
    """The same for a model of so many layers and heads."""
    layer, dot, head = text.partition(".")
    if (
        dot
        and (layer + head).isascii()
        and layer.isdecimal()
        and head.isdecimal()
        and int(layer) < layers
        and int(head) < heads
    ):
        return int(layer), int(head)
    raise ResultError(f"head {text!r} is not one of this model: give LAYER.HEAD, from 0.0 to {layers - 1}.{heads - 1}.")
