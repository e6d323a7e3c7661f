"""Tables in eight and four bits."""

import pytest
import torch

from ghn.quantization import quantize, restore


@pytest.mark.parametrize(("bits", "error"), [(8, 0.5 / 127), (4, 0.5 / 7)])
@pytest.mark.parametrize("columns", [1, 4, 5])
def test_numbers_come_back_within_half_a_step_and_then_stay(bits: int, error: float, columns: int) -> None:
    values = torch.randn(6, columns, generator=torch.Generator().manual_seed(columns))
    values[2] = 0
    values[3] = 1e-12
    stored = quantize({"table": values, "other": values}, {"table": bits})
    assert stored["other"] is values
    assert stored["table"].element_size() == 1
    assert stored["table"].shape[1] == (columns if bits == 8 else (columns + 1) // 2)
    again = restore(stored)["table"]
    assert again.shape == values.shape
    largest = values.abs().amax(1, keepdim=True)
    assert ((again - values).abs() <= (error + 1e-3) * largest + 1e-6).all()
    assert quantize({"table": again}, {"table": bits})["table"].equal(stored["table"])
