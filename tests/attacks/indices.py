"""Every place where a user gives a whole number, and everything that is none: each means the right thing, or is an InterpError.

Run by itself, as users run it: the tests' type checks would refuse most of this before it is looked at.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from places import Place, places

from interp.errors import InterpError

NEVER: list[Any] = [
    True,
    False,
    np.True_,
    torch.tensor(True),
    np.array(True),
    2.7,
    1.0,
    np.float64(1),
    torch.tensor(1.0),
    "1",
    b"1",
    float("nan"),
    float("inf"),
    10**30,
    -(10**30),
    object(),
    {},
    {0: 1},
    1j,
    [True, False],
    (True,),
    np.array([False, True]),
    torch.tensor([False, True]),
    np.array([1.0, 0.0]),
    torch.tensor([0.5]),
    [0.5],
    ["1"],
    [None],
    [float("nan")],
    [10**30],
    np.array(["1"]),
    np.array([0, None]),
    [[0, 1], [1]],
]
"""What is no whole number, and no list of them."""
SEVERAL: list[Any] = [[0, 1], np.array([0, 1]), torch.tensor([0, 1]), range(2), (0, 1)]
FORMS: list[Callable[[int], Any]] = [
    np.int64,
    np.uint8,
    np.array,
    torch.tensor,
    lambda n: torch.tensor(n, dtype=torch.int16),
]
LISTED: list[Callable[[list[int]], Any]] = [
    tuple,
    np.array,
    torch.tensor,
    lambda ns: [np.int32(n) for n in ns],
    lambda ns: (n for n in ns),
]


def bad_values(place: Place) -> Iterator[Any]:
    listed = isinstance(place.good, list | torch.Tensor)
    for value in NEVER:
        if place.texts and isinstance(value, str):
            continue
        yield value
    if not listed and not place.texts and "position" not in place.name and place.name not in SEVERAL_TOO:
        yield from SEVERAL
    if not place.optional:
        yield None
    if (
        place.lowest is not None
        and not place.pairs
        and (not place.name.endswith(".seed") or place.name == "ablate_heads.seed")
    ):
        yield [place.lowest - 1] if listed else place.lowest - 1


SEVERAL_TOO = {"Intervention.heads, one", "generate.seed", "cache.at, one"}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, xr.Dataset):
        return one.equals(other) and one.attrs["parameters"] == other.attrs["parameters"]
    return bool(one == other)


def faults(place: Place, brief: bool) -> Iterator[str]:
    """What is wrong with a place; briefly, with one other form of its good value, in every second place."""
    try:
        expected = place.call(place.good)
    except Exception as error:  # noqa: BLE001
        yield f"{place.name}: the good value {place.good!r} gives {type(error).__name__}: {error}"
        return
    for value in bad_values(place):
        try:
            place.call(value)
        except InterpError:
            continue
        except Exception as error:  # noqa: BLE001
            yield f"{place.name}: {value!r} is unnamed: {type(error).__name__}: {str(error)[:100]}"
        else:
            yield f"{place.name}: {value!r} is silent"
    if isinstance(place.good, torch.Tensor):
        return
    several = isinstance(place.good, list)
    forms = LISTED if several else FORMS
    turn, number = divmod(sum(map(ord, place.name)), len(forms))
    if brief:
        forms = forms[number : number + 1] if turn % 2 else []
    for form in forms:
        yield from differs(place, form(place.good), expected)
    if place.last is not None and not brief:
        last = place.call([place.last] if several else place.last)
        for value in ([-1],) if several else (-1, np.int64(-1), torch.tensor(-1)):
            yield from differs(place, value, last, values_only=True)


def differs(place: Place, value: Any, expected: Any, values_only: bool = False) -> Iterator[str]:
    try:
        found = place.call(value)
    except Exception as error:  # noqa: BLE001
        yield f"{place.name}: {value!r} is refused: {type(error).__name__}: {str(error)[:100]}"
        return
    if values_only and isinstance(found, xr.Dataset):
        found, expected = (one.assign_attrs(parameters="") for one in (found, expected))
    if not same(found, expected):
        yield f"{place.name}: {value!r} gives something else"


def main(how: str, chosen: str = "") -> int:
    """Print every fault and, at the end, how many places were tried; the number of faults."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    asked = [place for place in places() if chosen in place.name]
    found = [fault for place in asked for fault in faults(place, how == "brief")]
    print(*found, f"{len(asked)} places", sep="\n")  # noqa: T201
    return len(found)


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
