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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("any_layout", [False, True])
@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (1665, 128), (7, 33), (6, 32)])
def test_equal_rows_come_out_equal_to_the_bit(shape, any_layout, threads):
    weight, row = torch.randn(shape), torch.randn(1, shape[1])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows in range(2, 2 * FEW_ROWS if any_layout else FEW_ROWS + 1):
            out = linear(row.expand(rows, -1).contiguous(), weight, any_layout=any_layout)
            assert torch.equal(out, out[:1].expand(rows, -1)), rows
    finally:
        torch.set_num_threads(before)
