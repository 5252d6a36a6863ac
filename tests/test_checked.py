"""What checks types in the tests."""

from typing import Literal

import checked
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from interp.fused import each_head


@checked.once_a_kind
def halves(
    x: Float[Tensor, "row width"], weights: Float[Tensor, " width"], side: Literal["left", "right"] = "left"
) -> Float[Tensor, " row"]:
    """Wrong for no rows, and from the third call on where there are seven."""
    calls.append(len(x))
    return x @ weights if len(x) and calls.count(7) < 3 else weights


calls: list[int] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


def test_what_is_wrong_is_found_after_calls_that_were_right_and_every_time() -> None:
    for _ in range(3):
        assert halves(torch.zeros(2, 4), torch.zeros(4), side="right").shape == (2,)
        for wrong in [
            (torch.zeros(4), torch.zeros(4)),
            (torch.zeros(2, 4), torch.zeros(3)),
            (torch.zeros(2, 4).int(), torch.zeros(4)),
        ]:
            with pytest.raises(TypeCheckError, match="width"):
                halves(*wrong)
        with pytest.raises(TypeCheckError, match="side"):
            halves(torch.zeros(2, 4), torch.zeros(4), side="middle")  # type: ignore[arg-type]
        with pytest.raises(TypeCheckError, match="return"):
            halves(torch.zeros(0, 4), torch.zeros(4))


def test_a_result_of_another_kind_is_checked_where_the_arguments_passed_before() -> None:
    for _ in range(2):
        halves(torch.zeros(7, 4), torch.zeros(4))
    for _ in range(2):
        with pytest.raises(TypeCheckError, match="return"):
            halves(torch.zeros(7, 4), torch.zeros(4))


def test_items_of_containers_short_and_long_are_looked_at() -> None:
    @checked.once_a_kind
    def total(values: list[int] | tuple[int, ...] | dict[str, int]) -> int:
        return len(values)

    for right, wrong in [([1, 2], ["a", "b"]), ((1,), ("a",)), ({"a": 1}, {"a": "b"}), ([1] * 40, ["a"] * 40)]:
        assert total(right) == len(right)  # type: ignore[arg-type]
        with pytest.raises(TypeCheckError, match="values"):
            total(wrong)  # type: ignore[arg-type]


def test_a_call_is_made_once_however_it_is_checked() -> None:
    for _ in range(3):
        halves(torch.zeros(3, 4), torch.zeros(4))
    assert calls == [3, 3, 3]


def test_the_packages_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="heads"):
        each_head(torch.zeros(1, 2, 3, 4), "several")  # type: ignore[arg-type]


def test_closures_of_the_same_lines_are_checked_as_one_and_do_their_own() -> None:
    def adder(more: int) -> object:
        @checked.once_a_kind
        def add(value: int) -> int:
            return value + more if value < 9 else "much"  # type: ignore[return-value]

        return add

    found = [adder(more) for more in range(3)]
    assert [add(1) for add in found] == [1, 2, 3]  # type: ignore[operator]
    for add in found:
        with pytest.raises(TypeCheckError, match="value"):
            add("1")  # type: ignore[operator]
        with pytest.raises(TypeCheckError, match="return"):
            add(9)  # type: ignore[operator]


def test_the_kinds_of_classes_and_keyword_arguments() -> None:
    @checked.once_a_kind
    def made(of: type[int] | type[str], *, times: int = 1) -> int | str:
        return of() * times

    for _ in range(2):
        assert (made(int), made(str, times=2)) == (0, "")
        with pytest.raises(TypeCheckError, match="of"):
            made(float)  # type: ignore[arg-type]
        with pytest.raises(TypeCheckError, match="times"):
            made(int, times="2")  # type: ignore[arg-type]
