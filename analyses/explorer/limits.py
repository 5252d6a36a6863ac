"""What comes from a browser is checked before it is used: its kind, its size, its range."""

import math
from typing import Any

from interp.errors import InterpError, nearest

WHO = "explore"

LARGEST_AMOUNT, LARGEST_INDEX = 100.0, 100_000


def whole(value: Any, what: str, most: int = LARGEST_INDEX) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InterpError(f"{WHO}: {what} must be a whole number from 0 to {most:,}; got {str(value)[:40]!r}.")


def number(value: Any, what: str, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise InterpError(f"{WHO}: {what} must be a number; got {str(value)[:40]!r}.")
    if not least <= value <= LARGEST_AMOUNT:
        raise InterpError(f"{WHO}: {what} must be between {least:g} and {LARGEST_AMOUNT:g}; got {value:g}.")


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def text(value: Any, what: str, most: int) -> None:
    if not isinstance(value, str):
        raise InterpError(f"{WHO}: {what} must be text; got {type(value).__name__}.")
    if any("\ud800" <= one <= "\udfff" for one in value):
        raise InterpError(f"{WHO}: {what} holds half a character (a lone surrogate), which is no text. Write it anew.")
    if len(value) > most:
        raise InterpError(f"{WHO}: {what} has {len(value):,} characters; at most {most:,} are taken here.")


def among(value: Any, valid: tuple[str, ...], what: str) -> None:
    if not isinstance(value, str) or value not in valid:
        raise InterpError(f"{WHO}: {what} cannot be {str(value)[:40]!r}. {nearest(value, valid)}")
