"""Inputs in objects of any kind are found, and read the same way everywhere."""

import threading
from collections import UserDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData
from transformers import BatchEncoding

from ghn.errors import TraceError
from ghn.tracing.inputs import call_arguments, convert_tensors, tensors_in
from ghn.tracing.trace import trace

KINDS, FEATURES = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.randn(2, 3, 8)


class Named(NamedTuple):
    kinds: Tensor
    features: Tensor


@dataclass
class Record:
    kinds: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True)
class Slotted:
    kinds: Tensor
    features: Tensor


class Table(Mapping):
    """A mapping that is no dict."""

    def __init__(self, **entries):
        self._entries = entries

    def __getitem__(self, key):
        return self._entries[key]

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._entries)


class Locked:
    """Can't be copied."""

    def __init__(self, kinds, features):
        self.kinds, self.features, self.lock = kinds, features, threading.Lock()


class Net(nn.Module):
    """Looks up kinds, as molecule networks do, and knows how to get at its inputs."""

    def __init__(self, unpack=lambda *args: args):
        super().__init__()
        self.unpack = unpack
        self.table, self.map, self.head = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, *args, **kwargs):
        kinds, features = self.unpack(*args, **kwargs)
        return self.head((self.map(self.table(kinds)) * features).relu())


def by_attribute(inputs):
    return inputs.kinds, inputs.features


def by_key(inputs):
    return inputs["kinds"], inputs["features"]


def nested(inputs):
    return by_attribute(inputs["deep"][0]["er"][0].inside)


def hetero(inputs):
    return inputs["atom"].kinds, inputs["bond"].features


def _data() -> Data:
    return Data(kinds=KINDS, features=FEATURES, num_nodes=2)


def _hetero() -> HeteroData:
    data = HeteroData()
    data["atom"].kinds, data["bond"].features = KINDS, FEATURES
    return data


def _inside(record):
    outside = Locked(0, 0)
    outside.inside = record
    return outside


@pytest.mark.parametrize(
    ("inputs", "unpack"),
    [
        (Named(KINDS, FEATURES), by_attribute),
        (Record(KINDS, FEATURES), by_attribute),
        (Slotted(KINDS, FEATURES), by_attribute),
        (_data(), by_attribute),
        (Batch.from_data_list([_data()]), by_attribute),
        (_hetero(), hetero),
        (Locked(KINDS, FEATURES), by_attribute),
        (({"kinds": KINDS, "features": FEATURES},), by_key),
        ((Table(kinds=KINDS, features=FEATURES),), by_key),
        (({"deep": deque([{"er": (_inside(Record(KINDS, FEATURES)),)}])},), nested),
        (Table(kinds=KINDS, features=FEATURES), lambda kinds, features: (kinds, features)),
        (BatchEncoding({"kinds": KINDS, "features": FEATURES}), lambda kinds, features: (kinds, features)),
        ([KINDS, FEATURES], lambda *args: args),
    ],
)
def test_tensors_in_objects_are_inputs_like_any_other(inputs, unpack):
    plain, objects = trace(Net(), (KINDS, FEATURES)), trace(Net(unpack), inputs)
    assert objects.fingerprint() == plain.fingerprint()
    assert [spec.role for spec in objects.params] == ["embedding", "linear", "bias", "linear", "bias"]


def test_the_users_inputs_stay_as_they_are():
    data, features = _data(), FEATURES.clone()
    model = Net(lambda data: (data.kinds.add_(1), data.update({"features": data.features * 2}).features))
    trace(model, data)
    assert data.features is FEATURES
    assert torch.equal(FEATURES, features)
    assert data.kinds is KINDS
    assert KINDS.max() == 5


def test_packed_sequences_are_one_argument():
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 8), torch.randn(3, 8)])
    graph = trace(nn.GRU(8, 16), packed)
    assert [spec.role for spec in graph.params] == ["recurrent_input", "recurrent_hidden", "bias", "bias"]


@pytest.mark.parametrize(
    ("inputs", "call"),
    [
        (1, ((1,), {})),
        ((1, 2), ((1, 2), {})),
        ([1, 2], ((1, 2), {})),
        ({"a": 1}, ((), {"a": 1})),
        (UserDict(a=1), ((), {"a": 1})),
        (Named(1, 2), ((Named(1, 2),), {})),
        (Record(1, 2), ((Record(1, 2),), {})),
        ((), ((), {})),
    ],
)
def test_arguments(inputs, call):
    assert call_arguments(inputs) == call


def test_tensors_are_found_once_and_in_order():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    loop = [a, {"b": b}]
    loop.append((loop, Record(a, c)))
    assert [len(tensor) for tensor in tensors_in(loop)] == [1, 2, 3]


def test_equal_tensors_stay_equal_when_converted():
    a = nn.Parameter(torch.ones(1))
    copied, converted, _ = convert_tensors([a, a, (torch.ones(2), 5)], lambda tensor: tensor + 1)
    first, second, (third, number) = copied
    assert first is second is converted[0]
    assert (first.item(), third.tolist(), number) == (2, [2, 2], 5)


def test_inputs_without_a_tensor_are_refused():
    with pytest.raises(TraceError, match=r"inputs=dict holds no tensor \(str\); pass tensors"):
        trace(Net(), {"kinds": "carbon"})


class Generator(nn.Module):
    """Draws its own input."""

    def __init__(self):
        super().__init__()
        self.first, self.table, self.last = nn.Linear(8, 16), nn.Embedding(3, 16), nn.Linear(16, 2)

    def forward(self, count):
        noise = torch.randn(count, 8)
        return self.last((self.first(noise) * self.table(torch.randint(3, (count,)))).relu())


def test_what_a_model_without_inputs_draws_is_its_input():
    graph = trace(Generator(), 4)
    assert [node.kind for node in graph.nodes].count("input") == 2
    assert [spec.role for spec in graph.params] == ["linear", "bias", "embedding", "linear", "bias"]
