"""Hook points: the named places where a value can be read or replaced while the model runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from interp.errors import HookError
from interp.modes import ordinary
from interp.names import Selection, select
from interp.scopes import Scope, Scopes

HookFunction = Callable[[Tensor, "HookPoint"], Tensor | None]
"""Called with a copy of the value and its hook point; returns a replacement, or None to keep (the possibly edited) copy."""


class Listener:
    """One function attached to one hook point by one `with` block.

    Attributes:
        reads_only: the function leaves the value alone, so it needs no copy.
        scope: the block, beyond whose context nothing is heard.
        fired: whether it was called; in `backward_hooks`, whether the gradient came.
    """

    def __init__(self, function: HookFunction, reads_only: bool, scope: Scope) -> None:
        self.function = function
        self.reads_only = reads_only
        self.scope = scope
        self.fired = False

    def hear(self, value: Tensor, point: "HookPoint") -> Tensor:
        """Call the function; the value that flows on."""
        self.fired = True
        if self.reads_only:
            self.function(value, point)
            return value
        # A hook may edit in place: on a copy, so that nothing that was cached before changes with it.
        copy = value.clone()
        told = _POSITIONS.get()
        returned = self.function(copy, point)
        _POSITIONS.set(told)  # the function may have run the model itself
        return point.checked(copy if returned is None else returned, value)

    def leave(self) -> None:
        """Called when the `with` block ends."""


class BackwardListener(Listener):
    """Waits for the gradient of the value that it hears."""

    def __init__(self, function: HookFunction, scope: Scope) -> None:
        super().__init__(function, False, scope)
        self._handles: list[RemovableHandle] = []

    def hear(self, value: Tensor, point: "HookPoint") -> Tensor:
        want_gradient(value, point)
        hear, context = super().hear, copy_context()  # on an accelerator the gradient comes in a thread of torch's own
        handle = value.register_hook(lambda gradient: context.copy().run(hear, gradient, point))  # type: ignore[no-untyped-call]
        self._handles.append(handle)
        return value

    def leave(self) -> None:
        """Take the hooks off the values heard."""
        for handle in self._handles:
            handle.remove()


class HookPoint:
    """A named place in the model that every forward pass hands one value through.

    Attributes:
        name: the full hook name.
        axes: what the axes of its value mean, in order (see `interp.names.AXES`).
    """

    def __init__(self, name: str, axes: tuple[str, ...]) -> None:
        self.name = name
        self.axes = axes
        self._listeners: dict[Listener, None] = {}  # of all contexts; a dict's single steps need no lock

    @property
    def positions(self) -> Tensor | None:
        """[batch, position], the absolute positions of the tokens that the run now under way computes; while decoding, those of the new
        tokens only. None where nobody listens, or nothing has run since."""
        return _POSITIONS.get().get(self)

    @property
    def active(self) -> bool:
        """Whether anybody listens in this context. The model skips values that exist only to be listened to."""
        return bool(self._listeners) and bool(self._heard())

    def __call__(self, value: Tensor) -> Tensor:
        if self._listeners:
            for listener in self._heard():
                value = listener.hear(value, self)
        return value

    def _heard(self) -> list[Listener]:
        return [listener for listener in list(self._listeners) if listener.scope.here]

    def __deepcopy__(self, memo: dict[int, Any]) -> "HookPoint":
        return HookPoint(self.name, self.axes)

    def checked(self, returned: Any, value: Tensor) -> Tensor:
        """What a hook returned, if the model can go on with it. Raises HookError where it is no tensor like `value`."""
        if not isinstance(returned, Tensor):
            raise HookError(f"the hook at {self.name} returned {type(returned).__name__}; return a tensor or None.")
        for what in ("shape", "dtype", "device"):
            expected, found = getattr(value, what), getattr(returned, what)
            if expected != found:
                expected, found = (tuple(s) if what == "shape" else s for s in (expected, found))
                axes = f" ({', '.join(self.axes)})" if what == "shape" else ""
                raise HookError(
                    f"the hook at {self.name} returned {what} {found}, expected {expected}{axes}. "
                    "A hook must return what it was given in shape, dtype and device."
                )
        return returned

    def __repr__(self) -> str:
        return f"HookPoint({self.name!r}, axes={self.axes}, listeners={len(self._heard())})"


_POSITIONS: ContextVar[Mapping[HookPoint, Tensor]] = ContextVar("positions", default=MappingProxyType({}))
"""Where the values of the run stand that this context has under way, by the points that are listened to."""


class Points(dict[str, HookPoint]):
    """The hook points of a model by name. One that its configuration does not have is inert: nobody can listen to it."""

    def __missing__(self, name: str) -> HookPoint:
        return HookPoint(name, ())


class Hooked:
    """What a model with hook points can do. The model fills `hook_points`, name to point, in forward order."""

    hook_points: dict[str, HookPoint]
    _attached: Scopes

    def tell_positions(self, positions: Tensor) -> None:
        """Let every hook point with a listener know where the values of this run stand."""
        if self._attached:
            self._attached.check_run()
            told = {point: positions for point in self.hook_points.values() if point.active}
            _POSITIONS.set({**_POSITIONS.get(), **told})

    @contextmanager
    def hooks(self, functions: Mapping[str, HookFunction] | Iterable[tuple[Selection, HookFunction]]) -> Iterator[None]:
        """Attach functions to hook points for the length of a `with` block.

        Args:
            functions: hook name or glob to function; or pairs of (name, glob, list or predicate) and function.
                A function is called as `fn(value, hook)` with a copy of the value that it may edit, and returns
                a replacement of the same shape, dtype and device, or None.

        Raises:
            HookError: a name or pattern that matches nothing; a return of another shape, dtype or device; at the end
                of the block, a hook that never fired (for instance one above `stop_at_layer`).

        Blocks nest; each takes away only its own hooks, also on an exception. Hooks act in the context that attached them, a thread or an
        asyncio task, and in those that were begun within the block with a copy of it (tasks, `asyncio.to_thread`); a thread of its own or
        of a pool does not hear them. A generator that suspends within the block leaves them attached, where it ran, until it ends.

        Example:
            >>> with model.hooks({"blocks.2.hook_resid_pre": lambda value, hook: value * 0}):
            ...     logits = model(tokens)
        """
        with self._listening(
            [(selection, partial(Listener, fn, False)) for selection, fn in _pairs(functions)], "hooks"
        ):
            yield

    @contextmanager
    def backward_hooks(
        self, functions: Mapping[str, HookFunction] | Iterable[tuple[Selection, HookFunction]]
    ) -> Iterator[None]:
        """Attach functions that are called with the gradient at hook points, for the length of a `with` block.

        As `hooks`, but `fn(gradient, hook)` is called in the backward pass, which must run inside the block; it may return
        a replacement, from which the pass goes on. No parameter needs to require gradients.

        Raises:
            HookError: as `hooks`; also where a value can have no gradient because gradients are switched off.
        """
        with self._listening(
            [(selection, partial(BackwardListener, fn)) for selection, fn in _pairs(functions)], "backward_hooks"
        ):
            yield

    @contextmanager
    def capture(self, names: Selection = None, *, with_gradients: bool = False) -> Iterator[dict[str, Tensor]]:
        """Collect the values of the named hook points that the model computes within the block, by name.

        The values are those that flow on, after any hook attached before. Raises HookError as `hooks` does.

        Args:
            with_gradients: let gradients reach the values, also where no parameter requires them.
        """
        store: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: HookPoint) -> None:
            if with_gradients:
                want_gradient(value, hook)
            store[hook.name] = value

        with ordinary(), self._listening([(names, partial(Listener, keep, True))], "capture"):
            yield store

    @contextmanager
    def _listening(self, requests: list[tuple[Selection, Callable[[Scope], Listener]]], purpose: str) -> Iterator[None]:
        attached: list[tuple[HookPoint, Listener]] = []
        available, scope = list(self.hook_points), Scope()
        for selection, make in requests:
            attached += [(self.hook_points[name], make(scope)) for name in select(selection, available, purpose)]
        if not attached:
            raise HookError(f"{purpose}: no hooks were given.")
        with self._attached.entered(scope):
            try:
                for point, listener in attached:
                    point._listeners[listener] = None
                yield
            finally:
                for point, listener in attached:
                    point._listeners.pop(listener, None)
                    listener.leave()
                _POSITIONS.set({point: told for point, told in _POSITIONS.get().items() if point.active})
        silent = [point.name for point, listener in attached if not listener.fired]
        if silent:
            raise HookError(
                f"{purpose}: {', '.join(silent[:5])}{' and others' if len(silent) > 5 else ''} never fired. "
                "The model was not run inside the block, or in another thread or task, or did not reach this layer, or (backward) no "
                "gradient came this way."
            )


class _Seen(torch.autograd.Function):
    """One tensor's values with another's derivatives."""

    @staticmethod
    def forward(ctx: Any, derived: Tensor, shown: Tensor) -> Tensor:
        return shown.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0]


def unless_changed(explicit: Tensor, heard: Iterable[tuple[Tensor, Tensor]], fused: Callable[[], Tensor]) -> Tensor:
    """What flows on after a step whose inner values somebody heard: what the fused kernel gives if they were left as they were, so that
    looking changes nothing, in any precision; else what follows from the changed ones. Derivatives go through the values heard.

    Args:
        explicit: computed from the values as they were returned.
        heard: each inner value, as it was handed to its hook point and as it came back.
        fused: the same step in one kernel.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(explicit):  # under vmap no value can be compared
        return explicit
    if not all(after is before or torch.equal(after, before) for before, after in heard):
        return explicit
    with torch.no_grad():
        shown = fused()
    return _Seen.apply(explicit, shown) if explicit.requires_grad else shown  # type: ignore[no-untyped-call]


def want_gradient(value: Tensor, point: HookPoint) -> None:
    """Let gradients reach a value, also where no parameter requires them. Raises HookError where gradients are off."""
    if not torch.is_grad_enabled():
        raise HookError(
            f"no gradient can reach {point.name}: gradients are switched off (torch.no_grad or inference_mode)."
        )
    if not value.requires_grad:
        value.requires_grad_(True)


def _pairs(
    functions: Mapping[str, HookFunction] | Iterable[tuple[Selection, HookFunction]],
) -> list[tuple[Selection, HookFunction]]:
    """Names with their functions. Raises HookError for anything else."""
    given = functions.items() if isinstance(functions, Mapping) else functions
    pairs = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else [given]
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not callable(pair[1]):
            raise HookError(f"hooks: give functions by hook name, or pairs of a name and a function; got {pair!r}.")
    return [(selection, function) for selection, function in pairs]


def check_unhooked(model: Hooked, what: str) -> None:
    """Raise HookError where hooks are attached: what is kept is known by model and options, and a function has no name among them."""
    if attached := attached_hooks(model):
        raise HookError(
            f"{what}: what is kept would not say that the model has hooks attached ({', '.join(attached[:3])}). Leave the file or folder "
            "away, or the hooks."
        )


def attached_hooks(model: Hooked) -> list[str]:
    """The names of the hook points that have a listener now; empty outside every `with` block."""
    return [name for name, point in model.hook_points.items() if point.active]
