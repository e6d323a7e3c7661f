"""Watches a forward pass operation by operation and writes down who reads whose results."""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ghn.errors import TraceError
from ghn.graph.ops import kind_of
from ghn.tensors import has_storage, storage_key
from ghn.tracing import values
from ghn.tracing.einsum import as_product
from ghn.tracing.forms import map_tensors, to_meta
from ghn.tracing.inputs import tensors_in
from ghn.tracing.registry import ParameterRegistry

MOVES = frozenset({"shape", "concat", "stack"})
"""Kinds whose results hold their operands' values elsewhere."""

DRAWS = frozenset("rand randn randint normal uniform bernoulli".split())
"""Operations that make random numbers."""

MASKED = frozenset({"attention", "add", "sub", "mul", "where"})
"""Kinds whose operand may be a mask of scores."""

LIKES = frozenset("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty".split())

AS_SHAPED = frozenset("expand_as view_as reshape_as".split())
"""Operations that only ask for the shape of their second operand."""


@dataclass(frozen=True)
class Operand:
    """Stands for a tensor among the arguments of a recorded call."""

    position: int
    """Where the tensor is in ``RawNode.inputs``."""


@dataclass(slots=True)
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
    causal: bool = False
    """Whether it lets every token see itself and all earlier ones alone: by a known mask, or by saying so."""
    negative: bool = False
    """Whether it multiplies by known values that are negative on the whole; of complex ones, imaginary parts count."""
    factor: float = 1.0
    """Known number that it multiplies by."""
    noisy: bool = False
    """Whether it computes with numbers that the run has drawn."""
    parameter: int | None = None
    outputs: list[int] = field(default_factory=list)
    """For each of ``inputs``, which of the source's results it is."""
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None
    """Operations that only move values: function and arguments, with an ``Operand`` for each tensor."""


@dataclass(frozen=True, slots=True)
class _Schema:
    """What of an operation's schema matters here."""

    name: str
    """Name without namespace and overload."""
    kind: str
    arguments: tuple[str, ...]
    writes: frozenset[int]
    """Positions of the arguments that are written in place."""
    results: tuple[int | None, ...]
    """For each result, the position of the written argument that it is; None for one of its own."""


@cache
def _schema(func: Any) -> _Schema:
    name = func._schema.name.partition("::")[2]
    writes = {
        position: _aliases(argument)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    names = tuple(argument.name for argument in func._schema.arguments)
    results = tuple(
        next((position for position, alias in writes.items() if alias and alias == _aliases(entry)), None)
        for entry in func._schema.returns
    )
    return _Schema(name, kind_of(name), names, frozenset(writes), results)


def _aliases(entry: Any) -> frozenset[str]:
    """Letters by which a schema says that an argument and a result are the same tensor."""
    return frozenset(entry.alias_info.before_set) if entry.alias_info is not None else frozenset()


class _Call:
    """One call of an operation, its arguments bound to the schema."""

    __slots__ = ("args", "arguments", "func", "kwargs", "schema", "target_at", "targets", "tensors")

    def __init__(self, schema: _Schema, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.schema, self.func, self.args, self.kwargs = schema, func, args, kwargs
        self.arguments: list[tuple[str, Any]] = list(zip(schema.arguments, args, strict=False))
        """Values by the names of the arguments, in their order."""
        self.tensors: list[tuple[int, Tensor]] = []
        """(slot, tensor): the position of the argument, plus the position in a list argument."""
        self.targets: list[Tensor] = []
        """Tensors that are written in place."""
        self.target_at: dict[int, Tensor] = {}
        """Those of ``targets`` that are an argument alone, by its position."""
        pairs = list(enumerate(args))
        if kwargs:
            rest = range(len(args), len(schema.arguments))
            positions = [position for position in rest if schema.arguments[position] in kwargs]
            pairs += [(position, kwargs[schema.arguments[position]]) for position in positions]
            self.arguments += [(schema.arguments[position], value) for position, value in pairs[len(args) :]]
        for position, value in pairs:
            if isinstance(value, Tensor):
                self.tensors.append((position, value))
                if position in schema.writes:
                    self.targets.append(value)
                    self.target_at[position] = value
            elif isinstance(value, list | tuple):
                entries = [
                    (position + offset, entry)
                    for offset, entry in enumerate(value)
                    if isinstance(entry, Tensor)
                ]
                self.tensors += entries
                if position in schema.writes:
                    self.targets += [entry for _, entry in entries]


class Recorder(TorchDispatchMode):
    """Runs operations on meta tensors (or on known values) and records them as ``RawNode``s."""

    def __init__(self, registry: ParameterRegistry, skeleton: nn.Module, truth: bool = False) -> None:
        super().__init__()
        self.nodes: list[RawNode] = []
        self.registry = registry
        self.truth = truth
        self.last = ("", "")
        """Module and operation that ran last, for error messages."""
        self.draws_are_inputs = False
        """Whether random numbers count as inputs: of a model that is given none."""
        self._modules = {id(module): name for name, module in skeleton.named_modules()}
        self._stack: list[str] = []
        self._node_of: dict[int, int] = {}
        self._number_of: dict[int, int] = {}
        self._writer_of: dict[int, int] = {}
        self._parameter_nodes: dict[int, int] = {}
        self._constants: set[int] = set()
        self._own_storages: set[int] = set()
        self._unknown_storages: set[int] = set()
        self._tensors: dict[int, Tensor] = {}
        self._foreign: dict[int, Tensor] = {}
        self._foreign_storages: set[int] = set()
        self._noise_storages: set[int] = set()
        self._answers = 0

    @property
    def operations(self) -> int:
        """Number of operations so far."""
        return sum(bool(node.operation) for node in self.nodes)

    def enter_module(self, module: nn.Module, *_: Any) -> None:
        """Forward pre-hook: operations belong to this module from here on."""
        self._stack.append(self._modules.get(id(module), self._stack[-1] if self._stack else ""))

    def leave_module(self, *_: Any) -> None:
        """Forward hook, called after failures too."""
        if self._stack:
            self._stack.pop()

    def set_data(self, tensor: Tensor, value: Tensor) -> None:
        """Assign to ``tensor.data``: parameters stay what they are, other tensors hold the value from here on."""
        if tensor.shape != value.shape:
            raise TraceError(
                f"its forward replaces the .data of a tensor of shape {plain_shape(tensor)} by one of shape "
                f"{plain_shape(value)}; its parameters must have their shapes before"
            )
        if self.registry.find(tensor) is not None:
            return
        source = self._source(value)
        if id(tensor) in self._tensors and tensor.device == value.device:
            tensor.data = value
        else:
            self._unknown_storages.add(storage_key(tensor))
        if source is not None:
            self._writer_of[storage_key(tensor)] = source

    def note_alias(self, alias: Tensor, tensor: Tensor) -> None:
        """Note a tensor that shares another one's memory without an operation."""
        if id(tensor) in self._tensors:
            self._tensors[id(alias)] = alias
        else:
            self._foreign[id(alias)] = alias

    def gradient(self, outputs: Any, inputs: Any) -> tuple[Tensor, ...]:
        """Gradients of some tensors with respect to others; they depend on both.

        Of a parameter it counts as a copy, so that a step along it is still that parameter.
        """
        variables, functions = (
            [_unwrap(tensor) for tensor in tensors_in(value)] for value in (inputs, outputs)
        )
        results = [_unwrap(torch.empty_like(to_meta(tensor))) for tensor in variables]
        gradients = []
        for tensor, result in zip(variables, results, strict=True):
            if self._source(tensor) in self._constants:
                self._invent("copy", "grad", [tensor], [result])
            else:
                gradients.append(result)
        self._invent("other", "grad", [*functions, *variables], gradients)
        return tuple(results)

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention over ragged sequences; the values are as wide as the queries."""
        result = query.clone()
        self._invent("attention", "scaled_dot_product_attention", [query, key, value], [result])
        return result

    def _invent(self, kind: str, name: str, tensors: list[Tensor], results: list[Tensor]) -> None:
        """Record an operation that never reaches the dispatcher."""
        inputs = [
            (source, slot)
            for slot, tensor in enumerate(tensors)
            if (source := self._source(tensor)) is not None
        ]
        node = None
        if inputs and results:
            shape, numbers = plain_shape(results[0]), [0] * len(inputs)
            node = self._add(RawNode(kind, name, self._module, inputs, shape, outputs=numbers))
            if all(source in self._constants for source, _ in inputs):
                self._constants.add(node)
        for number, result in enumerate(results):
            self._remember(result, node, number)

    def release(self) -> list[weakref.ref[Tensor]]:
        """Let go of all tensors that were made; those that live on are somewhere outside of the model's copy."""
        references = [weakref.ref(tensor) for tensor in self._tensors.values()]
        self._tensors.clear()
        return references

    @property
    def _module(self) -> str:
        return self._stack[-1] if self._stack else ""

    def add_input(self, tensor: Tensor, users: bool = False) -> None:
        """Record a tensor that the caller passes in; the user's own is not the trace's to write to."""
        if users:
            self._note_foreign(tensor)
        self._remember(tensor, self._add(RawNode("input", shape=plain_shape(tensor))))

    def add_outputs(self, result: Any) -> None:
        """Record what the model returned."""
        for tensor in tensors_in(result):
            source = self._source(tensor)
            if source is not None:
                self._add(RawNode("output", inputs=[(source, 0)], shape=plain_shape(tensor), outputs=[0]))

    def is_known(self, tensor: Tensor) -> bool:
        """Whether a tensor's values are constants of the trace rather than shapes alone."""
        return (
            tensor.device.type != "meta"
            and has_storage(tensor)
            and tensor.numel() <= values.MAX_KNOWN_NUMEL
            and storage_key(tensor) not in self._unknown_storages
            and self.registry.find(tensor) is None
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # what follows asks tensors where they really are
            return self._dispatch(_Call(_schema(func), func, args, kwargs or {}))

    def _dispatch(self, call: "_Call") -> Any:
        name = call.schema.name
        self.last = (self._module, name)
        for _, tensor in (
            call.tensors if name != "lift_fresh" else ()
        ):  # which makes a tensor of Python's numbers
            if id(tensor) not in self._tensors and id(tensor) not in self._foreign:
                self._note_foreign(tensor)
        if name in values.ANSWERS:
            return self._evaluate(call)
        if call.targets:
            return self._write(call)
        if name == "einsum" and not any(
            self._source(tensor) in self._constants for _, tensor in call.tensors
        ):
            with self:
                product = as_product(call.args[0], call.args[1])
            if product is not None:
                return product
        result = self._evaluate(call)
        self._record(call, [result] if isinstance(result, Tensor) else tree_leaves(result))
        return result

    def _evaluate(self, call: "_Call") -> Any:
        name, args = call.schema.name, call.args
        known = all(self.is_known(tensor) for _, tensor in call.tensors)
        if not call.tensors and name in values.FACTORIES and _factory_numel(args) > values.MAX_KNOWN_NUMEL:
            known = False
        if not known and name in LIKES and _like_numel(name, args) <= values.MAX_KNOWN_NUMEL:
            args, known = (_stand_in(args[0]), *args[1:]), True
        if (
            not known
            and name in AS_SHAPED
            and self.is_known(args[0])
            and args[1].numel() <= values.MAX_KNOWN_NUMEL
        ):
            args, known = (args[0], _stand_in(args[1])), True
        if not known and name in values.ANSWERS:
            self._answers += 1
            if self._answers > values.PATIENCE:
                return values.restless_answer(name, args, self._answers)
        if not known:
            return self._run_unknown(call)
        return values.run_known(
            call.func, map_tensors(Tensor.cpu, args), map_tensors(Tensor.cpu, call.kwargs)
        )

    def _run_unknown(self, call: "_Call") -> Any:
        """Run on meta twins in place of parameters and of tensors whose values became unknown."""
        args, kwargs = map_tensors(self._hide, call.args), map_tensors(self._hide, call.kwargs)
        return values.run_unknown(call.func, call.schema.name, args, kwargs, self.truth)

    def _hide(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta and self.registry.find(tensor) is not None and has_storage(tensor):
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return tensor if tensor.is_meta or self.is_known(tensor) else to_meta(tensor)

    def _write(self, call: "_Call") -> Any:
        """In-place operations: run on what the trace owns; of the model's own tensors, only note the write."""
        real = [tensor for tensor in call.targets if tensor.device.type != "meta"]
        mine = all(storage_key(tensor) in self._own_storages for tensor in real)
        if mine and all(self.is_known(tensor) for _, tensor in call.tensors):
            result = values.run_known(call.func, call.args, call.kwargs)
        else:
            self._unknown_storages.update(storage_key(tensor) for tensor in real)
            result = self._run_unknown(call)
        results = list(result) if isinstance(result, tuple | list) else [result]
        for number, position in enumerate(call.schema.results):
            if position in call.target_at:
                results[number] = call.target_at[position]
        ids = {id(tensor) for tensor in call.targets}
        own = [entry for entry in tree_leaves(results) if isinstance(entry, Tensor) and id(entry) not in ids]
        node = self._record(call, [*own, *call.targets])
        if node is not None:
            for tensor in call.targets:
                self._writer_of[storage_key(tensor)] = node
        return type(result)(results) if isinstance(result, tuple | list) else results[0]

    def _record(self, call: "_Call", results: list[Any]) -> int | None:
        outputs = [result for result in results if isinstance(result, Tensor)]
        inputs: list[tuple[int, int]] = []
        numbers: list[int] = []
        operands: dict[int, Operand] = {}
        for slot, tensor in call.tensors:
            source = self._source(tensor)
            if source is not None:
                operands[id(tensor)] = Operand(len(inputs))
                inputs.append((source, slot))
                numbers.append(
                    self._number_of.get(id(tensor), 0) if source == self._node_of.get(id(tensor)) else 0
                )
        node = None
        noisy = bool(self._noise_storages) and any(
            storage_key(tensor) in self._noise_storages for _, tensor in call.tensors
        )
        if not inputs and (noisy or call.schema.kind == "random"):
            self._noise_storages.update(storage_key(tensor) for tensor in outputs)
        if inputs and outputs:
            name, shape = call.schema.name, plain_shape(outputs[0])
            arguments = {argument: _summary(value) for argument, value in call.arguments}
            replay = None
            if call.schema.kind in MOVES:
                places = map_tensors(lambda tensor: operands.get(id(tensor)), (call.args, call.kwargs))
                replay = (call.func, *places)
            kind = call.schema.kind
            if kind == "hardtanh" and arguments.get("min_val") == 0:
                kind = "relu6"  # as torch itself runs it
            causal = bool(arguments.get("is_causal")) or (kind in MASKED and self._has_causal_mask(call))
            factors = [
                value for _, value in call.arguments if not isinstance(value, Tensor) or self.is_known(value)
            ]
            negative = kind == "mul" and any(_is_negative(factor) for factor in factors)
            node = self._add(
                RawNode(
                    kind,
                    name,
                    self._module,
                    inputs,
                    shape,
                    arguments,
                    causal,
                    negative,
                    self._factor(call) if kind in ("mul", "div") else 1.0,
                    noisy,
                    outputs=numbers,
                    call=replay,
                )
            )
            if all(source in self._constants for source, _ in inputs):
                self._constants.add(node)
        elif outputs and self.draws_are_inputs and call.schema.name in DRAWS:
            node = self._add(RawNode("input", shape=plain_shape(outputs[0])))
        for number, tensor in enumerate(outputs):
            self._remember(tensor, node, number)
        return node

    def _has_causal_mask(self, call: "_Call") -> bool:
        """Whether an operand is a known mask with one value up to the diagonal and another beyond it."""
        masks = [tensor for _, tensor in call.tensors if tensor.dim() > 1 and self.is_known(tensor)]
        return any(_is_triangular(mask) for mask in masks if mask.shape[-1] == mask.shape[-2] > 1)

    def _note_foreign(self, tensor: Tensor) -> None:
        """Note something that was there before the run."""
        self._foreign[id(tensor)] = tensor
        if (key := storage_key(tensor)) not in self._own_storages:
            self._foreign_storages.add(key)

    def _factor(self, call: "_Call") -> float:
        """Size of the known number that a call multiplies by, or one over that which it divides by."""
        name, numbers = call.schema.name.rstrip("_"), {}
        for argument, value in call.arguments:
            if (
                isinstance(value, Tensor)
                and value.numel() == 1
                and not value.is_complex()
                and self.is_known(value)
            ):
                value = value.item()
            if argument in ("self", "other") and isinstance(value, int | float) and 0 < abs(value) < math.inf:
                numbers[argument] = abs(float(value))
        if name in ("mul", "multiply"):
            return math.prod(numbers.values())
        return 1 / numbers.get("other", 1.0) if name in ("div", "true_divide") else 1.0

    def _remember(self, tensor: Tensor, node: int | None, number: int = 0) -> None:
        key = storage_key(tensor)
        if id(tensor) not in self._foreign:
            self._tensors[id(tensor)] = tensor
        if tensor.device.type != "meta" and key not in self._foreign_storages:
            self._own_storages.add(key)
        if node is not None:
            self._node_of[id(tensor)] = node
            self._number_of[id(tensor)] = number
            self._writer_of.setdefault(key, node)

    def _source(self, tensor: Tensor) -> int | None:
        """Node whose result a tensor holds: the last writer of its storage, or of itself."""
        parameter = self.registry.find(tensor)
        if parameter is not None and parameter not in self._parameter_nodes:
            shape = tuple(self.registry.tensors[parameter].shape)
            node = self._add(RawNode("parameter", shape=shape, parameter=parameter))
            self._parameter_nodes[parameter] = node
            self._constants.add(node)
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


def _unwrap(tensor: Tensor) -> Tensor:
    """What is inside of the tensors that ``torch.func`` differentiates."""
    while torch._C._functorch.is_gradtrackingtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if torch._C._functorch.is_batchedtensor(tensor):
        raise TraceError(
            "its forward takes gradients inside of torch.vmap, which a run on shapes alone can't follow"
        )
    return tensor


def plain_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape of a tensor in numbers; a ragged axis counts as many entries as all of its rows together."""
    if tensor.is_nested and tensor.layout == torch.strided:
        return (len(rows := tensor.unbind()), sum(len(row) for row in rows), *rows[0].shape[1:])
    if all(type(size) is int for size in tensor.shape):
        return tuple(tensor.shape)
    total = cast(Any, tensor).values().shape[cast(Any, tensor)._ragged_idx - 1] if tensor.is_nested else 1
    return tuple([size if type(size) is int else total for size in tensor.shape])


def _summary(value: Any) -> Any:
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Tensor):
        return plain_shape(value)
    return tuple([_summary(entry) for entry in value]) if isinstance(value, (list, tuple)) else None


def _factory_numel(args: Any) -> int:
    sizes = (
        args[0]
        if args and isinstance(args[0], list | tuple)
        else [arg for arg in args[:1] if isinstance(arg, int)]
    )
    return math.prod(map(int, sizes))


def _like_numel(name: str, args: Any) -> int:
    return _factory_numel(args[1:]) if name.startswith("new_") else args[0].numel()


def _is_triangular(mask: Tensor) -> bool:
    """Whether the first matrix of a mask has one value up to the diagonal and another beyond it."""
    if mask.numel() == 0:
        return False
    matrix = mask.reshape(-1, *mask.shape[-2:])[0].cpu()
    below, beyond = matrix[0, 0], matrix[0, 1]
    lower = torch.ones(matrix.shape, dtype=torch.bool, device="cpu").tril()
    return bool(below != beyond) and torch.equal(matrix, torch.where(lower, below, beyond))


def _is_negative(number: Tensor | complex) -> bool:
    if not isinstance(number, Tensor):
        return (number.imag if isinstance(number, complex) else number) < 0
    return bool((number.imag if number.is_complex() else number).sum() < 0)


def _stand_in(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
