"""Types and shapes of arguments and results are checked, by beartype, in every call.

That makes the tests up to four times as slow, so while one works on something `CHECK_CALLS=20` checks the first calls alone, of every
function in each test.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from beartype import beartype

CALLS = int(os.environ.get("CHECK_CALLS", sys.maxsize))

_test = 0
_resting: list[Any] = []
"""Functions that jaxtyping is not to look at until the next test."""


def begin_test() -> None:
    """Check anew from here on."""
    global _test
    _test += 1
    for function in _resting:
        del function.__no_type_check__
    _resting.clear()


def first_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """A check of the first calls after each `begin_test`. `function` is the one that jaxtyping has made to hold the types."""
    checker, counted, calls = None, 0, 0

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        nonlocal checker, counted, calls
        calls = calls + 1 if counted == _test else 1
        counted = _test
        if calls > CALLS:
            _rest(function)
            return None
        checker = checker or beartype(function)
        return checker(*args, **kwargs)

    return check


def _rest(function: Callable[..., Any]) -> None:
    """Spare the function whose types these are what jaxtyping does before it asks; not one within another, which has no name outside."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    if found is not None and not hasattr(found, "__no_type_check__"):
        found.__no_type_check__ = True
        _resting.append(found)
