"""Linear maps in either order of operands."""

import pytest
import torch
import torch.nn.functional as F

from interp.linear import FEW_ROWS, Linear, linear


@pytest.mark.parametrize("places", [(), (1,), (2,), (3, 5), (1, FEW_ROWS), (1, FEW_ROWS + 1), (0,), (2, 0)])
@pytest.mark.parametrize("any_layout", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_torchs_linear(places: tuple[int, ...], any_layout: bool, biased: bool) -> None:
    x, weight = torch.randn(*places, 6), torch.randn(7, 6)
    bias = torch.randn(7) if biased else None
    out = linear(x, weight, bias, any_layout)
    torch.testing.assert_close(out, F.linear(x, weight, bias))
    assert any_layout or out.is_contiguous()


def test_strided_rows_are_read_where_they_lie() -> None:
    x, weight = torch.randn(6, 4, 3).mT, torch.randn(5, 4)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


def test_gradients_pass() -> None:
    mapped = Linear(4, 3, bias=True, any_layout=True)
    torch.nn.init.normal_(mapped.weight), torch.nn.init.normal_(mapped.bias)
    x = torch.randn(2, 3, 4, requires_grad=True)
    mapped(x).pow(2).sum().backward()
    again = x.detach().clone().requires_grad_(True)
    F.linear(again, mapped.weight, mapped.bias).pow(2).sum().backward()
    torch.testing.assert_close(x.grad, again.grad)
