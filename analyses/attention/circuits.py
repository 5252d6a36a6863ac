"""Heads by their weights: QK and OV circuits in factored form, copying, and which head reads what which other writes.

The weights are taken as they are. Where a model has norms whose gains are to count, fold them in first
(`interp.processing.fold_layer_norm`).
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.results import Variable, array, make, token_strings
from interp.errors import InterpError, ResultError, is_known, nearest
from interp.factored import FactoredMatrix, at_least_float32
from interp.model import Attention, Block, Transformer
from interp.spectra import eigenvalues, qr
from interp.whole_numbers import Wholes, takes_whole, whole_numbers

WAYS = ("Q", "K", "V")
ROWS = 64
"""Rows of the d_model x d_model Gram matrices of all heads at once."""

EMBEDDINGS = ("effective", "raw")
TOKENS = 4096
"""Tokens whose effective embedding is computed at once."""


@takes_whole("layer")
def ov_circuit(model: Transformer, layer: int) -> FactoredMatrix:
    """W_V W_O of each head of a layer [head, d_model, d_model]: what attending to a stream writes (Elhage et al. 2021)."""
    attention = _attention(model, layer)
    return FactoredMatrix(_each(model, attention.W_V), attention.W_O)


@takes_whole("layer")
def qk_circuit(model: Transformer, layer: int) -> FactoredMatrix:
    """W_Q W_K^T of each head of a layer [head, d_model, d_model]: the score of a query's stream with a key's, before its scale."""
    attention = _attention(model, layer)
    return FactoredMatrix(attention.W_Q, _each(model, attention.W_K).mT)


@torch.no_grad()
@takes_whole("layer", "head")
def circuit_slice(
    model: Transformer,
    layer: int,
    head: int,
    *,
    circuit: str,
    rows: Wholes,
    columns: Wholes,
    embedding: str = "effective",
) -> Float[Tensor, "row column"]:
    """Some entries of the full OV circuit E W_V W_O W_U (tokens read x logits written) or QK circuit E W_Q W_K^T E^T (query x key).

    The whole would have a number for every two tokens and is never made.

    Args:
        rows, columns: token ids.
        embedding: what E is, see `copying_scores`.

    Raises:
        InterpError: another circuit or embedding, or a layer or head that is not there. TokenError: an id that is not there.
    """
    matrix = _one(model, layer, head, circuit)
    first, second = (torch.tensor(_ids(model, given), device=model.device) for given in (rows, columns))
    read = _read(model, layer, first, embedding, "circuit_slice")
    into = model.W_U[:, second] if circuit == "ov" else _read(model, layer, second, embedding, "circuit_slice").mT
    left, right, read, into = (at_least_float32(part) for part in (matrix.left, matrix.right, read, into))
    return (read @ left) @ (right @ into)


def _ids(model: Transformer, given: Wholes) -> list[int]:
    return [model.to_single_token(one) for one in whole_numbers(given, "a token id")]


@torch.no_grad()
def effective_embedding(model: Transformer, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    """What the stream holds of each token after block 0, as far as the token alone decides it: its embedding, with what the first MLP makes
    of that. The heads of block 0 read nothing, and there is no position.

    Heads above block 0 read this, not W_E, and in many models the first MLP carries most of it: Wang et al. 2022 (arXiv 2211.00593, section
    3.1) take the stream after the first MLP for the copy score of name movers. In float32 at least.
    """
    block, config = model.get_submodule("blocks.0"), model.config
    assert isinstance(block, Block)
    if model.dtype in (torch.float16, torch.bfloat16):
        block = deepcopy(block).float()
    embedded = at_least_float32(model.W_E[tokens][None]) * config.embed_scale
    return block.finish(embedded, embedded.new_zeros(1, len(tokens), config.n_heads, config.d_head))[0]


def _check_embedding(embedding: str, who: str) -> None:
    if not is_known(embedding, EMBEDDINGS):
        raise InterpError(f"{who}: unknown embedding {embedding!r}. {nearest(embedding, EMBEDDINGS)}")


def _read(
    model: Transformer, layer: int, tokens: Int[Tensor, " token"], embedding: str, who: str
) -> Float[Tensor, "token d_model"]:
    """What heads of a layer read of tokens: raw, or as block 0 leaves it to those above; some at a time, for the hidden layer of all would
    be large."""
    _check_embedding(embedding, who)
    if embedding == "raw" or layer == 0:
        return model.W_E[tokens]
    return torch.cat([effective_embedding(model, some) for some in torch.split(tokens, TOKENS)])


@torch.no_grad()
def copying_scores(model: Transformer, *, embedding: str = "effective") -> Float[Tensor, "layer head"]:
    """Sum of the eigenvalues of the full OV circuit over the sum of their sizes (Elhage et al. 2021, "Copying / in-context learning").

    1: every eigenvalue is positive, so that attending to a token raises its own logit; -1: it lowers it. The eigenvalues are those of the
    d_head x d_head matrix W_O W_U E W_V, with E what the head reads of each token [vocab, d_model]; they are the ones that are not 0.

    Args:
        embedding: what E is: `effective`, of heads above block 0 the token's effective embedding (`effective_embedding`), of those in it
            W_E; or `raw`, W_E for all, as Elhage et al. have it for models without MLPs. Where the first MLP carries the embedding the raw
            score can have the wrong sign: in smalltown heads that raise the attended token by 6 logits score -0.98.

    Returns:
        The score of each head; NaN where its weights, or what it reads, are no numbers, or all 0.

    Raises:
        InterpError: another embedding.
    """
    _check_embedding(embedding, "copying_scores")
    raw = at_least_float32(model.W_U) @ at_least_float32(model.W_E)  # [d_model, d_model]
    above = raw if embedding == "raw" else _read_back(model)
    found = []
    for layer in range(model.config.n_layers):
        ov = ov_circuit(model, layer).then(raw if layer == 0 else above).precise()
        inner = ov.right @ ov.left  # [head, d_head, d_head], with the eigenvalues of the whole that are not 0
        wrong = ~torch.isfinite(inner).flatten(1).all(1)[:, None, None]
        values = eigenvalues(inner.masked_fill(wrong, 0.0), "copying_scores: an OV circuit")
        found.append(values.real.sum(-1) / values.abs().sum(-1))  # 0 / 0 where there is nothing
    return torch.stack(found)


def _read_back(model: Transformer) -> Float[Tensor, "d_model d_model"]:
    """W_U E of the effective embedding, some tokens at a time: the hidden layer of all tokens at once would be large."""
    back = at_least_float32(model.W_E.new_zeros(model.config.d_model, model.config.d_model))
    for tokens in torch.split(torch.arange(model.config.d_vocab, device=model.device), TOKENS):
        back = back + at_least_float32(model.W_U[:, tokens]) @ at_least_float32(effective_embedding(model, tokens))
    return back


@torch.no_grad()
@takes_whole("layer", "head", "vectors", "top_k")
def singular_tokens(
    model: Transformer,
    layer: int,
    head: int,
    *,
    circuit: str = "ov",
    vectors: int | None = None,
    top_k: int | None = None,
    embedding: str = "effective",
) -> xr.Dataset:
    """The largest singular directions of a head's circuit, as the tokens that lie furthest along them (Millidge and Black 2022).

    Of the OV circuit the left directions are what is read (through E), the right ones what is written (through W_U); of the QK
    circuit they are those of queries and of keys (both through E). The sign of a pair is chosen so that the token furthest along
    the left direction lies on its positive side.

    Args:
        vectors: how many pairs of directions; None is 5, or all of a narrower head.
        top_k: how many tokens along each; None is 8, or all of a smaller vocabulary.
        embedding: what E is, see `copying_scores`. A token whose embedding is not finite lies along no direction.

    Returns:
        A Dataset over `pair` (singular values, largest first) and top: `value`, `left_token`, `left_dot`, `right_token`, `right_dot`.

    Raises:
        InterpError: another circuit, a layer or head that is not there, or numbers out of range. ResultError: a circuit that is not finite.
    """
    matrix = _one(model, layer, head, circuit)
    rank = min(model.config.d_head, model.config.d_model)
    vectors = min(5, rank) if vectors is None else vectors
    top_k = min(8, model.config.d_vocab) if top_k is None else top_k
    if not 1 <= vectors <= rank or not 1 <= top_k <= model.config.d_vocab:
        raise InterpError(f"singular_tokens: vectors must be 1 to {rank} and top_k 1 to {model.config.d_vocab}.")
    try:
        u, values, v = matrix.svd()
    except ResultError as error:
        raise ResultError(f"singular_tokens: of head {layer}.{head}: {error}") from error
    every = torch.arange(model.config.d_vocab, device=model.device)
    embedded = at_least_float32(_read(model, layer, every, embedding, "singular_tokens"))
    read = embedded @ u[:, :vectors]
    written = (at_least_float32(model.W_U.mT) if circuit == "ov" else embedded) @ v[:, :vectors]
    sign = read.gather(0, read.abs().nan_to_num(0.0).argmax(0, keepdim=True)).sign()
    variables: dict[str, Variable] = {"value": (("pair",), values[:vectors], "singular value", "1")}
    for name, dots in (("left", read * sign), ("right", written * sign)):
        top = dots.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf).topk(top_k, dim=0)
        ids = array(top.indices.mT)
        variables[f"{name}_id"] = (("pair", "top"), ids, f"tokens along the {name} direction", "1")
        variables[f"{name}_token"] = (
            ("pair", "top"),
            token_strings(model, ids),
            f"tokens along the {name} direction",
            "1",
        )
        variables[f"{name}_dot"] = (("pair", "top"), top.values.mT, "inner product with the direction", "1")
    parameters = {
        "layer": layer,
        "head": head,
        "circuit": circuit,
        "vectors": vectors,
        "top_k": top_k,
        "embedding": embedding,
    }
    return make(
        "singular_tokens", variables, {"pair": np.arange(vectors)}, model=model, prompts={}, parameters=parameters
    )


@torch.no_grad()
@takes_whole("draws", "seed")
def composition(model: Transformer, *, draws: int = 8, seed: int = 0) -> xr.Dataset:
    """How much each head reads, through its query, key or value, of what each head of a lower layer writes (Elhage et al. 2021).

    The score is |A B| / (|A| |B|) in Frobenius norms, with A the writer's OV circuit and B the reader's QK circuit, its transpose, or
    its OV circuit. Random matrices of the same shapes also overlap, so beside it stands their mean over `draws` pairs.

    Returns:
        A Dataset over way (Q, K, V), writer_layer, writer_head, layer, head: `composition`, NaN unless the reader's layer is above;
        `baseline` and `baseline_deviation` (way), mean and standard deviation of the score of random heads; `excess`, the score less
        the baseline.
    """
    if draws < 1:
        raise InterpError(f"composition: draws must be at least 1, got {draws}.")
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
    """|A B| / (|A| |B|) of every pair: |A B|^2 is the inner product of A^T A with B B^T, which are made a few rows at a time. NaN where
    the weights of a head are no numbers."""
    (write, no_writer), (read, no_reader) = _zero_where_broken(write.precise()), _zero_where_broken(read.precise())
    _, left_r = qr(write.left, "composition: an OV circuit")
    _, right_r = qr(read.right.mT, "composition: the circuit of a head that reads")
    rows, columns = left_r @ write.right, read.left @ right_r.mT  # [writer, inner, d_model], [reader, d_model, inner]
    total: Any = 0
    for start in range(0, rows.shape[-1], ROWS):
        block = slice(start, start + ROWS)
        first = rows[:, :, block].mT @ rows  # [writer, some of d_model, d_model]
        second = columns[:, block] @ columns.mT
        total = total + first.flatten(1) @ second.flatten(1).mT
    size = rows.flatten(1).norm(dim=1)[:, None] * columns.flatten(1).norm(dim=1)
    overlaps: Tensor = total.clamp(min=0).sqrt() / size
    return overlaps.masked_fill(size == 0, 0.0).masked_fill(no_writer[:, None] | no_reader, torch.nan)


def _zero_where_broken(matrix: FactoredMatrix) -> tuple[FactoredMatrix, Bool[Tensor, " head"]]:
    """The matrices of heads, 0 for those with a factor that is not finite; and which those are."""
    broken = ~(torch.isfinite(matrix.left).flatten(1).all(1) & torch.isfinite(matrix.right).flatten(1).all(1))
    left, right = (part.masked_fill(broken[:, None, None], 0.0) for part in (matrix.left, matrix.right))
    return FactoredMatrix(left, right), broken


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
    if not is_known(circuit, ("ov", "qk")):
        raise InterpError(f"unknown circuit {circuit!r}. {nearest(circuit, ('ov', 'qk'))}")
    whole = (ov_circuit if circuit == "ov" else qk_circuit)(model, layer)
    if not 0 <= head < model.config.n_heads:
        raise InterpError(f"head {head} is out of range: {model.name} has heads 0 to {model.config.n_heads - 1}.")
    return FactoredMatrix(whole.left[head], whole.right[head])
