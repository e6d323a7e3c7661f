"""Watches a forward pass operation by operation and writes down who reads whose results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from ghn.graph import values
from ghn.graph.ops import kind_of
from ghn.graph.skeleton import ParameterRegistry, has_storage, storage_key

MOVES = frozenset({"shape", "concat", "stack"})
"""Kinds whose results hold their operands' values elsewhere."""

LIKES = frozenset("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty".split())


@dataclass(frozen=True)
class Operand:
    """Stands for a tensor among the arguments of a recorded call."""

    position: int
    """In ``RawNode.inputs``."""


@dataclass
class RawNode:
    """One recorded input, parameter, operation or output."""

    kind: str
    operation: str = ""
    module: str = ""
    inputs: list[tuple[int, int]] = field(default_factory=list)
    """(source node, slot); the slot is the position of the schema's argument, plus the position in a list argument."""
    shape: tuple[int, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the call by name, with tensors replaced by their shapes."""
    parameter: int | None = None
    taken: list[int] = field(default_factory=list)
    """For each of ``inputs``, which of the source's results it is."""
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None
    """Operations that only move values: function and arguments, with an ``Operand`` for each tensor."""


class Recorder(TorchDispatchMode):
    """Runs operations on meta tensors (or on known values) and records them as ``RawNode``s."""

    def __init__(self, registry: ParameterRegistry, skeleton: nn.Module, truth: bool = False) -> None:
        super().__init__()
        self.nodes: list[RawNode] = []
        self.registry = registry
        self.truth = truth
        self.last = ("", "")
        """Module and operation that ran last, for error messages."""
        self._modules = {id(module): name for name, module in skeleton.named_modules()}
        self._stack: list[str] = []
        self._node_of: dict[int, int] = {}
        self._number_of: dict[int, int] = {}
        self._writer_of: dict[int, int] = {}
        self._parameter_nodes: dict[int, int] = {}
        self._owned: set[int] = set()
        self._unknown: set[int] = set()
        self._alive: list[Any] = []
        self._answers = 0

    def enter_module(self, module: nn.Module, *_: Any) -> None:
        """Forward pre-hook: operations belong to this module from here on."""
        self._stack.append(self._modules.get(id(module), self._stack[-1] if self._stack else ""))

    def leave_module(self, *_: Any) -> None:
        """Forward hook, called after failures too."""
        if self._stack:
            self._stack.pop()

    @property
    def _module(self) -> str:
        return self._stack[-1] if self._stack else ""

    def add_input(self, tensor: Tensor) -> None:
        """Record a tensor that the caller passes in."""
        self._remember(tensor, self._add(RawNode("input", shape=tuple(tensor.shape))))

    def add_outputs(self, result: Any) -> None:
        """Record what the model returned."""
        for tensor in tensors_in(result):
            source = self._source(tensor)
            if source is not None:
                self._add(RawNode("output", inputs=[(source, 0)], shape=tuple(tensor.shape), taken=[0]))

    def known(self, tensor: Tensor) -> bool:
        """Whether a tensor's values are constants of the trace rather than shapes alone."""
        return (
            tensor.device.type != "meta"
            and has_storage(tensor)
            and tensor.numel() <= values.MAX_KNOWN_NUMEL
            and storage_key(tensor) not in self._unknown
            and self.registry.find(tensor) is None
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        self.last = (self._module, name)
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        written = [
            value
            for argument, value in _bound(func, args, kwargs)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
        ]
        if written and name not in values.ANSWERS:
            return self._write(func, name, args, kwargs, tensors, written)
        result = self._evaluate(func, name, args, kwargs, tensors)
        if name not in values.ANSWERS:
            self._record(func, name, args, kwargs, tree_flatten(result)[0])
        return result

    def _evaluate(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]
    ) -> Any:
        known = all(self.known(tensor) for tensor in tensors)
        if not tensors and name in values.FACTORIES and _factory_numel(args) > values.MAX_KNOWN_NUMEL:
            known = False
        if not known and name in LIKES and _like_numel(name, args) <= values.MAX_KNOWN_NUMEL:
            args, known = (_stand_in(args[0]), *args[1:]), True
        if not known and name in values.ANSWERS:
            self._answers += 1
            if self._answers > values.PATIENCE:
                return values.restless_answer(name, args, self._answers)
        if not known:
            return values.run_unknown(func, name, self._hide(args), self._hide(kwargs), self.truth)
        return values.run_known(func, _on_cpu(args), _on_cpu(kwargs))

    def _write(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        written: list[Tensor],
    ) -> Any:
        """In-place operations: run on what the trace owns; of the model's own tensors, only note the write."""
        mine = all(storage_key(t) in self._owned for t in written if t.device.type != "meta")
        if mine and all(self.known(tensor) for tensor in tensors):
            result = values.run_known(func, args, kwargs)
        else:
            real = [tensor for tensor in written if tensor.device.type != "meta"]
            self._unknown.update(storage_key(tensor) for tensor in real)
            result = values.run_unknown(func, name, self._hide(args), self._hide(kwargs), self.truth)
            if real:
                result = written[0] if isinstance(result, Tensor) else result
        node = self._record(func, name, args, kwargs, written)
        if node is not None:
            for tensor in written:
                self._writer_of[storage_key(tensor)] = node
                self._node_of[id(tensor)] = node
                self._number_of[id(tensor)] = 0
        return result

    def _hide(self, value: Any) -> Any:
        """Meta twins in place of parameters and of tensors whose values became unknown."""
        return tree_map_only(
            Tensor, lambda tensor: tensor if self.known(tensor) else values.to_meta(tensor), value
        )

    def _record(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], results: list[Any]
    ) -> int | None:
        outputs = [result for result in results if isinstance(result, Tensor)]
        inputs: list[tuple[int, int]] = []
        taken: list[int] = []
        operands: dict[int, Operand] = {}
        for slot, tensor in _slots(func, args, kwargs):
            source = self._source(tensor)
            if source is not None:
                operands[id(tensor)] = Operand(len(inputs))
                inputs.append((source, slot))
                taken.append(
                    self._number_of.get(id(tensor), 0) if source == self._node_of.get(id(tensor)) else 0
                )
        node = None
        if inputs and outputs:
            shape = tuple(outputs[0].shape)
            summary = {argument.name: _summary(value) for argument, value in _bound(func, args, kwargs)}
            kind = kind_of(name)
            call = None
            if kind in MOVES:
                placed = tree_map_only(Tensor, lambda tensor: operands.get(id(tensor)), (args, kwargs))
                call = (func, *placed)
            node = self._add(
                RawNode(kind, name, self._module, inputs, shape, summary, taken=taken, call=call)
            )
        for number, tensor in enumerate(outputs):
            self._remember(tensor, node, number)
        return node

    def _remember(self, tensor: Tensor, node: int | None, number: int = 0) -> None:
        self._alive.append(tensor)
        key = storage_key(tensor)
        if tensor.device.type != "meta":
            self._owned.add(key)
        if node is not None:
            self._node_of[id(tensor)] = node
            self._number_of[id(tensor)] = number
            self._writer_of.setdefault(key, node)

    def _source(self, tensor: Tensor) -> int | None:
        """Node whose result a tensor holds: the last writer of its storage, or of itself."""
        parameter = self.registry.find(tensor)
        if parameter is not None and parameter not in self._parameter_nodes:
            shape = tuple(self.registry.tensors[parameter].shape)
            self._parameter_nodes[parameter] = self._add(
                RawNode("parameter", shape=shape, parameter=parameter)
            )
        candidates = [
            node
            for node in (
                self._parameter_nodes[parameter] if parameter is not None else None,
                self._node_of.get(id(tensor)),
                self._writer_of.get(storage_key(tensor)),
            )
            if node is not None
        ]
        return max(candidates, default=None)

    def _add(self, node: RawNode) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1


class HonestReads(TorchFunctionMode):
    """Answers the few reads that never reach the dispatcher: ``tolist``, ``numpy`` and printing."""

    _READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__repr__, Tensor.__format__)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in self._READS and args and isinstance(args[0], Tensor) and args[0].device.type == "meta":
            args = (values.ones_like_meta(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def tensors_in(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """All tensors of nested containers, dataclasses and plain objects."""
    if isinstance(value, Tensor):
        yield value
    elif depth == 0 or value is None or isinstance(value, str | int | float | bool):
        return
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry, depth - 1)
    elif isinstance(value, list | tuple | set):
        for entry in value:
            yield from tensors_in(entry, depth - 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_in(getattr(value, entry.name), depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        yield from tensors_in(vars(value), depth - 1)


def _bound(func: Any, args: Any, kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    """The schema's arguments with the values they got."""
    arguments = func._schema.arguments
    bound = list(zip(arguments, args, strict=False))
    return bound + [
        (argument, kwargs[argument.name]) for argument in arguments[len(args) :] if argument.name in kwargs
    ]


def _slots(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[tuple[int, Tensor]]:
    position = {argument.name: number for number, argument in enumerate(func._schema.arguments)}
    for argument, value in _bound(func, args, kwargs):
        entries = value if isinstance(value, list | tuple) else [value]
        for offset, entry in enumerate(entries):
            if isinstance(entry, Tensor):
                yield position[argument.name] + offset, entry


def _summary(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, list | tuple):
        return tuple(_summary(entry) for entry in value)
    return value if isinstance(value, int | float | bool | str) else None


def _factory_numel(args: Any) -> int:
    sizes = (
        args[0]
        if args and isinstance(args[0], list | tuple)
        else [arg for arg in args[:1] if isinstance(arg, int)]
    )
    total = 1
    for size in sizes:
        total *= int(size)
    return total


def _like_numel(name: str, args: Any) -> int:
    return _factory_numel(args[1:]) if name.startswith("new_") else args[0].numel()


def _stand_in(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def _on_cpu(value: Any) -> Any:
    return tree_map_only(
        Tensor, lambda tensor: tensor.cpu() if tensor.device.type != "cpu" else tensor, value
    )
