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


def once_a_kind(function: Any = None, *, typechecker: Callable[..., Any] = beartype) -> Any:
    """In place of `jaxtyping.jaxtyped`, which checks every call and takes ten times as long."""
    if function is None:
        return functools.partial(once_a_kind, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = once_a_kind(function.__init__, typechecker=typechecker)  # type: ignore[misc]
        return function
    in_full = _every_call(function, typechecker=typechecker)
    by_value = _names_literals(function)
    passed: dict[Hashable, set[Hashable]] = {}
    returned = threading.local()
    of_results = functools.cache(lambda: _every_call(_giving(function, returned), typechecker=typechecker))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = _kind((args, kwargs), by_value)
        if given is None:
            return in_full(*args, **kwargs)
        results = passed.get(given)
        result = (in_full if results is None else function)(*args, **kwargs)
        kind = _kind(result, by_value)
        if results is None:
            results = passed.setdefault(given, set())
        elif kind not in results:
            returned.value = result
            of_results()(*args, **kwargs)
        if kind is not None:
            results.add(kind)
        return result

    return call


class _UnknownError(Exception):
    """A value of no kind that is known here."""


def _kind(value: Any, by_value: bool) -> Hashable | None:
    try:
        return _kinds(value, by_value)
    except _UnknownError:
        return None


def _kinds(value: Any, by_value: bool) -> Hashable:
    of = type(value)
    if value is None or of is float:
        return of
    if of is torch.Tensor or of is torch.nn.Parameter or of is np.ndarray:
        return of, value.dtype, tuple(value.shape)
    if of is str or of is int or of is bool:
        return (of, value) if by_value and (of is not str or len(value) <= LONG) else of
    if of is tuple or of is list:
        if len(value) > LONG:
            raise _UnknownError
        return of, *[_kinds(item, by_value) for item in value]
    if of is dict:
        if len(value) > LONG:
            raise _UnknownError
        return of, *[(_kinds(key, by_value), _kinds(item, by_value)) for key, item in value.items()]
    if isinstance(value, type | types.GenericAlias):
        return of, value
    if _has_items(of):
        raise _UnknownError
    return of


@functools.cache
def _has_items(of: type) -> bool:
    return issubclass(of, Collection)


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
