"""What a rule may ask about a parameter and about the model around it; computed when it is asked for, once."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from ghn.base.neighbours import Neighbours
from ghn.base.propagation import chain_lengths, repeats, summands
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES, NORMS
from ghn.graph.structure import has_attention

CHARACTERS = 512
"""Tokens up to which a vocabulary is one of characters or bytes, whose order says more than they do. Of words a model
learns first what each alone says, and what attention and positions add is noise before they are trained."""

BATCH_STATISTICS = frozenset({"batch_norm", "group_norm", "instance_norm"})
"""Normalizations over more than the channels of one position."""
POSITION_NORMS = frozenset({"layer_norm", "rms_norm"})
"""Normalizations over the channels of one position alone."""
VECTOR_ROLES = frozenset({"embedding", "token", "position"})
"""Tables of vectors, and vectors that join a sequence."""
RECTIFIERS = ACTIVATIONS - {"sigmoid", "tanh", "hardsigmoid", "hardtanh"}
"""Activations that pass large positive numbers."""

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class ModelTraits:
    """What the graph says about the whole model."""

    graph: ComputationGraph

    @cached_property
    def contexts(self) -> dict[str, "ParamContext"]:
        """Every attached parameter in its surroundings, by name, in the order of ``graph.params``."""
        return {spec.name: ParamContext(spec, self) for spec in self.graph.params if spec.node is not None}

    @cached_property
    def has_attention(self) -> bool:
        """Whether it has attention in any form: a transformer."""
        return has_attention(self.graph)

    @cached_property
    def norms(self) -> frozenset[str]:
        """Kinds of normalization that it has anywhere but on its inputs."""
        return frozenset(self.graph.nodes[index].kind for index in self._hidden_operations) & NORMS

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens its largest table holds; 0 if it looks none up."""
        return max((table.shape[0] for table in self._tables), default=0)

    @property
    def reads_tokens(self) -> bool:
        """Whether it looks tokens up."""
        return self.vocabulary > 0

    @cached_property
    def ties_tokens(self) -> bool:
        """Whether a table that it looks tokens up in is also used elsewhere: as its output map."""
        return any(len(table.names) > 1 for table in self._tables)

    @cached_property
    def has_positions(self) -> bool:
        """Whether it adds a table of positions."""
        return any(spec.role == "position" for spec in self.graph.params)

    @cached_property
    def cuts_patches(self) -> bool:
        """Whether it cuts images into patches, and has no other convolution over pixels or space."""
        spatial = {spec.name for spec in self.graph.params if spec.role == "conv" and kernel_points(spec) > 1}
        return bool(self._stems) and spatial <= self._stems and not self._tables

    @cached_property
    def forgets_lengths(self) -> bool:
        """Whether all its normalizations are over the channels of one position: they take away how long a vector is."""
        return bool(self.norms) and self.norms <= POSITION_NORMS

    @cached_property
    def sums_sets(self) -> bool:
        """Whether it adds up the members of sets, not messages along edges of a graph, and nothing normalizes."""
        messages = any(node.kind == "scatter" for node in self.graph.nodes)
        return not messages and any(count > 1 for count in self._summands.values())

    @cached_property
    def rectified_batch_norms(self) -> int:
        """Batch normalizations, but for the stem's, whose output rectifiers alone read."""
        return sum(
            context.spec.role == "norm_bias" and context.feeds_only_rectifiers
            for context in self.contexts.values()
        )

    def word_share(self, least: float) -> float:
        """Size of what words need less of at the start than characters: 1 for characters, ``least`` at the least."""
        return max(least, CHARACTERS / max(self.vocabulary, CHARACTERS))

    def once(self, key: Hashable, make: Callable[[ComputationGraph], Value]) -> Value:
        """What ``make`` says about the graph, which it is asked once for each key: a rule's own look at the model."""
        if key not in self._answers:
            self._answers[key] = make(self.graph)
        answer: Value = self._answers[key]  # type: ignore[assignment]
        return answer

    @cached_property
    def _answers(self) -> dict[Hashable, object]:
        return {}

    @cached_property
    def neighbours(self) -> Neighbours:
        """Who feeds whom beyond additions of a bias."""
        return Neighbours(self.graph)

    @cached_property
    def _hidden_operations(self) -> Set[int]:
        """Operations with a map or table, and those that read, however indirectly, what one makes."""
        operations = {
            operation
            for context in self.contexts.values()
            if context.spec.role in MIXING_ROLES | VECTOR_ROLES
            for operation in context.operations
        }
        for node in self.graph.nodes:
            if not operations.isdisjoint(self.graph.activations(node.index)):
                operations.add(node.index)
        return operations

    @cached_property
    def _norm_ancestors(self) -> Set[int]:
        """Nodes that a normalization reads, however indirectly."""
        nodes: set[int] = set()
        for node in reversed(self.graph.nodes):
            if node.index in nodes or node.kind in NORMS:
                nodes |= set(self.graph.activations(node.index))
        return nodes

    @cached_property
    def _tables(self) -> list[ParamSpec]:
        return [spec for spec in self.graph.params if spec.role == "embedding"]

    @cached_property
    def _first_operations(self) -> Set[int]:
        inputs = [node.index for node in self.graph.nodes if node.kind == "input"]
        return {reader for node in inputs for reader in self.graph.readers(node)}

    @cached_property
    def _last_operations(self) -> Set[int]:
        """What is put out beside being used, as keys and values for a cache, makes none."""
        kinds = [node.kind for node in self.graph.nodes]
        readers = ((node, self.graph.readers(node)) for node in range(len(kinds)))
        return {node for node, own in readers if own and all(kinds[reader] == "output" for reader in own)}

    @cached_property
    def _branch_ends(self) -> Set[str]:
        """Names of what ends residual branches, and of what shifts a normalization that does."""
        ends = {name for add in self.graph.residual_adds for name in add.branch_ends}
        contexts = self.contexts.values()
        operations = {
            operation for context in contexts if context.spec.name in ends for operation in context.operations
        }
        shifts = (context for context in contexts if context.spec.role == "norm_bias")
        return ends | {shift.spec.name for shift in shifts if not operations.isdisjoint(shift.operations)}

    @cached_property
    def _parameter_free_branches(self) -> Set[str]:
        return {name for add in self.graph.residual_adds if add.bare for name in add.branch_ends}

    @cached_property
    def _stems(self) -> Set[str]:
        """Names of the convolutions that read images."""
        return {
            context.spec.name
            for context in self.contexts.values()
            if _fits_images(context.spec) and not self._first_operations.isdisjoint(context.operations)
        }

    @cached_property
    def _stem_operations(self) -> Set[int]:
        """Convolutions that read images, and the normalizations right behind them."""
        stems = {operation for name in self._stems for operation in self.contexts[name].operations}
        behind = {reader for operation in stems for reader in self.graph.readers(operation)}
        return stems | {reader for reader in behind if self.graph.nodes[reader].kind in NORMS}

    @cached_property
    def _attention_weights(self) -> Set[str]:
        return {name for attention in self.graph.attentions for name in attention.names}

    @cached_property
    def _constant_factors(self) -> Mapping[int, float]:
        """Operations that multiply by a constant, and the constant."""
        factors = {node.index: node.attributes.get("factor") for node in self.graph.nodes}
        return {index: factor for index, factor in factors.items() if isinstance(factor, float)}

    @cached_property
    def _lookup_factors(self) -> Mapping[int, float]:
        """Linear maps of something that was multiplied by a constant, and the constant."""
        return {
            reader: factor
            for node, factor in self._constant_factors.items()
            for reader in self.graph.readers(node)
            if self.graph.nodes[reader].kind == "linear"
        }

    @cached_property
    def _scaled_readers(self) -> Mapping[int, Set[int]]:
        return {node: set(self.graph.readers(node)) for node in self._constant_factors}

    @cached_property
    def _chain_lengths(self) -> list[int]:
        return chain_lengths(self.graph)

    @cached_property
    def _summands(self) -> Mapping[int, float]:
        return {} if self.norms else summands(self.graph)

    @cached_property
    def _fan_ins(self) -> Mapping[int, float]:
        """What each result of a matrix or kernel is the sum of, that of its bias too."""
        sums: dict[int, float] = {}
        for context in self.contexts.values():
            if context.spec.role in MIXING_ROLES:
                own = fans(context.spec)[0] / context.stride
                sums |= dict.fromkeys(context.results, own)
        return sums


@dataclass(frozen=True, eq=False)
class ParamContext:
    """One parameter, and what the graph says about its surroundings."""

    spec: ParamSpec
    traits: ModelTraits

    @cached_property
    def operations(self) -> tuple[int, ...]:
        """Numbers of the operations that the parameter is an operand of."""
        assert self.spec.node is not None
        return tuple(self.traits.graph.readers(self.spec.node))

    @cached_property
    def results(self) -> Set[int]:
        """Its operations, and the additions of a bias to what they make."""
        return {node for operation in self.operations for node in self.traits.neighbours.results(operation)}

    @cached_property
    def _final_readers(self) -> Set[int]:
        neighbours = self.traits.neighbours
        return {reader for operation in self.operations for reader in neighbours.final_readers(operation)}

    @cached_property
    def readers(self) -> frozenset[str]:
        """Kinds of the operations that read the result of the parameter's own operation."""
        return frozenset(self.traits.graph.nodes[reader].kind for reader in self._final_readers)

    @property
    def feeds_outputs(self) -> bool:
        """Whether its operation makes an output of the model."""
        return "output" in self.readers

    @cached_property
    def fan_in(self) -> float:
        """Elements that its operation sums for one output."""
        return max(1.0, fans(self.spec)[0] / self.stride)

    @cached_property
    def fan_out(self) -> float:
        """Outputs that one input is written to."""
        return fans(self.spec)[1]

    @cached_property
    def operation_fan_in(self) -> float:
        """What the operation that a bias belongs to sums for one output; 0 if that is no matrix or kernel."""
        return max((self.traits._fan_ins.get(operation, 0.0) for operation in self.operations), default=0.0)

    @cached_property
    def stride(self) -> float:
        """Points that a transposed convolution makes of one, so that each sums as many times fewer; 1 for others."""
        if self.spec.role != "conv_transpose":
            return 1.0
        nodes = self.traits.graph.nodes
        strides = (nodes[operation].attributes.get("stride", 1.0) for operation in self.operations)
        points = (math.prod(stride) if isinstance(stride, tuple) else stride for stride in strides)
        return max(1.0, min(points, default=1.0))

    @cached_property
    def branches(self) -> int:
        """Residual additions in the whole model if the parameter, or the norm that it shifts, ends a branch, or 0."""
        return len(self.traits.graph.residual_adds) if self.spec.name in self.traits._branch_ends else 0

    @property
    def ends_parameter_free_branch(self) -> bool:
        """Whether it scales a residual branch without a matrix or kernel, as a pooling."""
        return self.spec.name in self.traits._parameter_free_branches

    @cached_property
    def in_stem(self) -> bool:
        """Whether its operation is a convolution that reads images, or the normalization right behind it."""
        return not self.traits._stem_operations.isdisjoint(self.operations)

    @property
    def is_linear(self) -> bool:
        """Whether its operation is a linear map."""
        return all(self.traits.graph.nodes[operation].kind == "linear" for operation in self.operations)

    @property
    def reads_inputs(self) -> bool:
        """Whether its operation reads an input of the model."""
        return not self.traits._first_operations.isdisjoint(self.operations)

    @property
    def filters_images(self) -> bool:
        """Whether its columns are the colours and pixels of images."""
        return self.spec.name in self.traits._stems

    @property
    def in_attention(self) -> bool:
        """Whether it makes queries, keys or values, or reads what attention makes of them."""
        return self.spec.name in self.traits._attention_weights

    @cached_property
    def is_input_or_output(self) -> bool:
        """Whether its rows or columns are those of the model's inputs or outputs: pixels, tokens, classes.

        Between them, rows and columns are hidden units, which have no identity under a random base: nothing can be
        known of them before training.
        """
        return not (
            self.traits._last_operations.isdisjoint(self.results)
            and self.traits._first_operations.isdisjoint(self.operations)
        )

    @cached_property
    def feeds_last_operation(self) -> bool:
        """Whether what its operation makes is read, or read times a constant, by the one that makes the output."""
        traits, readers = self.traits, self._final_readers
        beyond = {each for reader in readers for each in traits._scaled_readers.get(reader, ())}
        return not traits._last_operations.isdisjoint(readers | beyond)

    @cached_property
    def lookup_factor(self) -> float:
        """Constant that what its linear map reads was multiplied by: T5 shrinks what it looks up in its tied table."""
        return math.prod(self.traits._lookup_factors.get(operation, 1.0) for operation in self.operations)

    @cached_property
    def padding_row(self) -> int | None:
        """Row that is looked up for padding alone, and never trained."""
        nodes = self.traits.graph.nodes
        rows = {nodes[operation].attributes.get("padding") for operation in self.operations}
        row = rows.pop() if len(rows) == 1 else None
        return row if isinstance(row, int) else None

    @cached_property
    def feeds_only_rectifiers(self) -> bool:
        """Whether the parameter belongs to a batch normalization, but the stem's, that rectifiers alone read."""
        nodes = self.traits.graph.nodes
        batch = all(nodes[operation].kind == "batch_norm" for operation in self.operations)
        return batch and not self.in_stem and bool(self.readers) and self.readers <= RECTIFIERS

    @cached_property
    def chain_length(self) -> int:
        """Operations with a matrix or kernel on the longest way from the inputs to the outputs through its own."""
        return max((self.traits._chain_lengths[operation] for operation in self.operations), default=1)

    @cached_property
    def is_repeated(self) -> bool:
        """Whether its operation is one of a loop, and reads what the last turn made."""
        return repeats(self.traits.graph, self.operations)

    @cached_property
    def is_unnormalized(self) -> bool:
        """Whether weights alone keep the size of what its operation makes, up to the outputs.

        Where nothing normalizes anywhere, and of linear maps behind the last normalization of a network that neither
        attends nor looks tokens up.
        """
        traits = self.traits
        if not traits.norms:
            return True
        if traits.has_attention or traits.reads_tokens:
            return False
        return self.is_linear and traits._norm_ancestors.isdisjoint(self.operations)

    @cached_property
    def summands(self) -> float:
        """Activations that were added up for each one that it reads, where nothing normalizes."""
        return max((self.traits._summands.get(operation, 1.0) for operation in self.operations), default=1.0)

    def mean_or(self, default: float) -> float:
        """Where its values lie if the way to its operation says so, else a default."""
        return default if self.spec.centre is None else self.spec.centre


def contexts(graph: ComputationGraph) -> dict[str, ParamContext]:
    """Every attached parameter of a graph in its surroundings, by name."""
    return ModelTraits(graph).contexts


def fans(spec: ParamSpec) -> tuple[float, float]:
    """Fan-in and fan-out of one group of a mixing parameter (elements read per output, written per input)."""
    sizes: dict[str, float] = defaultdict(lambda: 1.0)
    for axis, size in zip(spec.axes, spec.shape, strict=True):
        sizes[axis] *= size
    # conv_transpose stores (in, out / groups); all others (out, in / groups).
    per_group_in, per_group_out = sizes["in"], sizes["out"]
    if spec.role == "conv_transpose":
        per_group_in /= spec.groups
    else:
        per_group_out /= spec.groups
    return max(per_group_in * sizes["spatial"], 1), max(per_group_out * sizes["spatial"], 1)


def kernel_points(spec: ParamSpec) -> int:
    """Points of a convolution's kernel."""
    return math.prod(size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "spatial")


def _fits_images(spec: ParamSpec) -> bool:
    """Whether the columns of a parameter can be grey or coloured images, or videos."""
    return spec.role == "conv" and spec.groups == 1 and len(spec.shape) > 3 and spec.shape[1] in (1, 3)
