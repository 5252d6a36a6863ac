"""The derivative of the residual stream at one layer by the stream at a lower one, applied to many directions at once."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.entering import clean_streams
from interp.errors import ResultError
from interp.model import Transformer

Map = Callable[[Float[Tensor, "vector size"]], Float[Tensor, "vector size"]]
"""A linear map, applied to each of several vectors."""

TOGETHER = 64
"""Directions that are pushed through at once."""

RAREST, MOST = 1e-8, 24
"""Singular values below this share of the largest are taken for zero; iterations before giving up."""


def centred(x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Without its mean over the last axis, which the layer norm removes."""
    return x - x.mean(-1, keepdim=True)


def precise(model: Transformer) -> Transformer:
    """The model itself, or a copy in float32 of one in half precision, whose rounding would drown small growth."""
    return deepcopy(model).float() if model.dtype in (torch.float16, torch.bfloat16) else model


@dataclass(frozen=True, eq=False)
class Linear:
    """The mean-centred stream entering layer `stop` against that entering layer `start`, of one prompt.

    Args:
        stream: [position, d_model], what enters `start`.
    """

    model: Transformer
    stream: Float[Tensor, "position d_model"]
    start: int
    stop: int

    def jvp(self, tangents: Float[Tensor, "vector position d_model"]) -> Float[Tensor, "vector position d_model"]:
        """J v for each v: forward mode, the primal shared by all."""

        def one(tangent: Tensor) -> Tensor:
            pushed: Tensor = torch.func.jvp(self._run, (self.stream,), (tangent,))[1]
            return pushed

        with torch.no_grad(), self.model.explicit_attention():
            out: Tensor = torch.func.vmap(one, chunk_size=TOGETHER)(centred(tangents))
        return centred(out)

    def vjp(self, cotangents: Float[Tensor, "vector position d_model"]) -> Float[Tensor, "vector position d_model"]:
        """J^T u for each u: reverse mode."""
        with self.model.explicit_attention():
            pull = torch.func.vjp(self._run, self.stream)[1]
            out: Tensor = torch.func.vmap(lambda u: pull(u)[0], chunk_size=TOGETHER)(centred(cotangents))
        return centred(out.detach())

    def on_site(self, source: int, target: int) -> tuple[Map, Map]:
        """The block from one position to another, and its transpose, on vectors [vector, d_model]."""
        return (
            lambda v: self.jvp(_at(v, source, len(self.stream)))[:, target],
            lambda u: self.vjp(_at(u, target, len(self.stream)))[:, source],
        )

    def whole(self) -> tuple[Map, Map]:
        """From all positions to all, and its transpose, on vectors [vector, position * d_model]."""
        shape = self.stream.shape
        return (
            lambda v: self.jvp(v.reshape(-1, *shape)).flatten(1),
            lambda u: self.vjp(u.reshape(-1, *shape)).flatten(1),
        )

    def _run(self, stream: Tensor) -> Tensor:
        return self.model.run_blocks(stream[None], start_at_layer=self.start, stop_at_layer=self.stop)[0]


def linearised(model: Transformer, tokens: Tensor, start: int, stop: int) -> Linear:
    """At a prompt of token ids [position]."""
    return Linear(model, clean_streams(model, tokens[None])[start][0], start, stop)


def blocks(model: Transformer, tokens: Tensor, start: int = 0, stop: int | None = None) -> list[Linear]:
    """One for each block from `start` on, at a prompt of token ids [position]."""
    entering = clean_streams(model, tokens[None])
    last = model.config.n_layers if stop is None else stop
    return [Linear(model, entering[layer][0], layer, layer + 1) for layer in range(start, last)]


@dataclass(frozen=True)
class Singular:
    """The largest singular values of a map, and their vectors as rows.

    Args:
        values: [k], largest first.
        left, right: [k, size], unit vectors: the map takes `right` to `values * left`.
        residual: [k], the larger of |J v - s u| / s and |J^T u - s v| / s.
    """

    values: Float[Tensor, " k"]
    left: Float[Tensor, "k size"]
    right: Float[Tensor, "k source"]
    residual: Float[Tensor, " k"]


def top_singular(
    forward: Map, backward: Map, like: Float[Tensor, " source"], k: int, *, seed: int = 0, tolerance: float = 1e-3
) -> Singular:
    """Randomised SVD by block iteration (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.1).

    A block of k + 10 vectors, two iterations at least, then more until every residual is below `tolerance`.

    Args:
        like: gives size, dtype and device of the vectors that go in.

    Raises:
        ResultError: it does not converge, which happens where singular values beyond k are nearly as large.
    """
    count = min(k + 10, like.numel())
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, like.numel(), generator=generator, dtype=torch.float64).to(like)
    image = forward(start)
    for iteration in range(1, MOST + 1):
        image = forward(_orthonormal(backward(_orthonormal(image))))
        if iteration < 2:
            continue
        basis = _orthonormal(image)
        u, values, vh = torch.linalg.svd(backward(basis), full_matrices=False)  # rows: basis^T J
        found = values[:k] > RAREST * values[0]
        values, left, right = values[:k], (u.mT @ basis)[:k], vh[:k]
        size = values.clamp(min=torch.finfo(values.dtype).tiny)
        there = (forward(right) - values[:, None] * left).norm(dim=1) / size
        back = (backward(left) - values[:, None] * right).norm(dim=1) / size
        residual = torch.maximum(there, back).masked_fill(~found, 0.0)
        if float(residual.max()) < tolerance:
            return Singular(values, left, right, residual)
    raise ResultError(
        f"the {k} largest singular values did not converge in {MOST} iterations (residual {float(residual.max()):.1g}, wanted "
        f"{tolerance:g}). Ask for fewer or more of them, or load the model in float64."
    )


def _orthonormal(rows: Float[Tensor, "vector size"]) -> Float[Tensor, "vector size"]:
    basis: Tensor = torch.linalg.qr(rows.mT)[0]
    return basis.mT


def _at(
    vectors: Float[Tensor, "vector d_model"], position: int, length: int
) -> Float[Tensor, "vector position d_model"]:
    placed = vectors.new_zeros(len(vectors), length, vectors.shape[1])
    placed[:, position] = vectors
    return placed
