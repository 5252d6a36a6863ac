"""`transformer_lens.patching`: every cell of a grid is a run of the corrupted prompts with one activation of the clean run put in.

Where the model has no hooks attached and the cells are of one of the six kinds below, all of them run as one sweep; of each, only the
positions whose logits the metric reads are unembedded. Else each cell is a run of its own, with equal numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

import interp
from interp.errors import ConfigError, HookError, nearest
from interp.hooks import attached_hooks
from interp.transformer_lens.model import HookedTransformer
from interp.transformer_lens.utils import get_act_name
from interp.whole_numbers import whole_number

Metric = Callable[[Float[Tensor, "batch position vocab"]], Any]
Setter = Callable[[Tensor, Sequence[int], Tensor], Tensor]
Index = tuple[int, ...]

MAX_LOGITS = 64 * 2**20
"""Numbers of logits that are held at once."""


def layer_pos_patch_setter(corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor) -> Tensor:
    """At index (layer, position)."""
    _, pos = index
    corrupted_activation[:, pos] = clean_activation[:, pos]
    return corrupted_activation


def layer_pos_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """At index (layer, position, head)."""
    _, pos, head = index
    corrupted_activation[:, pos, head] = clean_activation[:, pos, head]
    return corrupted_activation


def layer_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """At index (layer, head), all positions."""
    _, head = index
    corrupted_activation[:, :, head] = clean_activation[:, :, head]
    return corrupted_activation


def layer_head_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """At index (layer, head), of attention."""
    _, head = index
    corrupted_activation[:, head] = clean_activation[:, head]
    return corrupted_activation


def layer_head_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """At index (layer, head, destination)."""
    _, head, dest = index
    corrupted_activation[:, head, dest] = clean_activation[:, head, dest]
    return corrupted_activation


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """At index (layer, head, destination, source)."""
    _, head, dest, src = index
    corrupted_activation[:, head, dest, src] = clean_activation[:, head, dest, src]
    return corrupted_activation


def make_df_from_ranges(column_max_ranges: Sequence[int], column_names: Sequence[str]) -> pd.DataFrame:
    """Every combination of indices, the last running fastest."""
    return pd.DataFrame(list(product(*map(range, column_max_ranges))), columns=list(column_names))


@torch.no_grad()
def generic_activation_patch(
    model: HookedTransformer,
    corrupted_tokens: Int[Tensor, "*batch position"],
    clean_cache: Mapping[str, Tensor],
    patching_metric: Metric,
    patch_setter: Setter,
    activation_name: str,
    index_axis_names: Sequence[str] | None = None,
    index_df: pd.DataFrame | None = None,
    return_index_df: bool = False,
) -> Any:
    """A metric of the corrupted run for each activation that is put in from the clean one.

    Args:
        clean_cache: of the clean run, with that activation of every layer.
        patching_metric: from logits [batch, position, vocab] to a number.
        patch_setter: puts part of the clean activation into the corrupted, as an index says whose first number is the layer.
        activation_name: short, such as `z`.
        index_axis_names: what is gone through: `layer`, `pos`, `head` (or `head_index`), `src_pos`, `dest_pos`. The result has these axes.
        index_df: instead, a table with an index in each row; the result has an axis for its rows.
        return_index_df: return the table too.

    Raises:
        ConfigError: both or neither of the two. HookError: an activation that the cache or the model does not have.
    """
    if (index_axis_names is None) == (index_df is None):
        raise ConfigError("generic_activation_patch: give index_axis_names or index_df, one of the two.")
    corrupted_tokens = _checked(model, corrupted_tokens, clean_cache, patching_metric, patch_setter)
    if index_df is None:
        assert index_axis_names is not None
        index_axis_names = [index_axis_names] if isinstance(index_axis_names, str) else list(index_axis_names)
        if not index_axis_names or index_axis_names[0] != "layer":
            raise ConfigError("generic_activation_patch: the first axis must be 'layer'.")
        ranges = [_range(name, model, corrupted_tokens, activation_name) for name in index_axis_names]
        table, shape = make_df_from_ranges(ranges, index_axis_names), tuple(ranges)
    else:
        table, shape = index_df, (len(index_df),)
    cells = [_index(row) for row in table.to_numpy().tolist()]
    if (wanted := INDICES.get(patch_setter)) is not None and any(len(cell) != wanted for cell in cells):
        raise ConfigError(
            f"patching: an index of this setter has {wanted} numbers, the layer first; got {len(cells[0])}."
        )
    grid = _Grid(model, corrupted_tokens, clean_cache, patching_metric, patch_setter, activation_name)
    values = torch.tensor(list(grid.values(cells)), device=model.device).reshape(shape)
    return (values, table) if return_index_df else values


def _checked(model: Any, tokens: Any, cache: Any, metric: Any, setter: Any) -> Tensor:
    """The corrupted prompts, with their rows. Raises ConfigError for arguments of another kind."""
    if not isinstance(model, HookedTransformer):
        raise ConfigError(f"patching: the model must be a HookedTransformer, got {type(model).__name__}.")
    if not isinstance(tokens, Tensor) or tokens.ndim not in (1, 2):
        raise ConfigError(
            "patching: the corrupted prompts must be a tensor of ids [batch, position]; see model.to_tokens."
        )
    if not isinstance(cache, Mapping):
        raise ConfigError(f"patching: the clean cache must be one of run_with_cache, got {type(cache).__name__}.")
    if not callable(metric) or not callable(setter):
        raise ConfigError("patching: the metric must be a function from logits to a number, the setter a function too.")
    return tokens if tokens.ndim == 2 else tokens[None]


def _index(row: Sequence[Any]) -> Index:
    """A row of a table. Raises ConfigError where it is not of whole numbers."""
    whole = [int(one) if isinstance(one, float) and one.is_integer() else one for one in row]
    return tuple(whole_number(one, "patching: an index", ConfigError) for one in whole)


def _number(value: Any) -> float:
    """What a metric returned. Raises ConfigError where it is not one number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
        raise ConfigError(f"patching: the metric must return one number, got {found}.") from error


def _range(axis: str, model: HookedTransformer, tokens: Tensor, activation_name: str) -> int:
    cfg = model.cfg
    shares = cfg.n_key_value_heads is not None and activation_name in ("k", "v", "rot_k", "k_input", "v_input")
    heads = (cfg.n_key_value_heads if shares else cfg.n_heads) or cfg.n_heads
    known = {"layer": cfg.n_layers, "head": heads, "head_index": heads}
    known |= dict.fromkeys(("pos", "src_pos", "dest_pos"), tokens.shape[-1])
    if axis not in known:
        raise ConfigError(f"generic_activation_patch: {axis!r} is no axis; there are {', '.join(known)}.")
    return known[axis]


@dataclass(frozen=True, eq=False)
class _Read:
    """The logits at some positions: [row, read, vocab]."""

    at: list[int]
    columns: slice

    def positions(self, length: int, prompt: int) -> list[int]:
        return self.at

    def read(self, model: interp.Transformer, normed: Tensor, prompts: Tensor) -> Tensor:
        return model.to_logits(normed, self.columns)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Cells of one kind."""

    model: HookedTransformer
    tokens: Tensor
    clean: Mapping[str, Tensor]
    metric: Metric
    setter: Setter
    point: str

    def values(self, cells: list[Index]) -> Iterator[float]:
        """The metric of each cell."""
        setters = SWEPT if self._fits(cells) else {}
        if self.setter not in setters:
            yield from map(self.alone, cells)
            return
        logits = self.model(self.tokens)
        read, (batch, length, vocab) = positions_read(self.metric, logits), logits.shape
        size = max(1, MAX_LOGITS // (batch * max(len(read), 1) * vocab))
        for start in range(0, len(cells), size):
            some = cells[start : start + size]
            rows = [interp.Row([setters[self.setter](self, cell, row)], row) for cell in some for row in range(batch)]
            swept = interp.sweep(
                self.model.core, self.tokens, rows, _Read(read or [length - 1], slice(0, vocab))
            ).values
            for cell, found in zip(some, swept.reshape(len(some), batch, *swept.shape[1:]), strict=True):
                whole = logits.new_full(logits.shape, torch.nan)  # what the metric does not read
                whole[:, read or [length - 1]] = found
                value = _number(self.metric(whole))
                yield value if value == value else self.alone(cell)

    def _fits(self, cells: list[Index]) -> bool:
        """Whether a sweep can run the cells: it takes no hooks, and clean activations of the same shape."""
        core, tokens = self.model.core, self.tokens
        if attached_hooks(core) or tokens.ndim != 2 or not cells:
            return False
        found = self.activation(cells[0][0])
        attention = "key" in self.axes(cells[0][0])
        shape = (found.shape[0], found.shape[2 if attention else 1])
        return shape == tuple(tokens.shape)

    def name(self, layer: int) -> str:
        return get_act_name(self.point, layer)

    def axes(self, layer: int) -> tuple[str, ...]:
        name = self.model.names(self.name(layer), "patching")[0]
        return self.model.core.hook_points[name].axes

    def activation(self, layer: int) -> Tensor:
        """Of the clean run, with its rows."""
        if self.name(layer) not in self.clean:
            raise HookError(
                f"patching: {self.name(layer)} is not in the clean cache. {nearest(self.name(layer), self.clean)}"
            )
        value = self.clean[self.name(layer)]
        if value.ndim < len(self.axes(layer)):
            value = value[None]
        if len(value) not in (1, len(self.tokens)):
            raise HookError(
                f"patching: {self.name(layer)} has {len(value)} rows in the clean cache, the corrupted prompts {len(self.tokens)}."
            )
        return value.expand(len(self.tokens), *value.shape[1:])

    def alone(self, cell: Index) -> float:
        """The metric of one cell, by a run of its own."""

        def put(value: Tensor, hook: Any) -> Tensor:
            return self.setter(value, cell, self.activation(cell[0]))

        return _number(self.metric(self.model.run_with_hooks(self.tokens, fwd_hooks=[(self.name(cell[0]), put)])))

    def patch(self, cell: Index, row: int, positions: list[int] | None, heads: int | None) -> interp.Intervention:
        source = self.activation(cell[0])[row]
        return interp.Intervention(self.name(cell[0]), interp.Patch(source), positions, heads=heads)

    def patch_source(self, cell: Index, row: int) -> interp.Intervention:
        """One number of the pattern."""
        layer, head, dest, src = cell
        number = self.activation(layer)[row, head, dest, src]

        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[..., src] = number
            return value

        return interp.Intervention(self.name(layer), interp.Apply(put), [dest], heads=head)


SWEPT: dict[Setter, Callable[[_Grid, Index, int], interp.Intervention]] = {
    layer_pos_patch_setter: lambda grid, cell, row: grid.patch(cell, row, [cell[1]], None),
    layer_pos_head_vector_patch_setter: lambda grid, cell, row: grid.patch(cell, row, [cell[1]], cell[2]),
    layer_head_vector_patch_setter: lambda grid, cell, row: grid.patch(cell, row, None, cell[1]),
    layer_head_pattern_patch_setter: lambda grid, cell, row: grid.patch(cell, row, None, cell[1]),
    layer_head_pos_pattern_patch_setter: lambda grid, cell, row: grid.patch(cell, row, [cell[2]], cell[1]),
    layer_head_dest_src_pos_pattern_patch_setter: _Grid.patch_source,
}
"""What a sweep does for each setter that it knows."""

INDICES: dict[Setter, int] = {
    layer_pos_patch_setter: 2,
    layer_pos_head_vector_patch_setter: 3,
    layer_head_vector_patch_setter: 2,
    layer_head_pattern_patch_setter: 2,
    layer_head_pos_pattern_patch_setter: 3,
    layer_head_dest_src_pos_pattern_patch_setter: 4,
}
"""How many numbers the index of each has."""


class _Steps(TorchFunctionMode):
    """Notes whether numbers become truth values, places or numbers of Python's on the way to what a function returns."""

    def __init__(self) -> None:
        super().__init__()
        self._whole, self._left = False, list[Any]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(one, Tensor) and one.is_floating_point() for one in args):
            several = out if isinstance(out, (tuple, list)) else [out]
            self._whole |= any(isinstance(one, Tensor) and not one.is_floating_point() for one in several)
            if func.__name__ in LEAVES:
                self._left.append(out)
        return out

    def taken(self, returned: Any) -> bool:
        """Whether they do, but for the number that is returned itself."""
        return self._whole or any(one is not returned for one in self._left)


LEAVES = ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "__contains__")
"""Methods that take numbers out of tensors."""


def positions_read(metric: Metric, logits: Float[Tensor, "batch position vocab"]) -> list[int]:
    """The positions whose logits a metric reads: where noise in their place changes it.

    All, where it goes by steps (a largest logit, a comparison), which noise may leave where they were. One that reads a position only
    sometimes finds NaN there, from which a whole run follows.
    """
    with _Steps() as steps:
        found = metric(logits)
    if steps.taken(found):
        return list(range(logits.shape[1]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *logits.shape[-1:], generator=generator).to(logits) * (1 + logits.abs().max())
    expected = _number(found)

    def reads(positions: list[int]) -> bool:
        for stand_in in (noise[0], -noise[0], noise[1]):
            changed = logits.clone()
            changed[:, positions] = stand_in
            if _number(metric(changed)) != expected:
                return True
        return False

    length = logits.shape[1]
    if not reads(list(range(length - 1))):
        return [length - 1]
    return [position for position in range(length) if reads([position])]


def _named(setter: Setter, activation_name: str, axes: tuple[str, ...]) -> Callable[..., Any]:
    return partial(
        generic_activation_patch, patch_setter=setter, activation_name=activation_name, index_axis_names=axes
    )


_BY_POS, _BY_HEAD, _BY_BOTH = ("layer", "pos"), ("layer", "head"), ("layer", "pos", "head")

get_act_patch_resid_pre = _named(layer_pos_patch_setter, "resid_pre", _BY_POS)
get_act_patch_resid_mid = _named(layer_pos_patch_setter, "resid_mid", _BY_POS)
get_act_patch_attn_out = _named(layer_pos_patch_setter, "attn_out", _BY_POS)
get_act_patch_mlp_out = _named(layer_pos_patch_setter, "mlp_out", _BY_POS)

get_act_patch_attn_head_out_by_pos = _named(layer_pos_head_vector_patch_setter, "z", _BY_BOTH)
get_act_patch_attn_head_q_by_pos = _named(layer_pos_head_vector_patch_setter, "q", _BY_BOTH)
get_act_patch_attn_head_k_by_pos = _named(layer_pos_head_vector_patch_setter, "k", _BY_BOTH)
get_act_patch_attn_head_v_by_pos = _named(layer_pos_head_vector_patch_setter, "v", _BY_BOTH)
get_act_patch_attn_head_pattern_by_pos = _named(
    layer_head_pos_pattern_patch_setter, "pattern", ("layer", "head_index", "dest_pos")
)
get_act_patch_attn_head_pattern_dest_src_pos = _named(
    layer_head_dest_src_pos_pattern_patch_setter, "pattern", ("layer", "head_index", "dest_pos", "src_pos")
)

get_act_patch_attn_head_out_all_pos = _named(layer_head_vector_patch_setter, "z", _BY_HEAD)
get_act_patch_attn_head_q_all_pos = _named(layer_head_vector_patch_setter, "q", _BY_HEAD)
get_act_patch_attn_head_k_all_pos = _named(layer_head_vector_patch_setter, "k", _BY_HEAD)
get_act_patch_attn_head_v_all_pos = _named(layer_head_vector_patch_setter, "v", _BY_HEAD)
get_act_patch_attn_head_pattern_all_pos = _named(layer_head_pattern_patch_setter, "pattern", ("layer", "head_index"))


def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: Mapping[str, Tensor], metric: Metric
) -> Float[Tensor, "kind layer head"]:
    """What heads write, their queries, keys, values and patterns, in that order; 0 after the last of keys and values that are shared."""
    kinds = (
        get_act_patch_attn_head_out_all_pos,
        get_act_patch_attn_head_q_all_pos,
        get_act_patch_attn_head_k_all_pos,
        get_act_patch_attn_head_v_all_pos,
        get_act_patch_attn_head_pattern_all_pos,
    )
    return _one_grid([kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds])


def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: Mapping[str, Tensor], metric: Metric
) -> Float[Tensor, "kind layer position head"]:
    """The same by position; of patterns, that of the query."""
    kinds = (
        get_act_patch_attn_head_out_by_pos,
        get_act_patch_attn_head_q_by_pos,
        get_act_patch_attn_head_k_by_pos,
        get_act_patch_attn_head_v_by_pos,
    )
    found = [kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds]
    pattern = get_act_patch_attn_head_pattern_by_pos(model, corrupted_tokens, clean_cache, metric)
    return _one_grid([*found, pattern.transpose(1, 2)])


def _one_grid(found: list[Tensor]) -> Tensor:
    """Grids in one; of keys and values that heads share there are fewer, and 0 stands after them, as with TransformerLens."""
    heads = max(one.shape[-1] for one in found)
    return torch.stack([F.pad(one, (0, heads - one.shape[-1])) for one in found])


def get_act_patch_block_every(
    model: HookedTransformer, corrupted_tokens: Tensor, clean_cache: Mapping[str, Tensor], metric: Metric
) -> Float[Tensor, "kind layer position"]:
    """The stream before each block, what attention wrote, and what the MLP wrote, in that order."""
    kinds = (get_act_patch_resid_pre, get_act_patch_attn_out, get_act_patch_mlp_out)
    return torch.stack([kind(model, corrupted_tokens, clean_cache, metric) for kind in kinds])
