"""The errors a user can cause. Each says the operation, what was expected, what came, and the fix."""

from collections.abc import Container, Iterable
from difflib import get_close_matches
from typing import Any


class InterpError(ValueError):
    """Base of every error raised for bad input; the command line prints its message without a traceback."""


class ConfigError(InterpError):
    """A model configuration that is inconsistent or asks for what is not supported."""


class HookError(InterpError):
    """A hook that names nothing, never fired, or returned something the model cannot use."""


class TokenError(InterpError):
    """A prompt or token ids that this model or tokenizer cannot take."""


class CheckpointError(InterpError):
    """A checkpoint that is absent, damaged, foreign, or does not fit its configuration."""


class ResultError(InterpError):
    """A result that cannot be made, saved, read or drawn."""


def is_known(name: Any, valid: Container[str]) -> bool:
    """Whether something is one of the valid names; what is no text is none of them, also where it cannot be looked up."""
    return isinstance(name, str) and name in valid


def check_function(given: Any, who: str) -> None:
    """Raise HookError for what cannot be called."""
    if not callable(given):
        raise HookError(f"{who} must be a function; got {given!r}.")


def nearest(name: Any, valid: Iterable[str]) -> str:
    """A clause that suggests the valid names closest to `name`, or lists a few where none is close."""
    choices = list(valid)
    close = get_close_matches(name, choices, n=3, cutoff=0.5) if isinstance(name, str) else []
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(repr(c) for c in choices[:8])
    return f"Valid: {shown}{', ...' if len(choices) > 8 else ''}."
