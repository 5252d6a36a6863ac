"""What the analyses rely on in torch's linear maps."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(384, 128), (512, 128), (128, 512), (1480, 128), (96, 64)])
def test_equal_rows_come_out_equal_to_the_bit(shape, threads):
    """Coupled texts that are still the same must stay so, whatever stands beside them."""
    weight, row = torch.randn(shape), torch.randn(1, shape[1])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows in range(2, 65):
            out = F.linear(row.expand(rows, -1).contiguous(), weight)
            assert torch.equal(out, out[:1].expand(rows, -1)), rows
    finally:
        torch.set_num_threads(before)
