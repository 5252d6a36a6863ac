"""Heads by their weights: QK and OV circuits in factored form, copying, and which head reads what which other writes.

The weights are taken as they are. Where a model has norms whose gains are to count, fold them in first
(`interp.processing.fold_layer_norm`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from analyses.results import Variable, array, make, token_strings
from interp.errors import InterpError, nearest
from interp.factored import FactoredMatrix
from interp.model import Attention, Transformer

WAYS = ("Q", "K", "V")
ROWS = 64
"""Rows of the d_model x d_model Gram matrices of all heads at once."""


def ov_circuit(model: Transformer, layer: int) -> FactoredMatrix:
    """W_V W_O of each head of a layer [head, d_model, d_model]: what attending to a stream writes (Elhage et al. 2021)."""
    attention = _attention(model, layer)
    return FactoredMatrix(_each(model, attention.W_V), attention.W_O)


def qk_circuit(model: Transformer, layer: int) -> FactoredMatrix:
    """W_Q W_K^T of each head of a layer [head, d_model, d_model]: the score of a query's stream with a key's, before its scale."""
    attention = _attention(model, layer)
    return FactoredMatrix(attention.W_Q, _each(model, attention.W_K).mT)


@torch.no_grad()
def circuit_slice(
    model: Transformer, layer: int, head: int, *, circuit: str, rows: Sequence[int], columns: Sequence[int]
) -> Float[Tensor, "row column"]:
    """Some entries of the full OV circuit W_E W_V W_O W_U (tokens read x logits written) or QK circuit W_E W_Q W_K^T W_E^T (query x key).

    The whole would have a number for every two tokens and is never made.

    Raises:
        InterpError: another circuit, or a layer or head that is not there.
    """
    matrix = _one(model, layer, head, circuit)
    into = model.W_U[:, list(columns)] if circuit == "ov" else model.W_E[list(columns)].mT
    return (model.W_E[list(rows)] @ matrix.left) @ (matrix.right @ into)


@torch.no_grad()
def copying_scores(model: Transformer) -> Float[Tensor, "layer head"]:
    """Sum of the eigenvalues of the full OV circuit over the sum of their sizes (Elhage et al. 2021, "Copying / in-context learning").

    1: every eigenvalue is positive, so that attending to a token raises its own logit; -1: it lowers it. The eigenvalues are those of the
    d_head x d_head matrix W_O W_U W_E W_V, which are the ones that are not 0.
    """
    back = model.W_U @ model.W_E  # [d_model, d_model]
    found = []
    for layer in range(model.config.n_layers):
        values = ov_circuit(model, layer).then(back).eigenvalues()
        found.append(values.real.sum(-1) / values.abs().sum(-1))
    return torch.stack(found)


@torch.no_grad()
def singular_tokens(
    model: Transformer, layer: int, head: int, *, circuit: str = "ov", vectors: int = 5, top_k: int = 8
) -> xr.Dataset:
    """The largest singular directions of a head's circuit, as the tokens that lie furthest along them (Millidge and Black 2022).

    Of the OV circuit the left directions are what is read (through W_E), the right ones what is written (through W_U); of the QK
    circuit they are those of queries and of keys (both through W_E). The sign of a pair is chosen so that the token furthest along
    the left direction lies on its positive side.

    Returns:
        A Dataset over `pair` (singular values, largest first) and top: `value`, `left_token`, `left_dot`, `right_token`, `right_dot`.

    Raises:
        InterpError: another circuit, a layer or head that is not there, or numbers out of range.
    """
    matrix = _one(model, layer, head, circuit)
    if not 1 <= vectors <= model.config.d_head or not 1 <= top_k <= model.config.d_vocab:
        raise InterpError(
            f"singular_tokens: vectors must be 1 to {model.config.d_head} and top_k 1 to {model.config.d_vocab}."
        )
    u, values, v = (part.float() if part.dtype != torch.float64 else part for part in matrix.svd())
    read, written = model.W_E @ u[:, :vectors], (model.W_U.mT if circuit == "ov" else model.W_E) @ v[:, :vectors]
    sign = read.gather(0, read.abs().argmax(0, keepdim=True)).sign()
    variables: dict[str, Variable] = {"value": (("pair",), values[:vectors], "singular value", "1")}
    for name, dots in (("left", read * sign), ("right", written * sign)):
        top = dots.topk(top_k, dim=0)
        ids = array(top.indices.mT)
        variables[f"{name}_id"] = (("pair", "top"), ids, f"tokens along the {name} direction", "1")
        variables[f"{name}_token"] = (
            ("pair", "top"),
            token_strings(model, ids),
            f"tokens along the {name} direction",
            "1",
        )
        variables[f"{name}_dot"] = (("pair", "top"), top.values.mT, "inner product with the direction", "1")
    parameters = {"layer": layer, "head": head, "circuit": circuit, "vectors": vectors, "top_k": top_k}
    return make(
        "singular_tokens", variables, {"pair": np.arange(vectors)}, model=model, prompts={}, parameters=parameters
    )


@torch.no_grad()
def composition(model: Transformer, *, draws: int = 8, seed: int = 0) -> xr.Dataset:
    """How much each head reads, through its query, key or value, of what each head of a lower layer writes (Elhage et al. 2021).

    The score is |A B| / (|A| |B|) in Frobenius norms, with A the writer's OV circuit and B the reader's QK circuit, its transpose, or
    its OV circuit. Random matrices of the same shapes also overlap, so beside it stands their mean over `draws` pairs.

    Returns:
        A Dataset over way (Q, K, V), writer_layer, writer_head, layer, head: `composition`, NaN unless the reader's layer is above;
        `baseline` and `baseline_deviation` (way), mean and standard deviation of the score of random heads; `excess`, the score less
        the baseline.
    """
    config = model.config
    ov = [ov_circuit(model, layer) for layer in range(config.n_layers)]
    qk = [qk_circuit(model, layer) for layer in range(config.n_layers)]
    write = _stacked(ov)
    readers = {"Q": _stacked(qk), "K": _stacked([matrix.T for matrix in qk]), "V": write}
    scores = torch.stack([_overlaps(write, readers[way]) for way in WAYS])
    shape = (config.n_layers, config.n_heads)
    scores = scores.reshape(len(WAYS), *shape, *shape)
    at = torch.arange(config.n_layers, device=scores.device)
    below = (at[:, None] < at)[:, None, :, None]
    scores = scores.masked_fill(~below, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    random = _stacked_random(draws, config.d_model, config.d_head, generator)
    drawn = _overlaps(random, _stacked_random(draws, config.d_model, config.d_head, generator)).flatten().double()
    mean, deviation = (value.expand(len(WAYS)) for value in (drawn.mean(), drawn.std()))
    dims = ("way", "writer_layer", "writer_head", "layer", "head")
    return make(
        "head_composition",
        {
            "composition": (dims, scores, "composition score", "1"),
            "excess": (dims, scores - mean[0].to(scores), "composition score less that of random heads", "1"),
            "baseline": (("way",), mean, "mean score of random heads", "1"),
            "baseline_deviation": (("way",), deviation, "standard deviation of the score of random heads", "1"),
        },
        {
            "way": list(WAYS),
            **{f"{prefix}layer": np.arange(config.n_layers) for prefix in ("writer_", "")},
            **{f"{prefix}head": np.arange(config.n_heads) for prefix in ("writer_", "")},
        },
        model=model,
        prompts={},
        parameters={"draws": draws},
        seed=seed,
    )


def _overlaps(write: FactoredMatrix, read: FactoredMatrix) -> Float[Tensor, "writer reader"]:
    """|A B| / (|A| |B|) of every pair: |A B|^2 is the inner product of A^T A with B B^T, which are made a few rows at a time."""
    _, left_r = torch.linalg.qr(write.left)
    _, right_r = torch.linalg.qr(read.right.mT)
    rows, columns = left_r @ write.right, read.left @ right_r.mT  # [writer, inner, d_model], [reader, d_model, inner]
    total: Any = 0
    for start in range(0, rows.shape[-1], ROWS):
        block = slice(start, start + ROWS)
        first = rows[:, :, block].mT @ rows  # [writer, some of d_model, d_model]
        second = columns[:, block] @ columns.mT
        total = total + first.flatten(1) @ second.flatten(1).mT
    size = rows.flatten(1).norm(dim=1)[:, None] * columns.flatten(1).norm(dim=1)
    overlaps: Tensor = total.clamp(min=0).sqrt() / size
    return overlaps.masked_fill(size == 0, 0.0)


def _stacked(matrices: Sequence[FactoredMatrix]) -> FactoredMatrix:
    return FactoredMatrix(torch.cat([m.left for m in matrices]), torch.cat([m.right for m in matrices]))


def _stacked_random(count: int, d_model: int, d_head: int, generator: torch.Generator) -> FactoredMatrix:
    left, right = (torch.randn(count, *size, generator=generator) for size in ((d_model, d_head), (d_head, d_model)))
    return FactoredMatrix(left, right)


def _each(model: Transformer, weights: Float[Tensor, "kv_head d_model d_head"]) -> Float[Tensor, "head d_model d_head"]:
    return repeat(weights, "h d e -> (h g) d e", g=model.config.n_heads // model.config.kv_heads)


def _attention(model: Transformer, layer: int) -> Attention:
    if not 0 <= layer < model.config.n_layers:
        raise InterpError(f"layer {layer} is out of range: {model.name} has layers 0 to {model.config.n_layers - 1}.")
    attention = model.get_submodule(f"blocks.{layer}.attn")
    assert isinstance(attention, Attention)
    return attention


def _one(model: Transformer, layer: int, head: int, circuit: str) -> FactoredMatrix:
    if circuit not in ("ov", "qk"):
        raise InterpError(f"unknown circuit {circuit!r}. {nearest(circuit, ('ov', 'qk'))}")
    whole = (ov_circuit if circuit == "ov" else qk_circuit)(model, layer)
    if not 0 <= head < model.config.n_heads:
        raise InterpError(f"head {head} is out of range: {model.name} has heads 0 to {model.config.n_heads - 1}.")
    return FactoredMatrix(whole.left[head], whole.right[head])
