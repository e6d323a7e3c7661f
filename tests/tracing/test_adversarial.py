"""Modules that go about things in odd ways: all of their parameters are found, and none of the modules changes."""

import copy
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ghn.errors import ModelError, TraceError
from ghn.models import load_model
from ghn.tracing import values
from ghn.tracing.trace import trace

X = torch.ones(6, 8)


class Custom(nn.Module):
    """A module with the given attributes and forward."""

    def __init__(self, run: Callable[..., Any], **attributes: Any):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)
        self.run = run

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def linear() -> nn.Linear:
    return nn.Linear(8, 8)


@dataclass
class Output:
    first: Tensor
    rest: dict[str, list[Tensor]]


def mixture_of_experts(self, x):
    weights, chosen = self.gate(x).softmax(-1).topk(2)
    out = torch.zeros_like(x)
    for number, expert in enumerate(self.experts):
        rows, ranks = torch.where(chosen == number)
        if len(rows):
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, ranks, None])
    return out


def with_closure() -> nn.Module:
    layer = linear()
    weight, bias = layer.weight, layer.bias
    return Custom(lambda self, x: F.linear(x, weight, bias), layer=layer)


def functional_call(self, x):
    return torch.func.functional_call(self.layer, dict(self.layer.named_parameters()), (x,))


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


COMPLETE: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: parametrizations.weight_norm(linear()),
    "old weight_norm": lambda: nn.utils.weight_norm(linear()),
    "spectral_norm": lambda: parametrizations.spectral_norm(linear()),
    "old spectral_norm": lambda: nn.utils.spectral_norm(linear()),
    "orthogonal": lambda: parametrizations.orthogonal(linear()),
    "orthogonal by Cayley": lambda: parametrizations.orthogonal(linear(), orthogonal_map="cayley"),
    "frozen": frozen,
    "dict output": lambda: Custom(lambda self, x: {"a": [self.layer(x)]}, layer=linear()),
    "dataclass output": lambda: Custom(
        lambda self, x: Output(self.a(x), {"b": [self.b(x)]}), a=linear(), b=linear()
    ),
    "compiled": lambda: torch.compile(linear()),
    "data parallel": lambda: nn.DataParallel(linear()),
    "item of an activation": lambda: Custom(
        lambda self, x: self.a(x) * self.b(x).mean().item(), a=linear(), b=linear()
    ),
    "nonzero of an activation": lambda: Custom(
        lambda self, x: x[self.a(x)[:, 0].nonzero()[:, 0]], a=linear()
    ),
    "tolist of computed constants": lambda: Custom(
        lambda self, x: sum(self.layers[i](x) for i in (torch.arange(6)[::2] // 2).tolist()),
        layers=nn.ModuleList(linear() for _ in range(3)),
    ),
    "mixture of experts": lambda: Custom(
        mixture_of_experts, gate=nn.Linear(8, 4), experts=nn.ModuleList(linear() for _ in range(4))
    ),
    "closure": with_closure,
    "parameter containers": lambda: Custom(
        lambda self, x: (x * self.list[0] + self.list[1]) @ self.dict["weight"],
        list=nn.ParameterList([nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))]),
        dict=nn.ParameterDict({"weight": nn.Parameter(torch.ones(8, 4))}),
    ),
    "functional_call": lambda: Custom(functional_call, layer=linear()),
    "meta": lambda: linear().to("meta"),
    "checkpointed": lambda: Custom(
        lambda self, x: torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=False), layer=linear()
    ),
    "no_grad": lambda: Custom(lambda self, x: torch.no_grad()(self.layer)(x), layer=linear()),
    "autocast": lambda: Custom(
        lambda self, x: torch.autocast("cpu", torch.bfloat16)(self.layer)(x), layer=linear()
    ),
    "auxiliary head in training": lambda: Custom(
        lambda self, x: (self.a(x), self.b(x)) if self.training else self.a(x), a=linear(), b=linear()
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", COMPLETE)
def test_every_parameter_is_found(name):
    model = COMPLETE[name]()
    graph = trace(model, X)
    assert graph.coverage() == 1.0
    found = [alias for spec in graph.params for alias in spec.names]
    assert sorted(found) == sorted(dict(model.named_parameters(remove_duplicate=False)))
    assert [spec.trainable for spec in graph.params] == [p.requires_grad for p in model.parameters()]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_submodule():
    graph = trace(Custom(lambda self, x: self.a(self.b(x)), a=linear(), b=torch.jit.script(linear())), X)
    assert graph.coverage() == 1.0


def test_half_precision():
    graph = trace(linear().bfloat16(), X.bfloat16())
    assert {spec.dtype for spec in graph.params} == {torch.bfloat16}


@pytest.mark.parametrize("inputs", [(X, X[:, :4]), {"x": X, "y": X[:, :4]}])
def test_several_inputs(inputs):
    model = Custom(lambda self, x, y: self.a(x) + self.b(y), a=linear(), b=nn.Linear(4, 8))
    graph = trace(model, inputs)
    assert graph.coverage() == 1.0
    assert [node.kind for node in graph.nodes].count("input") == 2


def test_unused_parameters_are_reported_not_invented():
    graph = trace(Custom(lambda self, x: self.used(x), used=linear(), unused=linear()), X)
    assert graph.coverage() == 0.5
    unused = [spec for spec in graph.params if spec.node is None]
    assert [spec.name for spec in unused] == ["unused.weight", "unused.bias"]
    assert all(spec.reason for spec in unused)
    assert all(not spec.reason for spec in graph.params if spec.node is not None)


def test_both_sides_of_a_branch_on_values_are_merged():
    branch = Custom(
        lambda self, x: self.head(self.a(x) if x.sum() > 0 else self.b(x)),
        a=linear(),
        b=linear(),
        head=linear(),
    )
    graph = trace(branch, X)
    assert graph.coverage() == 1.0
    assert graph.notes == (
        "merged with what runs only where unknown conditions are true: 'a.bias' and 1 more parameters",
    )
    assert _operations(graph) == {"a": {"input"}, "b": {"input"}, "head": {"a", "b"}, "output": {"head"}}


def test_what_runs_in_train_mode_only_is_merged_into_what_runs_in_eval_mode():
    model = Custom(
        lambda self, x: self.head((self.t if self.training else self.e)(self.stem(x)).relu()),
        stem=linear(),
        t=linear(),
        e=linear(),
        head=linear(),
    )
    graph = trace(model, X)
    assert graph.notes == ("merged with what runs only in train mode: 't.bias' and 1 more parameters",)
    assert _operations(graph) == {
        "stem": {"input"},
        "t": {"stem"},
        "e": {"stem"},
        "relu": {"t", "e"},
        "head": {"relu"},
        "output": {"head"},
    }


def test_a_merged_graph_is_in_topological_order():
    model = Custom(
        lambda self, x: self.d(self.b(self.a(x))) if self.training else self.a(self.b(x)) + self.c(x),
        a=linear(),
        b=linear(),
        c=linear(),
        d=linear(),
    )
    graph = trace(model, X)
    assert all(edge.source < edge.target for edge in graph.edges)
    assert graph.coverage() == 1.0
    assert len(graph.notes) == 1


def _operations(graph):
    """Sources of each operation, by module or, outside of any, by kind; parameters left out."""
    name = {node.index: node.module or node.kind for node in graph.nodes}
    operations = {name[node.index]: set() for node in graph.nodes if node.kind not in ("parameter", "input")}
    for edge in graph.edges:
        if graph.nodes[edge.source].kind != "parameter":
            operations[name[edge.target]].add(name[edge.source])
    return operations


class Counting(nn.Module):
    """Keeps counters, caches and buffers in forward; the lock can't be copied."""

    def __init__(self, lock=None):
        super().__init__()
        self.layer, self.norm = linear(), nn.BatchNorm1d(8)
        self.register_buffer("calls", torch.zeros(()))
        self.lock, self.count, self.cache, self.nested = lock, 0, {}, {"calls": [0], "lock": [lock]}

    def forward(self, x):
        self.count += 1
        self.calls += 1
        self.cache["x"] = x
        self.nested["calls"][0] += 1
        random.random(), np.random.rand()
        return F.dropout(self.norm(self.layer(x)), 0.5, training=True)


@pytest.mark.parametrize("lock", [None, threading.Lock()], ids=["copiable", "with a lock"])
def test_nothing_of_the_model_changes(lock):
    model, ran = Counting(lock).train(), []
    model.layer.eval()
    model.layer.register_forward_hook(lambda *_: ran.append("hook"))
    model.register_forward_pre_hook(lambda *_: ran.append("pre-hook"))
    model(X).sum().backward()
    ran.clear()
    state = copy.deepcopy(model.state_dict())
    grads = [p.grad.clone() for p in model.parameters()]
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    randomness = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert trace(model, X).coverage() == 1.0
    assert ran == []
    assert len(model._forward_pre_hooks) == len(model.layer._forward_hooks) == 1
    assert (model.count, model.nested["calls"]) == (1, [1])
    assert model.cache["x"] is X
    assert (model.training, model.layer.training) == (True, False)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert tensors == [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    assert all(p.is_leaf and not p.is_inference() for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert random.getstate() == randomness[1]
    assert np.array_equal(np.random.get_state()[1], randomness[2])
    model(X).sum().backward()  # still trains


def test_a_failing_forward_names_module_and_operation():
    model = nn.Sequential(linear(), nn.Linear(4, 4))
    with pytest.raises(TraceError, match=r"Sequential.*module '1'.*operation 'linear'.*Check that the model"):
        trace(model, X)
    assert model[0].training
    with pytest.raises(TraceError, match=r"ZeroDivisionError in the root module"):
        trace(Custom(lambda self, x: x / (1 // 0), layer=linear()), X)


def test_wrong_number_of_arguments():
    with pytest.raises(TraceError, match=r"TypeError.*positional argument"):
        trace(linear(), (X, X))


def test_a_model_of_no_zoo_needs_inputs():
    with pytest.raises(ModelError, match="pass inputs="):
        trace(nn.Sequential(linear()))


def until_small(self, x):
    x = self.a(x)
    while x.norm() > 1:
        x = x / 2
    return x


def until_converged(self, x):
    while (error := self.a(x).norm().item()) > 1e-3:
        x = x - error
    return x


@pytest.mark.parametrize("loop", [until_small, until_converged])
def test_loops_on_values_end(loop, monkeypatch):
    """The unused layer makes the tracer try the other answer to unknown conditions, too."""
    monkeypatch.setattr(values, "PATIENCE", 20)
    graph = trace(Custom(loop, a=linear(), unused=linear()), X)
    assert graph.coverage() == 0.5


def test_lazy_modules_are_refused():
    with pytest.raises(TraceError, match=r"'weight' of LazyLinear has no shape yet.*call the model once"):
        trace(nn.LazyLinear(8), X)


def test_a_model_without_parameters():
    graph = trace(nn.ReLU(), X)
    assert [node.kind for node in graph.nodes] == ["input", "relu", "output"]
    assert graph.coverage() == 1.0


def test_models_on_the_meta_device_trace_like_real_ones():
    real, meta = trace(load_model("timm:test_resnet")), trace(load_model("timm:test_resnet", device="meta"))
    assert real == meta
