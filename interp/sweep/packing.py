"""Many rows of different lengths packed into one, for everything that a transformer does at each position by itself.

Only attention looks at several positions; there each row sees its own tokens, and before them those of the base run.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.config import ModelConfig
from interp.positions import alibi_bias
from interp.view import Attend, View


@dataclass(frozen=True)
class Group:
    """Rows that attend together: they begin at the same position and end at the same length.

    Args:
        rows: [row], their numbers.
        prompts: [row], the prompt that each runs.
        start, stop: their places in the pack; row by row, position by position.
        first, length: the positions `first` to `length - 1` are in the pack.
    """

    rows: Int[Tensor, " row"]
    prompts: Int[Tensor, " row"]
    start: int
    stop: int
    first: int
    length: int


class Pack:
    """Which position of which row stands where.

    Args:
        mask: [row, position], what is in the pack. Rows follow each other in `order`, their positions in order.

    Attributes:
        rows, positions: [place], of each place of the pack.
        slots: [row, position], the place of each; -1 where it is not in the pack.
    """

    def __init__(self, mask: Bool[Tensor, "row position"], order: Int[Tensor, " ordered"]) -> None:
        within, self.positions = mask[order].nonzero(as_tuple=True)
        self.rows = order[within]
        self.slots = torch.full(mask.shape, -1, dtype=torch.long, device=mask.device)
        self.slots[self.rows, self.positions] = torch.arange(len(self.rows), device=mask.device)

    def gather(self, before: "tuple[Pack, Tensor] | None", base: Tensor, prompts: Int[Tensor, " row"]) -> Tensor:
        """Values [place, ...]: from an earlier pack where it holds them, else from the base run's [prompt, position, ...]."""
        values = base[prompts[self.rows], self.positions]
        if before is None:
            return values
        pack, held = before
        slots = pack.slots[self.rows, self.positions]
        if len(held) and bool((slots >= 0).all()):
            return held[slots]
        there = (slots >= 0).nonzero()[:, 0]
        values[there] = held[slots[there]]
        return values


class PackedAttention:
    """Attention of packed rows whose positions run from a first one to the end of the prompt.

    Args:
        keys, values: [prompt, position, kv_head, d_head], those of the base run in this layer.
        max_bytes: bound on the keys and values that are put together at once.
        itemsize_per_pair: bytes for each query and key beside them, where scores are computed one by one.

    Attributes:
        group: the rows that attend just now.
    """

    def __init__(
        self,
        config: ModelConfig,
        groups: list[Group],
        keys: Tensor,
        values: Tensor,
        max_bytes: int,
        scores: bool,
    ) -> None:
        self._config, self._groups, self._keys, self._values = config, groups, keys, values
        self._max_bytes, self._scores = max_bytes, scores
        self.group = groups[0]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """What the heads read: [1, place, head, d_head]."""
        z = torch.empty_like(q)
        for group in self._parts():
            self.group = group
            new = slice(group.start, group.stop)
            count = group.length - group.first
            queries, own_k, own_v = (x[0, new].reshape(-1, count, *x.shape[2:]) for x in (q, k, v))
            keys, values = self._with_base(group, own_k, self._keys), self._with_base(group, own_v, self._values)
            z[0, new] = attend(queries, keys, values, self._view(group, q.dtype)).flatten(0, 1)
        return z

    def _with_base(self, group: Group, own: Tensor, base: Tensor) -> Tensor:
        """Own keys or values, behind those of the base run at earlier positions."""
        if group.first == 0:
            return own
        return torch.cat([base[group.prompts, : group.first], own], dim=1)

    def _view(self, group: Group, dtype: torch.dtype) -> View:
        keys = torch.arange(group.length, device=group.rows.device)
        queries = keys[group.first :]
        square_or_single = group.first == 0 or len(queries) == 1 or not self._config.causal
        allowed = None if square_or_single else (keys <= queries[:, None])[None, None]
        bias = None
        if self._config.positions == "alibi":
            bias = alibi_bias(self._config.n_heads, queries[None], keys[None], dtype)
        return View(queries[None], group.length, allowed, bias)

    def _parts(self) -> Iterator[Group]:
        """The groups, those cut in pieces whose keys and values would take too much memory."""
        for group in self._groups:
            count = group.length - group.first
            pairs = 3 * self._config.n_heads * count if self._scores else 0
            row = group.length * (2 * self._config.n_heads * self._config.d_head + pairs) * self._keys.element_size()
            size = max(1, self._max_bytes // row)
            for begin in range(0, len(group.rows), size):
                part = slice(begin, begin + size)
                rows = group.rows[part]
                start = group.start + begin * count
                yield Group(rows, group.prompts[part], start, start + len(rows) * count, group.first, group.length)
