"""Types and shapes of arguments and results are checked, by beartype and jaxtyping, once for every kind of call.

What the two look at is the kind of a value: its type; of a tensor the dtype and the shape; of a short container its items' kinds; where an
annotation names literals the value itself. A function that has passed for arguments and a result of some kinds passes for all of those
kinds, so it is not asked again: that makes the tests up to four times as fast. A value whose kind is not known here (a long list, a
mapping of one's own) is checked in every call.
"""

import dataclasses
import functools
import inspect
import threading
import types
from collections.abc import Callable, Collection, Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch
from beartype import beartype

LONG = 16
"""Items of a container, or letters of a literal, beyond which no kind is made."""

_every_call = jaxtyping.jaxtyped


class Checks:
    """What is known of the calls of a function, or of all closures that are made by the same lines.

    Args:
        function: one of them.
    """

    def __init__(self, function: Callable[..., Any], typechecker: Callable[..., Any]) -> None:
        self._typechecker = typechecker
        self._kinds = VALUES if _names_literals(function) else KINDS
        self.passed: dict[Hashable, set[Hashable]] = {}
        self.returned = threading.local()

    def in_full(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function with every call checked; made when one is, for that takes longer than most calls."""
        checked: Callable[..., Any] = _every_call(function, typechecker=self._typechecker)
        return checked

    def of_results(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same that gives what was returned, so that this is checked."""
        return self.in_full(_giving(function, self.returned))

    def kind(self, value: Any) -> Hashable | None:
        """Of a value; None where it has none that is known."""
        try:
            of = type(value)
            make = self._kinds[of]
            return of if make is None else make(value)  # type: ignore[no-any-return]
        except _UnknownError:
            return None


_of_lines: dict[types.CodeType, Checks] = {}


def once_a_kind(function: Any = None, *, typechecker: Callable[..., Any] = beartype) -> Any:
    """In place of `jaxtyping.jaxtyped`, which checks every call and takes ten times as long."""
    if function is None:
        return functools.partial(once_a_kind, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = once_a_kind(function.__init__, typechecker=typechecker)  # type: ignore[misc]
        return function
    lines = getattr(function, "__code__", None)
    checks = _of_lines.get(lines) if lines is not None and "<locals>" in function.__qualname__ else None
    if checks is None:
        checks = Checks(function, typechecker)
        if lines is not None:
            _of_lines[lines] = checks
    kind, passed = checks.kind, checks.passed
    in_full = functools.cache(lambda: checks.in_full(function))
    of_results = functools.cache(lambda: checks.of_results(function))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = kind([args, kwargs] if kwargs else args)  # a list is never all arguments
        if given is None:
            return in_full()(*args, **kwargs)
        results = passed.get(given)
        result = (in_full() if results is None else function)(*args, **kwargs)
        found = kind(result)
        if results is None:
            results = passed.setdefault(given, set())
        elif found not in results:
            checks.returned.value = result
            of_results()(*args, **kwargs)
        if found is not None:
            results.add(found)
        return result

    return call


class _UnknownError(Exception):
    """A value of no kind that is known here."""


class Kinds(dict[type, Callable[[Any], Hashable] | None]):
    """What makes the kind of a value of each type; None where the type says all.

    Args:
        by_value: whether values decide, as where an annotation names literals.
    """

    def __init__(self, by_value: bool) -> None:
        super().__init__({tuple: self._items, list: self._items, dict: self._entries})
        for of in (torch.Tensor, torch.nn.Parameter, np.ndarray):
            self[of] = _shape
        self[types.GenericAlias] = _itself
        self[str] = _letters if by_value else None
        self[int] = self[bool] = _itself if by_value else None

    def __missing__(self, of: type) -> Callable[[Any], Hashable] | None:
        kinds = {type: _itself, torch.Tensor: _inner_shape, Collection: _unknown}
        self[of] = made = next((make for base, make in kinds.items() if issubclass(of, base)), None)
        return made

    def _items(self, value: Any) -> Hashable:
        if len(value) > LONG:
            raise _UnknownError
        found: list[Hashable] = [type(value)]
        for item in value:
            make = self[type(item)]
            found.append(type(item) if make is None else make(item))
        return tuple(found)

    def _entries(self, value: Any) -> Hashable:
        return dict, self._items(tuple(value)), self._items(tuple(value.values()))


def _shape(value: Any) -> Hashable:
    return type(value), value.dtype, value.shape


def _inner_shape(value: Any) -> Hashable:
    """Of a subclass of tensors, without its own say, which is a call that is checked too."""
    with torch._C.DisableTorchFunctionSubclass():
        return _shape(value)


def _itself(value: Any) -> Hashable:
    return type(value), value


def _letters(value: str) -> Hashable:
    return (str, value) if len(value) <= LONG else str


def _unknown(value: Any) -> Hashable:
    raise _UnknownError


KINDS, VALUES = Kinds(by_value=False), Kinds(by_value=True)


def _names_literals(function: Callable[..., Any]) -> bool:
    """Whether values decide. What is written as a string may hide a literal."""
    return any(isinstance(hint, str) or "Literal" in repr(hint) for hint in inspect.get_annotations(function).values())


def _giving(function: Callable[..., Any], returned: threading.local) -> Callable[..., Any]:
    """A function of the same signature, in the same module, that gives what `function` returned, so that this is checked."""

    def give(*args: Any, **kwargs: Any) -> Any:
        return vars(returned).pop("value")

    copied = types.FunctionType(give.__code__, function.__globals__, function.__name__, None, give.__closure__)
    return functools.wraps(function)(copied)


jaxtyping.jaxtyped = once_a_kind
