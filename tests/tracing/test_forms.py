"""Results on meta are those of the meta kernels, remembered or not."""

import pytest
import torch
from torch import nn

from ghn.tracing import forms
from ghn.tracing.forms import result_on_meta

aten = torch.ops.aten


def meta(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.fixture(autouse=True)
def _forget():
    forms.forget()


CALLS = {
    "mul": (aten.mul.Tensor, (meta(2, 3), meta(3))),
    "mul of a transposed": (aten.mul.Tensor, (meta(3, 2).t(), meta(3))),
    "conv": (aten.conv2d.default, (meta(1, 4, 8, 8), meta(6, 2, 3, 3), None, [1, 1], [1, 1], [1, 1], 2)),
    "channels last": (
        aten.relu.default,
        (meta(1, 4, 8, 8).contiguous(memory_format=torch.channels_last),),
    ),
    "several results": (aten.topk.default, (meta(2, 5), 3)),
    "concat": (aten.cat.default, ([meta(2, 3), meta(2, 1)], 1)),
    "half": (aten.add.Tensor, (meta(2, dtype=torch.float16), meta(2, dtype=torch.bfloat16))),
}


def described(result):
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)
    return [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device.type) for tensor in tensors]


@pytest.mark.parametrize("name", CALLS)
def test_remembered_results_are_those_of_the_kernel(name):
    func, args = CALLS[name]
    first, second = (result_on_meta(func, args, {}) for _ in range(2))
    assert len(forms._results) == 1
    assert described(first) == described(second) == described(func(*args))


def test_remembered_results_have_a_memory_of_their_own():
    first, second = (result_on_meta(aten.relu.default, (meta(2),), {}) for _ in range(2))
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata


def test_a_result_that_is_an_operand_is_never_remembered():
    data = meta(2, 3)
    for _ in range(2):
        assert result_on_meta(aten.dropout.default, (data, 0.1, False), {}) is data
    assert not forms._results


def test_views_and_writes_run_every_time():
    data = meta(2, 3)
    assert result_on_meta(aten.view.default, (data, [6]), {})._base is data
    assert result_on_meta(aten.add_.Tensor, (data, data), {}) is data
    assert not forms._results


def test_arguments_of_different_type_are_different_calls():
    integers = meta(2, dtype=torch.int64)
    results = [result_on_meta(aten.mul.Scalar, (integers, factor), {}) for factor in (1, 1.0, True)]
    assert [result.dtype for result in results] == [torch.int64, torch.float32, torch.int64]


def test_the_default_type_is_part_of_a_call():
    integers = meta(2, dtype=torch.int64)
    assert result_on_meta(aten.true_divide.Tensor, (integers, integers), {}).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert result_on_meta(aten.true_divide.Tensor, (integers, integers), {}).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(forms, "MAX_REMEMBERED", 3)
    for size in range(10):
        result_on_meta(aten.relu.default, (meta(size),), {})
    assert len(forms._results) <= 3


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_shapes_are_those_of_a_real_run(kind, batch_first):
    options = {"proj_size": 3} if kind is nn.LSTM else {}
    block = kind(4, 5, num_layers=2, bidirectional=True, batch_first=batch_first, **options)
    data = torch.randn(2, 7, 4)
    real, real_state = block(data)
    real_states = real_state if isinstance(real_state, tuple) else (real_state,)
    directions = torch.zeros(4, 7 if not batch_first else 2, options.get("proj_size", 5))
    hidden = [directions, torch.zeros(*directions.shape[:2], 5)] if kind is nn.LSTM else directions
    name = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn_tanh"}[kind]
    func = getattr(aten, name).input
    args = (data, hidden, list(block.parameters()), True, 2, 0.0, False, True, batch_first)
    found, *states = result_on_meta(func, args, {})
    assert found.shape == real.shape
    assert found.stride() == real.stride()
    assert [state.shape for state in states] == [state.shape for state in real_states]
