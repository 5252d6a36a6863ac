"""What checks types in the tests."""

import checked
import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from interp.linear import linear


@jaxtyped(typechecker=checked.first_calls)
def halves(x: Float[Tensor, "row width"], weights: Float[Tensor, " width"]) -> Float[Tensor, " row"]:
    return x @ weights if len(x) else weights


def test_arguments_and_results_are_checked_in_the_first_calls_of_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "CALLS", 3)
    right, wrong, ends_wrong = torch.zeros(2, 4), torch.zeros(4), torch.zeros(0, 4)
    for _ in range(2):
        checked.begin_test()
        for bad in (wrong, ends_wrong):
            with pytest.raises(TypeCheckError, match="width"):
                halves(bad, torch.zeros(4))
        for _ in range(4):
            halves(right, torch.zeros(4))
        assert halves(ends_wrong, torch.zeros(4)).shape == (4,)  # nobody looks any more


def test_the_packages_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="weight"):
        linear(torch.zeros(2, 3), "weights")  # type: ignore[arg-type]
