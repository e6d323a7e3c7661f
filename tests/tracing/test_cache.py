"""An equal model gets the graph of the first one; whatever a trace can depend on makes it another model."""

import sys

import pytest
import torch
from torch import nn

from ghn.errors import TraceError
from ghn.models import load_model
from ghn.tracing import cache
from ghn.tracing.cache import trace_once
from ghn.tracing.trace import trace

INPUT = torch.ones(2, 4)
FLAG = False
TABLE = {"deep": False}


def helper(x):
    return torch.relu(x) if FLAG else x


class Plain:
    def __init__(self, times):
        self.times = times


class Net(nn.Module):
    def __init__(self, width=4, config=None, mode="none"):
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 4)
        self.register_buffer("branch", torch.zeros(()))
        self.config, self.mode, self.extra = config or Plain(1), mode, [1, (2, "three")]

    def forward(self, x):
        x = helper(self.first(x))
        x = torch.tanh(x) if self.mode == "tanh" or TABLE["deep"] else x
        x = torch.sin(x) if self.branch.item() > 0 else x
        for _ in range(self.config.times):
            x = self.second(x)
        return self.last(x)

    def last(self, x):
        return x


@pytest.fixture(autouse=True)
def _forget():
    cache.forget()


def shared(first, second, inputs=INPUT):
    """Whether the second model gets the first one's graph; in any case it's the right one."""
    before = trace_once(first, inputs)
    after = trace_once(second, inputs)
    assert after.fingerprint() == trace(second, inputs).fingerprint()
    return after is before


def test_equal_models_share_a_graph():
    assert shared(Net(), Net())


def test_values_of_weights_and_random_state_do_not_matter():
    model = Net()
    first = trace_once(model, INPUT)
    nn.init.ones_(model.first.weight)
    assert trace_once(model, torch.randn(2, 4)) is first


@pytest.mark.parametrize(
    "other",
    [
        lambda: Net(width=5),
        lambda: Net(mode="tanh"),
        lambda: Net(config=Plain(2)),
        lambda: tied(Net()),
        lambda: frozen(Net()),
        lambda: branched(Net()),
        lambda: Net().half(),
        lambda: hooked(Net()),
        lambda: type("Net", (Net,), {"last": lambda self, x: torch.exp(x)})(),
        lambda: instance_method(Net()),
        lambda: nn.Sequential(Net()),
        lambda: renamed(Net()),
    ],
    ids="width mode config tied frozen buffer dtype hook subclass method wrapped renamed".split(),
)
def test_whatever_the_graph_depends_on_makes_another_model(other):
    model = other()
    inputs = INPUT.half() if next(model.parameters()).dtype == torch.float16 else INPUT
    assert not shared(Net(), model, inputs) if inputs is INPUT else trace_once(model, inputs)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
        lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
        lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4))),
        lambda: torch.jit.trace(nn.Sequential(nn.Linear(4, 4)), INPUT),
    ],
    ids="weight_norm spectral_norm script trace".split(),
)
def test_modules_that_hold_what_has_no_truth_value_are_traced(build):
    model = nn.Sequential(build(), nn.Linear(4, 4))
    assert trace_once(model, INPUT).coverage() == 1.0


def tied(model):
    model.second.weight = model.first.weight
    return model


def frozen(model):
    model.first.weight.requires_grad_(False)
    return model


def branched(model):
    model.branch.fill_(1.0)
    return model


def hooked(model):
    nn.utils.parametrizations.weight_norm(model.first)
    return model


def instance_method(model):
    model.last = torch.exp
    return model


def renamed(model):
    model.third = model.second
    del model.second
    model.second = model.third
    return model


def test_integer_inputs_count_by_value_others_by_shape():
    model = nn.Embedding(5, 3)
    first = trace_once(model, torch.tensor([0, 1]))
    assert trace_once(model, torch.tensor([0, 1])) is first
    assert trace_once(model, torch.tensor([0, 2])) is not first
    assert trace_once(Net(), torch.ones(3, 4)) is not trace_once(Net(), torch.ones(2, 4))


def test_a_changed_global_flag_is_seen(monkeypatch):
    first = trace_once(Net(), INPUT)
    monkeypatch.setattr(sys.modules[__name__], "FLAG", True)
    second = trace_once(Net(), INPUT)
    assert "relu" in {node.kind for node in second.nodes} - {node.kind for node in first.nodes}


def test_a_changed_global_table_is_seen(monkeypatch):
    first = trace_once(Net(), INPUT)
    monkeypatch.setitem(TABLE, "deep", True)
    assert "tanh" in {node.kind for node in trace_once(Net(), INPUT).nodes} - {n.kind for n in first.nodes}


def test_a_replaced_function_or_method_is_seen(monkeypatch):
    first = trace_once(Net(), INPUT)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: torch.exp(x))
    assert trace_once(Net(), INPUT) is not first
    monkeypatch.undo()
    first = trace_once(Net(), INPUT)
    monkeypatch.setattr(Net, "last", lambda self, x: torch.exp(x))
    assert trace_once(Net(), INPUT) is not first
    monkeypatch.undo()
    first = trace_once(Net(), INPUT)
    monkeypatch.setattr(torch, "relu", torch.sigmoid)
    monkeypatch.setattr(sys.modules[__name__], "FLAG", True)
    assert "sigmoid" in {node.kind for node in trace_once(Net(), INPUT).nodes}


def test_code_replaced_inside_a_function_is_seen():
    def original(self, x):
        return x

    def changed(self, x):
        return torch.exp(x)

    kind = type("Net", (Net,), {"last": original})
    first = trace_once(kind(), INPUT)
    original.__code__ = changed.__code__
    assert trace_once(kind(), INPUT) is not first


def test_what_cannot_be_compared_is_traced_every_time():
    model = Net()
    model.stream = (number for number in range(3))
    assert trace_once(model, INPUT) is not trace_once(model, INPUT)
    model.stream = Plain(3)
    assert trace_once(model, INPUT) is trace_once(model, INPUT)


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(cache, "MAX_GRAPHS", 2)
    first = trace_once(Net(4), INPUT)
    trace_once(Net(5), INPUT)
    trace_once(Net(6), INPUT)
    assert len(cache._graphs) == 2
    assert trace_once(Net(4), INPUT) is not first


def test_failures_are_not_remembered():
    for _ in range(2):
        with pytest.raises(TraceError):
            trace_once(Net(), torch.ones(2, 7))


@pytest.mark.parametrize("spec", ["timm:test_vit", "torchvision:resnet18", "hf:gpt2"])
def test_models_of_every_zoo_are_recognized(spec):
    first, second = (load_model(spec, device="meta") for _ in range(2))
    assert trace_once(first) is trace_once(second)
    assert trace_once(second).fingerprint() == trace(second).fingerprint()


@pytest.mark.parametrize("spec", ["timm:test_resnet", "hf:gpt2"])
def test_models_with_and_without_values_share_a_graph(spec):
    options = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50} if spec == "hf:gpt2" else {}
    real, meta = load_model(spec, **options), load_model(spec, device="meta", **options)
    assert trace_once(real) is trace_once(meta)
    assert trace_once(meta).fingerprint() == trace(real).fingerprint()
