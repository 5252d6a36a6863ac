"""Attention over the text, to explore: one self-contained piece of HTML."""

import base64
import itertools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from markupsafe import Markup

from analyses.plots.attention import is_causal
from analyses.plots.labels import place, visible
from analyses.report.pages import environment
from interp.errors import ResultError
from interp.files import write_whole
from interp.whole_numbers import takes_whole

LARGE = 2**23
"""Shares of attention beyond which they are kept in 64 steps in place of 256."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Viewer:
    """A viewer; a notebook shows it.

    Args:
        html: a fragment that loads nothing, to be put into any page.
        title: of a page of its own.
    """

    html: str
    title: str

    def _repr_html_(self) -> str:
        return self.html

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as a page of its own, whole or not at all. Raises InterpError where the file exists or cannot be written."""
        page = environment().get_template("viewer_page.html.j2").render(title=self.title, viewer=Markup(self.html))
        write_whole(Path(path), lambda temporary: temporary.write_text(page, encoding="utf-8"), overwrite=overwrite)


@takes_whole("prompt", "layer", "head")
def attention_viewer(
    result: xr.Dataset | Mapping[str, xr.Dataset], *, prompt: int = 0, layer: int = 0, head: int = 0
) -> Viewer:
    """Hover a token to see what it attends to, or who attends to it; thumbnails of all heads.

    A click or Enter locks a token; among the thumbnails the arrow keys go to the next head or layer, among the tokens to the next token;
    `d` turns the direction, `v` weighs the attention by the norm of what it moves, Escape unlocks. Weighted shares have one scale for all
    heads. The shares are kept in 256 steps (64 where there are very many), finer where they are small, packed, and unpacked head by head
    when shown.

    Args:
        result: of `analyses.attention_patterns`; or several of one model by name, such as of a clean and a corrupt prompt, to choose from.
        prompt: which of its prompts.
        layer, head: shown first.

    Raises:
        ResultError: a prompt, layer or head that is not there, attention that is no number, or results of models of unlike shape.
    """
    given = {"prompt": result} if isinstance(result, xr.Dataset) else dict(result)
    if not given:
        raise ResultError("attention_viewer: there is no result to show.")
    first = next(iter(given.values()))
    for one in given.values():
        place(one.sizes, "layer", layer)
        place(one.sizes, "head", head)
        if any(one.sizes[dim] != first.sizes[dim] for dim in ("layer", "head")):
            raise ResultError("attention_viewer: the results are of models of unlike shape; show each by itself.")
    shown = {name: _one_prompt(one, prompt) for name, one in given.items()}
    triangles = {name: _cells(one) for name, one in shown.items()}
    layers, heads = first.sizes["layer"], first.sizes["head"]
    count = layers * heads * sum(len(cells[0]) for cells in triangles.values())
    steps = 255 if count <= LARGE else 63
    texts = []
    for name, one in shown.items():
        pattern, weighted = one["pattern"].to_numpy(), one["value_weighted"].to_numpy()  # [layer, head, query, key]
        _check(pattern)
        norms, every = _norms(pattern, weighted), list(np.ndindex(layers, heads))
        texts.append(
            {
                "name": name,
                "tokens": [visible(str(token)) for token in one["query_token"].to_numpy()],
                "patterns": [_packed(pattern[at][triangles[name]], steps) for at in every],
                "norms": [[round(float(value), 4) for value in norms[at]] for at in every],
            }
        )
    data = {
        "layers": layers,
        "heads": heads,
        "causal": is_causal(first),
        "steps": steps,
        "most": max(float(one["value_weighted"].max()) for one in shown.values()) or 1.0,
        "texts": texts,
        "layer": layer,
        "head": head,
    }
    html = (
        environment()
        .get_template("viewer.html.j2")
        .render(
            name=f"attention-viewer-{next(_numbers)}",
            data=Markup(json.dumps(data).replace("<", "\\u003c")),  # no token can end the script
            layers=layers,
            heads=heads,
            texts=list(given),
        )
    )
    return Viewer(str(html), f"Attention of {first.attrs['model']}")


def _one_prompt(result: xr.Dataset, prompt: int) -> xr.Dataset:
    """A prompt without its padding."""
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    return one.isel(query=one["query_token_id"].to_numpy() >= 0, key=one["key_token_id"].to_numpy() >= 0)


def _cells(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The queries and keys between which there is attention."""
    length = one.sizes["query"]
    query, key = np.tril_indices(length) if is_causal(one) else np.indices((length, length)).reshape(2, -1)
    return query, key


def _check(pattern: Float[np.ndarray, "layer head query key"]) -> None:
    if not np.isfinite(pattern).all():
        where = np.argwhere(~np.isfinite(pattern))[0]
        raise ResultError(
            f"attention_viewer: the attention of head {where[0]}.{where[1]} from position {where[2]} is no number, so nothing can be shown."
        )


def _norms(
    pattern: Float[np.ndarray, "layer head query key"], weighted: Float[np.ndarray, "layer head query key"]
) -> Float[np.ndarray, "layer head key"]:
    """The norm that each key's share was weighted by, from the query that attends to it most."""
    query = pattern.argmax(2)[:, :, None]  # [layer, head, 1, key]
    share, product = (np.take_along_axis(values, query, axis=2)[:, :, 0] for values in (pattern, weighted))
    norms: np.ndarray = np.divide(product, share, out=np.zeros_like(share), where=share > 0)
    return norms


def _packed(shares: Float[np.ndarray, " share"], steps: int) -> str:
    """Square roots in whole steps: small shares, of which there are many, are kept finer than large ones."""
    whole = np.rint(np.sqrt(np.clip(shares, 0, 1)) * steps).astype(np.uint8)
    return base64.b64encode(zlib.compress(whole.tobytes(), 6)).decode()
