"""Whatever a forward pass caches, and wherever: after a trace it is as before, and the model runs and trains."""

import functools
import threading
import types
import weakref
from collections import OrderedDict, deque

import pytest
import torch
from torch import Tensor, nn

from ghn.errors import TraceError
from ghn.tracing import values
from ghn.tracing.skeleton import make_skeleton
from ghn.tracing.trace import trace

X = torch.randn(2, 16, 8)


@functools.lru_cache
def _waves(tokens: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(tokens)[:, None] / torch.arange(1, 9)
    return angles.cos(), angles.sin()


@functools.cache
def _mask(tokens: int) -> Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


class Tables:
    """A cache with attributes, as position encodings have them."""

    def __init__(self):
        self.longest, self.by_length = None, {"all": OrderedDict()}

    def get(self, x):
        if self.longest is None or len(self.longest) < x.shape[1]:
            self.longest = torch.linspace(0, 1, x.shape[1])
        return self.by_length["all"].setdefault(x.shape[1], (self.longest[: x.shape[1], None],))[0]


TABLES = Tables()
LAST = deque(maxlen=2)
SEEN = [torch.zeros(1)]
LOCAL = threading.local()
SLOT = types.SimpleNamespace(value=None)
steps: Tensor | None = None
unset: Tensor


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 8)

    def forward(self, x):
        return self.use(self.map(x), x)


class LruCache(Mapped):
    def use(self, h, x):
        return h * _waves(x.shape[1])[0]


class LruCacheOfLargeConstants(Mapped):
    def use(self, h, x):
        return (h @ h.mT).masked_fill(~_mask(x.shape[1]), -1e9).softmax(-1) @ h


class LruCacheOfAMethod(Mapped):
    @functools.lru_cache  # noqa: B019
    def steps(self, count):
        return torch.arange(count)[:, None] / 10

    def use(self, h, x):
        return h + self.steps(x.shape[1])


class ClassDictionary(Mapped):
    cache: dict[int, Tensor] = {}  # noqa: RUF012

    def use(self, h, x):
        return h * self.cache.setdefault(x.shape[1], torch.linspace(0, 1, x.shape[1])[:, None])


class ClassAttribute(Mapped):
    table = None

    def use(self, h, x):
        if ClassAttribute.table is None:
            ClassAttribute.table = torch.linspace(0, 1, x.shape[1])[:, None]
        return h * self.table


class GlobalVariable(Mapped):
    def use(self, h, x):
        global steps, unset
        if steps is None:
            steps = torch.linspace(0, 1, x.shape[1])[:, None]
        unset = h
        return h * steps


class GlobalObject(Mapped):
    def use(self, h, x):
        SLOT.value = h
        return h * TABLES.get(x)


class Activations(Mapped):
    """Keeps what depends on the input."""

    def use(self, h, x):
        LAST.append(h)
        SEEN[0] = {"h": [h]}
        LOCAL.h = h
        return h + self.kept(h)

    def kept(self, h, memory={}):  # noqa: B006
        self.kept.__func__.last = h
        return memory.setdefault("h", h)


class Nonlocal(Mapped):
    def __init__(self):
        super().__init__()
        scale = None

        def use(h, x):
            nonlocal scale
            if scale is None:
                scale = h.std()
            return h / scale

        self.use = use


class Closure(Mapped):
    """Keeps its state for the next call, through a function that knows the module."""

    def __init__(self):
        super().__init__()
        self.state, self.calls = None, [0]
        self.use = functools.partial(lambda h, x: self.remember(h))

    def remember(self, h):
        self.state = h if self.state is None else (h + self.state).tanh()
        self.calls[0] += 1
        return self.state


class DefaultArgument(Closure):
    def __init__(self):
        super().__init__()

        def use(h, x, module=self, *, calls=self.calls):
            calls[0] += 1
            return module.remember(h)

        self.use = use


class Helper:
    def __init__(self, module):
        self.step = lambda h, x: module.remember(h)


class ClosureOfAHelper(Closure):
    def __init__(self):
        super().__init__()
        self.use = Helper(self).step


class Child(nn.Module):
    def __init__(self, parent):
        super().__init__()
        self.parent, self.proxy = weakref.ref(parent), [weakref.proxy(parent)]

    def forward(self, h):
        self.parent().calls[0] += 1
        self.proxy[0].state = h
        return h


class WeakReference(Closure):
    def __init__(self):
        super().__init__()
        self.child = Child(self)
        self.use = lambda h, x: self.child(h)


MODELS = (
    *(LruCache, LruCacheOfLargeConstants, LruCacheOfAMethod, ClassDictionary, ClassAttribute, GlobalVariable),
    *(GlobalObject, Activations, Nonlocal, Closure, DefaultArgument, ClosureOfAHelper, WeakReference),
)


@pytest.mark.parametrize("make", MODELS)
def test_a_traced_model_trains(make, monkeypatch):
    monkeypatch.setattr(values, "MAX_KNOWN_NUMEL", 200)  # the mask is larger
    model = make()
    assert trace(model, X).coverage() == 1.0
    assert _left_behind(model) == []
    model(X).sum().backward()
    assert model.map.weight.grad is not None


def _left_behind(model):
    """Names of places that hold something that was not there when this file was read."""
    places = {
        "lru_cache": _waves.cache_info().currsize + _mask.cache_info().currsize,
        "method": LruCacheOfAMethod.steps.cache_info().currsize,
        "class": ClassDictionary.cache,
        "attribute": ClassAttribute.table is not None,
        "global": steps is not None or "unset" in globals(),
        "object": TABLES.longest is not None or TABLES.by_length["all"] or SLOT.value is not None,
        "container": len(LAST) or not isinstance(SEEN[0], Tensor) or vars(LOCAL),
        "default": Activations.kept.__defaults__[0] or vars(Activations.kept),
        "module": getattr(model, "state", None) is not None or getattr(model, "calls", [0]) != [0],
    }
    return [name for name, found in places.items() if found]


@pytest.fixture(autouse=True)
def _clean():
    yield
    global steps
    steps = ClassAttribute.table = TABLES.longest = SLOT.value = None
    globals().pop("unset", None)
    SEEN[:] = [torch.zeros(1)]
    for table in (ClassDictionary.cache, TABLES.by_length["all"], LAST, vars(LOCAL)):
        table.clear()
    Activations.kept.__defaults__[0].clear()
    vars(Activations.kept).clear()
    for cached in (_waves, _mask, LruCacheOfAMethod.steps):
        cached.cache_clear()


def test_a_trace_that_fails_leaves_nothing_either():
    class Failing(GlobalObject):
        def use(self, h, x):
            super().use(h, x)
            _waves(x.shape[1])
            raise ValueError("no")

    with pytest.raises(TraceError, match="ValueError"):
        trace(Failing(), X)
    assert _left_behind(nn.Identity()) == []


def test_what_was_cached_before_stays():
    model = GlobalObject()
    model(X)
    longest, entries = TABLES.longest, dict(TABLES.by_length["all"])
    trace(model, torch.randn(2, 20, 8))
    assert TABLES.longest is longest
    assert dict(TABLES.by_length["all"]) == entries


def test_counters_and_registries_outside_of_the_model_are_left_alone():
    seen = []

    class Counting(Mapped):
        count = 0

        def use(self, h, x):
            Counting.count += 1
            seen.append(x.shape[1])
            return h

    trace(Counting(), X)
    assert (Counting.count, seen) == (1, [16])


def test_a_copy_leads_to_itself():
    model = ClosureOfAHelper()
    model.child = Child(model)
    skeleton = make_skeleton(model)
    assert skeleton.child.parent() is skeleton
    skeleton.use(X, X)
    assert skeleton.calls == [1]
    assert model.calls == [0]
    assert skeleton.map.weight is model.map.weight
