"""What can be changed in a run: at which hook point, where in its value, and how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from interp.errors import HookError, check_function
from interp.whole_numbers import Wholes, is_one, sliced, whole_number, whole_numbers

Positions = Wholes | slice | None
"""Token positions, counted from 0, or from the end where negative; None is all of them."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Put in the value that another run has in the same place.

    Args:
        source: the other run's value for one row, as in its cache: `cache[name][row]`.
    """

    source: Tensor


@dataclass(frozen=True, eq=False)
class Set:
    """Put in given values: 0 for zero ablation, a mean for mean ablation. They are broadcast to what is selected."""

    values: Tensor | float


@dataclass(frozen=True, eq=False)
class Add:
    """Add given values, such as a steering vector; broadcast as for `Set`."""

    values: Tensor | float


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply by given values; broadcast as for `Set`."""

    values: Tensor | float


@dataclass(frozen=True, eq=False)
class Apply:
    """Put in what a function makes of the selected values [position, ...]; it returns a tensor of the same shape."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        """Raises HookError for what is no function."""
        check_function(self.function, "sweep: what is applied")


Change = Patch | Set | Add | Scale | Apply


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change of one value of a run.

    The selected values have the axes [position, ...]: what follows is the rest of the value's axes at that hook point, where an
    axis that is chosen from by one head or neuron is left out. At `hook_attn_scores` and `hook_pattern` the position is the
    query's and the axes are [query, head, key].

    Args:
        name: of the hook point.
        change: what to do there.
        positions: which; None is all.
        heads: one head or several, where the value has heads; None is all.
        neurons: one index or several along the last axis, of a value without heads; None is all.
    """

    name: str
    change: Change
    positions: Positions = None
    heads: Wholes | None = None
    neurons: Wholes | None = None

    def __post_init__(self) -> None:
        """Raises HookError for what is no name, no change, and no whole number."""
        if not isinstance(self.name, str):
            raise HookError(f"sweep: a hook point is named by text; got {self.name!r}.")
        if not isinstance(self.change, Change):
            raise HookError(
                f"sweep: the change at {self.name} must be Patch, Set, Add, Scale or Apply; got {self.change!r}."
            )
        if self.positions is not None and not isinstance(self.positions, slice):
            positions = whole_numbers(self.positions, f"sweep: a position at {self.name}", HookError)
            object.__setattr__(self, "positions", positions)
        for what in ("heads", "neurons"):
            given = getattr(self, what)
            if given is not None:
                listed = whole_numbers(given, f"sweep: {what} at {self.name}", HookError)
                object.__setattr__(self, what, listed[0] if is_one(given) else listed)


@dataclass(frozen=True, eq=False)
class Row:
    """One run of a sweep: a prompt, by its place in the batch, and the interventions that are made in it together.

    Args:
        always: compute the row even where it changes nothing: a control that shows the rounding between it and the base run.
    """

    interventions: Sequence[Intervention] = field(default=())
    prompt: int = 0
    always: bool = False

    def __post_init__(self) -> None:
        """Raises HookError for what is no number of a prompt, and for what are no interventions."""
        object.__setattr__(self, "prompt", whole_number(self.prompt, "sweep: a row's prompt", HookError))
        if isinstance(self.interventions, Intervention):
            raise HookError("sweep: a row takes a list of interventions; put the one in a list.")
        changes = tuple(self.interventions)  # which may be an iterator
        if wrong := [change for change in changes if not isinstance(change, Intervention)]:
            raise HookError(f"sweep: a row takes a list of interventions; got {type(wrong[0]).__name__} among them.")
        object.__setattr__(self, "interventions", changes)


class Edit:
    """An intervention made ready for a prompt of known length: which positions it changes, and how.

    Attributes:
        positions: [selected], absolute.
        heads: those that it changes; empty where the value has none.
        one_head: whether one was chosen by its number, so that the selected values have no axis for it.
    """

    def __init__(
        self, intervention: Intervention, axes: tuple[str, ...], shape: Sequence[int], length: int, like: Tensor
    ) -> None:
        """`shape` is that of the value at one position; `like` gives dtype and device."""
        self._intervention, self._like = intervention, like
        self.name, self._change = intervention.name, intervention.change
        self.attention = "key" in axes
        self.positions = _positions(intervention, length).to(like.device)
        self._inner = _inner(intervention, axes, shape)
        has_heads = any(axis in ("head", "kv_head") for axis in axes)
        self.heads = _listed(self._inner, shape[0]) if has_heads else []
        self.one_head = has_heads and isinstance(self._inner, int)
        self._operand = self._prepared(shape, length)

    @property
    def local(self) -> bool:
        """Whether the new value at a position depends on nothing at other positions."""
        return not isinstance(self._change, Apply)

    def select(self, value: Tensor, positions: Tensor) -> Tensor:
        """What is selected of a value [position, ...]."""
        return _chosen(value, positions, self._inner)

    def new(self, value: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What to put in place of selected values. `chosen` says for which of `positions` they stand; None is all of them."""
        change = self._change
        if isinstance(change, Apply):
            made = change.function(value.clone())
            if not isinstance(made, Tensor) or _kind(made) != _kind(value):
                raise HookError(
                    f"sweep: the function applied at {self.name} returned {_kind(made)}; expected {_kind(value)}."
                )
            return made
        operand = self._operand if chosen is None or self._operand is None else self._operand[chosen]
        assert operand is not None
        if isinstance(change, Add):
            return value + operand
        return value * operand if isinstance(change, Scale) else operand

    def put(
        self, value: Tensor, places: Tensor, chosen: Tensor | None = None, among: Sequence[int] | None = None
    ) -> None:
        """Change a value [place, ...] where it holds the positions `chosen` (None: all of them), which stand at `places`.

        Args:
            among: the heads that the value has; None is all of the model's.
        """
        inner = self._inner if among is None else _renumbered(self._inner, among)
        new = self.new(_chosen(value, places, inner), chosen)
        if inner is None:
            value[places] = new
        elif isinstance(inner, int):
            value[places, inner] = new
        else:
            value[places[:, None], inner] = new

    def put_there(self, value: Tensor, places: Tensor, among: Sequence[int] | None = None) -> None:
        """The same, where its positions have a place (0 or more) in the value."""
        chosen = (places >= 0).nonzero()[:, 0]
        if len(chosen) == len(places):
            self.put(value, places, among=among)
        elif len(chosen):
            self.put(value, places[chosen], chosen, among)

    def _prepared(self, shape: Sequence[int], length: int) -> Tensor | None:
        change = self._change
        if isinstance(change, Apply):
            return None
        if isinstance(change, Patch):
            expected = (shape[0], length, length) if self.attention else (length, *shape)
            if not isinstance(change.source, Tensor) or change.source.is_complex():
                raise HookError(
                    f"sweep: what is patched in at {self.name} must be a tensor of real numbers, got {_kind(change.source)}."
                )
            if tuple(change.source.shape) != expected:
                raise HookError(
                    f"sweep: the value to patch in at {self.name} has shape {tuple(change.source.shape)}; expected {expected}, "
                    "as in the cache of a run of equal length, without its batch axis."
                )
            source = change.source.transpose(0, 1) if self.attention else change.source
            return self.select(source.to(self._like), self.positions)
        inner = self._inner
        chosen = shape if inner is None else shape[1:] if isinstance(inner, int) else (len(inner), *shape[1:])
        selected = (len(self.positions), *chosen)
        values = self._values(change.values)
        try:
            return values.expand(selected)
        except RuntimeError as error:
            raise HookError(
                f"sweep: values of shape {tuple(values.shape)} at {self.name} do not broadcast to the selected {selected}."
            ) from error

    def _values(self, given: Any) -> Tensor:
        """Given numbers as a tensor like the value. Raises HookError for what are none."""
        try:
            if torch.as_tensor(given).is_complex():
                raise TypeError("they are complex")
            return torch.as_tensor(given, dtype=self._like.dtype, device=self._like.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise HookError(
                f"sweep: the values at {self.name} must be real numbers or a tensor of them; got {type(given).__name__}: {error}."
            ) from error


def _kind(value: Any) -> str:
    """For messages, and to compare: what a tensor is apart from its numbers."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} of {value.dtype} on {value.device}"


def _chosen(value: Tensor, places: Tensor, inner: int | Tensor | None) -> Tensor:
    """Of a value [place, ...] what is at some places, and there at some indices of the next axis."""
    if inner is None:
        return value[places]
    return value[places, inner] if isinstance(inner, int) else value[places[:, None], inner]


def _listed(inner: int | Tensor | None, count: int) -> list[int]:
    if inner is None:
        return list(range(count))
    return [inner] if isinstance(inner, int) else inner.tolist()


def _renumbered(inner: int | Tensor | None, among: Sequence[int]) -> int | Tensor | None:
    """Indices as places in a list of those that are there; where no heads are, as they are."""
    if inner is None or not among:
        return inner
    if isinstance(inner, int):
        return among.index(inner)
    return torch.tensor([among.index(index) for index in inner.tolist()], dtype=torch.long)


def _positions(intervention: Intervention, length: int) -> Tensor:
    given = intervention.positions
    if isinstance(given, slice):
        given = list(sliced(given, length, f"sweep: positions at {intervention.name}"))
    if given is None:
        return torch.arange(length)
    listed = cast(list[int], given)
    for position in listed:
        if not -length <= position < length:
            raise HookError(
                f"sweep: position {position} at {intervention.name}: the prompt has {length} positions, 0 to {length - 1}."
            )
    if len({position % length for position in listed}) < len(listed):
        raise HookError(f"sweep: positions {listed} at {intervention.name} name one position twice.")
    return torch.tensor([position % length for position in listed], dtype=torch.long)


def _inner(intervention: Intervention, axes: tuple[str, ...], shape: Sequence[int]) -> int | Tensor | None:
    """The chosen indices along the axis after the position: heads, or neurons."""
    has_heads = any(axis in ("head", "kv_head") for axis in axes)
    for what, chosen, fits in (
        ("heads", intervention.heads, has_heads),
        ("neurons", intervention.neurons, not has_heads),
    ):
        if chosen is None:
            continue
        if not fits:
            raise HookError(f"sweep: {intervention.name} has axes {', '.join(axes)}, so {what} cannot be chosen there.")
        listed = cast(list[int], [chosen] if isinstance(chosen, int) else chosen)
        for index in listed:
            if not 0 <= index < shape[0]:
                raise HookError(f"sweep: {what} {index} at {intervention.name} is out of range: 0 to {shape[0] - 1}.")
        return chosen if isinstance(chosen, int) else torch.tensor(listed, dtype=torch.long)
    return None
