"""The derivative of the residual stream at one layer by the stream at a lower one, applied to many directions at once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.cascade.entering import Clean
from interp.errors import ResultError
from interp.geometry import basis, seen
from interp.model import Transformer
from interp.spectra import qr, svd
from interp.sweep.tangents import Linearised

Map = Callable[[Float[Tensor, "vector size"]], Float[Tensor, "vector size"]]
"""A linear map, applied to each of several vectors."""

RAREST, MOST = 1e-8, 24
"""Singular values below this share of the largest are taken for zero; iterations before giving up."""


@dataclass(frozen=True, eq=False)
class Linear:
    """The stream entering layer `stop` against that entering layer `start`, of one prompt, as far as readers see it (`interp.geometry`).

    Args:
        run: the prompt's run.
    """

    run: Linearised
    start: int
    stop: int

    @property
    def stream(self) -> Float[Tensor, "position d_model"]:
        """What enters `start`."""
        return self.run.entering[self.start]

    def jvp(self, tangents: Float[Tensor, "vector position d_model"]) -> Float[Tensor, "vector position d_model"]:
        """J v for each v."""
        return self._seen(self.run.push(self._seen(tangents), 0, self.start, self.stop))

    def vjp(self, cotangents: Float[Tensor, "vector position d_model"]) -> Float[Tensor, "vector position d_model"]:
        """J^T u for each u."""
        return self._seen(self.run.pull(self._seen(cotangents), 0, self.start, self.stop))

    def spread(
        self, position: int, vectors: Float[Tensor, "vector d_model"]
    ) -> Float[Tensor, "vector position d_model"]:
        """J v at all positions for each v at one position."""
        first = position if self.run.model.config.causal else 0
        pushed = self.run.push(
            placed_at(self._seen(vectors), position - first, len(self.run) - first), first, self.start, self.stop
        )
        return torch.cat([pushed.new_zeros(len(pushed), first, pushed.shape[2]), self._seen(pushed)], dim=1)

    def on_site(self, source: int, target: int) -> tuple[Map, Map]:
        """The block from one position to another, and its transpose, on vectors [vector, d_model]; only positions between are carried."""
        causal = self.run.model.config.causal
        first, last = (source, target + 1) if causal else (0, len(self.run))

        def forward(v: Tensor) -> Tensor:
            pushed = self.run.push(placed_at(self._seen(v), source - first, last - first), first, self.start, self.stop)
            return self._seen(pushed[:, target - first])

        def backward(u: Tensor) -> Tensor:
            at, count = (target, 1) if causal else (0, last)
            pulled = self.run.pull(placed_at(self._seen(u), target - at, count), at, self.start, self.stop, first)
            return self._seen(pulled[:, source - first])

        return forward, backward

    def dense(self, source: int, target: int) -> Float[Tensor, "seen seen"]:
        """That block as a matrix, what leaves by what enters, on orthonormal directions of what is seen (`interp.geometry.basis`)."""
        wide = torch.promote_types(self.stream.dtype, torch.float32)
        rows = basis(self.run.model.config, self.stream).to(wide)
        return rows @ self.on_site(source, target)[0](rows).mT

    def among(self, kept: Bool[Tensor, " position"]) -> tuple[Map, Map]:
        """From some positions to the same, and its transpose, on vectors [vector, kept * d_model]."""
        first = int(kept.to(torch.int8).argmax()) if self.run.model.config.causal else 0
        chosen = kept[first:]

        def placed(flat: Tensor) -> Tensor:
            vectors = flat.new_zeros(len(flat), len(chosen), self.stream.shape[1])
            vectors[:, chosen] = self._seen(flat.reshape(len(flat), -1, self.stream.shape[1]))
            return vectors

        def forward(v: Tensor) -> Tensor:
            return self._seen(self.run.push(placed(v), first, self.start, self.stop)[:, chosen]).flatten(1)

        def backward(u: Tensor) -> Tensor:
            return self._seen(self.run.pull(placed(u), first, self.start, self.stop, first)[:, chosen]).flatten(1)

        return forward, backward

    def _seen(self, vectors: Tensor) -> Tensor:
        return seen(self.run.model.config, vectors)


def linearised(model: Transformer, tokens: Tensor, start: int, stop: int) -> Linear:
    """At a prompt of token ids [position]."""
    return Linear(Clean.of(model, tokens[None]).linearised(0), start, stop)


def on_site_blocks(
    run: Linearised, position: int, start: int = 0, stop: int | None = None
) -> Iterator[Float[Tensor, "seen seen"]]:
    """Each block as a matrix from a position to itself, in float64."""
    return (linear.dense(position, position).double() for linear in blocks(run, start, stop))


def product(matrices: Iterable[Float[Tensor, "seen seen"]]) -> Float[Tensor, "seen seen"]:
    """Of maps of which the first acts first."""
    return reduce(lambda whole, matrix: matrix @ whole, matrices)


def blocks(run: Linearised, start: int = 0, stop: int | None = None) -> list[Linear]:
    """One for each block from `start` on."""
    last = run.model.config.n_layers if stop is None else stop
    return [Linear(run, layer, layer + 1) for layer in range(start, last)]


@dataclass(frozen=True)
class Singular:
    """The largest singular values of a map, and their vectors as rows.

    Args:
        values: [k], largest first.
        left, right: [vector, size], unit vectors of the k largest, or of the first of them: the map takes `right` to `values * left`.
        residual: [k], the larger of |J v - s u| / s and |J^T u - s v| / s.
    """

    values: Float[Tensor, " k"]
    left: Float[Tensor, "vector size"]
    right: Float[Tensor, "vector source"]
    residual: Float[Tensor, " k"]


def top_singular(
    forward: Map, backward: Map, like: Float[Tensor, " source"], k: int, *, seed: int = 0, tolerance: float = 1e-3
) -> Singular:
    """The largest singular values in a block Krylov space (Musco and Musco 2015, arXiv 1504.05477), which also tells apart those of a flat
    spectrum: a block of k + 10 vectors, then what the map's square makes of it, until every residual is below `tolerance`, or the space is
    the whole one and the values are exact.

    Args:
        like: gives size, dtype and device of the vectors that go in.

    Raises:
        ResultError: it does not converge, which happens where very many singular values beyond k are nearly as large.
    """
    count = min(k + 10, like.numel())
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, like.numel(), generator=generator, dtype=torch.float64).to(like)
    blocks = [_orthonormal(forward(start))]
    images = [backward(blocks[0])]
    for _ in range(MOST):
        space, image = torch.cat(blocks), torch.cat(images)
        u, values, right = svd(image, "cascade: the derivative")  # rows: space J
        found = values[:k] > RAREST * values[0]
        values, left, right = values[:k], (u.mT @ space)[:k], right[:k]
        size = values.clamp(min=torch.finfo(values.dtype).tiny)
        there = (forward(right) - values[:, None] * left).norm(dim=1) / size
        back = (backward(left) - values[:, None] * right).norm(dim=1) / size
        residual = torch.maximum(there, back).masked_fill(~found, 0.0)
        if float(residual.max()) < tolerance:
            return Singular(values, left, right, residual)
        more = _beyond(forward(images[-1]), space)
        if len(more) == 0:
            break
        blocks.append(more)
        images.append(backward(more))
    raise ResultError(
        f"the {k} largest singular values did not converge in {MOST} iterations (residual {float(residual.max()):.1g}, wanted "
        f"{tolerance:g}). Ask for fewer or more of them, or load the model in float64."
    )


def _beyond(rows: Float[Tensor, "vector size"], space: Float[Tensor, "held size"]) -> Float[Tensor, "new size"]:
    """Orthonormal vectors of what the rows have outside of an orthonormal space; none where the rounding of what lies in it is all."""
    size = rows.norm(dim=1).max()
    for _ in range(2):  # twice is enough (Parlett 1980)
        rows = rows - (rows @ space.mT) @ space
    _, values, vh = svd(rows, "cascade: the derivative")
    new: Tensor = vh[values > 100 * torch.finfo(rows.dtype).eps * size][: space.shape[1] - len(space)]
    return new


def _orthonormal(rows: Float[Tensor, "vector size"]) -> Float[Tensor, "vector size"]:
    basis: Tensor = qr(rows.mT, "cascade: the derivative")[0]
    return basis.mT


def placed_at(
    vectors: Float[Tensor, "vector d_model"], position: int, length: int
) -> Float[Tensor, "vector position d_model"]:
    """Vectors of one position, and zero at all others of so many."""
    placed = vectors.new_zeros(len(vectors), length, vectors.shape[1])
    placed[:, position] = vectors
    return placed
