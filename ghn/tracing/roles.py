"""What each parameter is for: its role and the roles of its axes, read off the operations it reaches."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

from ghn.graph.ops import ELEMENTWISE, MIXERS, MIXING_ROLES, NORMS, PRODUCTS
from ghn.tracing.operands import Role, heads, mixing_role, table, unknown_role, vector
from ghn.tracing.paths import BROADCASTS, FAITHFUL, NORM_SLOTS, PathFinder, Use, extent
from ghn.tracing.recorder import RawNode

CODED = frozenset(
    "linalg_householder_product slogdet linalg_slogdet _linalg_slogdet logdet det linalg_det _linalg_det inverse "
    "linalg_inv linalg_inv_ex".split()
)
"""Operations on parameters whose operands are no numbers that a weight could have: torch's orthogonal parametrization
keeps reflections and signs; a normalizing flow counts the determinant of its matrix."""

COSINE_SCALE = 10.0
"""What multiplies cosines starts at this: Swin v2's and CLIP-like models' temperature is a tenth."""

NEUTRAL = {"exp": 0.0, "softplus": math.log(math.e - 1)}
"""Where a parameter lies that is to multiply by one, behind these operations."""

COSINE_CENTRES = {"exp": math.log(COSINE_SCALE), "softplus": COSINE_SCALE}
"""Where one lies that multiplies cosines."""

MULTIPLIERS = frozenset("scale layer_scale log_scale norm_weight slope".split())
"""Roles of what multiplies activations: whatever it goes through before, it stays a multiplier."""

ADDENDS = frozenset({"position", "bias", "shift"})
"""Roles of what is added to activations, if nothing else is known of it."""

TABLES = frozenset({"token", "position", "relative_bias"})
"""Roles of what joins activations or is added to them."""

SUMMED = frozenset({"in", "spatial"})
"""Axes of a weight that its operation sums over."""

CARRIERS = ELEMENTWISE | NORMS | {"linear", "conv", "conv_transpose", "shape", "softmax", "concat", "stack"}
"""Kinds through which a network that makes weights goes on."""

NTK_TOLERANCE = 0.05
"""How near a factor before or behind a linear map has to be to the inverse root of its fan, or of its fan over two, or
to its inverse, to be a part of its weight."""

COMPUTES = "other parameters are computed with it"


class RoleFinder(PathFinder):
    """Finds the roles of all parameters of one recorded run."""

    def role(self, parameter: int) -> Role:
        """Role of the parameter recorded at a node, in terms of its own axes."""
        shape = self.nodes[parameter].shape
        candidates = [self._settle(use) for use in self.uses(parameter)]
        if not candidates:
            return unknown_role(shape, "nothing that is computed from it reaches an activation")
        role, use = min(candidates, key=self._preference)
        if role.role in ADDENDS:
            role, use = next(filter(self._is_query, candidates), (role, use))
        if role.role == "unknown":
            return unknown_role(shape, role.reason)
        if role.role in MIXING_ROLES | {"bias"} and self._is_frequency(use.node):
            return unknown_role(shape, "a sine reads what it makes: its size is a frequency")
        if self._makes_weights[use.node] and not self.constant[use.node]:
            return unknown_role(shape, "what it makes are weights of another operation")
        if self.reached_through(parameter, CODED):
            return unknown_role(
                shape, "the model needs its determinant or inverse, or reflections that it stands for"
            )
        if role.role in ("embedding", "linear") and self._is_codebook(
            role.role, [use for _, use in candidates]
        ):
            return unknown_role(shape, "the model computes distances to its rows")
        axes = own_axes(shape, role, use)
        if axes is None or _is_cut(shape, candidates):
            return unknown_role(shape, "one tensor holds several that have different roles")
        if use.sums and not set(axes) - {"one", "unknown"}:
            return unknown_role(shape, COMPUTES)
        return self._with_factors(shape, role, use, axes)

    def _is_query(self, candidate: tuple[Role, Use]) -> bool:
        """Whether a linear map reads a tensor as its input, which makes it one of the activations.

        A learned query to which the answer is added is neither a position nor a bias.
        """
        role, use = candidate
        return role.role == "token" and use.slot == 0 and self.nodes[use.node].kind == "linear"

    def _preference(self, candidate: tuple[Role, Use]) -> tuple[bool, bool, bool]:
        """Order of several uses: tables that are looked up first, then what says most, then what meets activations."""
        role, use = candidate
        return role.role != "embedding", role.role in ("unknown", "matrix"), self.constant[use.node]

    def _settle(self, use: Use) -> tuple[Role, Use]:
        """Role in one use, 'unknown' where what happens on the way leaves open what its values should be."""
        role = self._role_of(use)
        if use.inner and not use.noisy and self._acts_as_input(use):
            own = mixing_role(self.nodes[use.inner.node], use.inner.slot, use.inner.shape, False)
            return own or Role("token", table(use.inner.shape)), use.inner
        if role.role in MULTIPLIERS and not use.noisy:
            return role, use
        if use.masked and role.role in TABLES:
            return unknown_role(
                use.shape, "known numbers multiply it, one for each entry: it is no table"
            ), use
        computes = use.sums and role.role not in MIXING_ROLES
        if doubt := use.doubt or (COMPUTES if computes else ""):
            return unknown_role(use.shape, doubt), use
        if use.gain:
            return Role("weight_norm_scale" if self._is_normalized(use) else "scale", vector(use.shape)), use
        return role, use

    def _acts_as_input(self, use: Use) -> bool:
        """Whether what a network computes from parameters meets activations as one of them, not as a weight."""
        node = self.nodes[use.node]
        weight = node.kind in MIXERS - {"attention"} or node.kind in ("embedding", "output")
        return not weight or (node.kind == "matmul" and len(use.shape) > 2)

    def _is_normalized(self, use: Use) -> bool:
        """Whether the rows of the weight that it is a part of are divided by their length."""
        pending, seen = [source for source, slot in self.nodes[use.node].inputs if slot == use.slot], set()
        while pending:
            index = pending.pop()
            if self.nodes[index].kind == "norm" and self.constant[index]:
                return True
            if index not in seen and self.constant[index]:
                pending += [source for source, _ in self.nodes[index].inputs]
            seen.add(index)
        return False

    def _is_codebook(self, role: str, uses: Iterable[Use]) -> bool:
        """Whether activations meet more of a table than its rows: their squares, for distances."""
        doubts = {self.nodes[use.node].kind for use in uses if use.doubt} - {"output"}
        return bool(doubts & {"add", "sub"} if role == "linear" else doubts)

    def _with_factors(self, shape: tuple[int, ...], role: Role, use: Use, axes: tuple[str, ...]) -> Role:
        """A role with the known numbers that multiply a parameter on its way, or what its map reads or makes."""
        role = role._replace(axes=axes, factor=1.0 if use.factor is None else use.factor)
        if role.role not in MIXING_ROLES or use.factor is None:
            return role
        fan = math.prod(size for size, axis in zip(shape, axes, strict=True) if axis in SUMMED)
        before = [
            self._origin(source) for source, _ in self.nodes[use.node].inputs if not self.constant[source]
        ]
        behind = self._scale_behind(use.node)
        for index in before if behind is None else [*before, behind]:
            factor = self.nodes[index].factor
            scales = (1 / math.sqrt(fan), math.sqrt(2 / fan), 1 / fan)
            if fan > 1 and any(abs(factor / each - 1) < NTK_TOLERANCE for each in scales):
                return role._replace(factor=role.factor * factor)
        return role if behind is None else role._replace(behind=self.nodes[behind].factor)

    @cached_property
    def _makes_weights(self) -> list[bool]:
        """Whether everything that is computed from a node's result ends as a weight or bias of another operation."""
        ends = [False] * len(self.nodes)
        for index in reversed(range(len(self.nodes))):
            ends[index] = bool(self.readers[index]) and all(
                _takes_weight(self.nodes[reader], slot)
                or (ends[reader] and self.nodes[reader].kind in CARRIERS)
                for reader, slot in self.readers[index]
            )
        return ends

    def _is_frequency(self, node: int) -> bool:
        """Whether a sine reads what a linear map makes, perhaps scaled or with a bias added."""
        pending, seen = [node], {node}
        while pending:
            readers = {reader for reader, _ in self.readers[pending.pop()]} - seen
            if any(self.nodes[reader].kind in ("sin", "cos") for reader in readers):
                return True
            seen |= readers
            pending += [
                reader
                for reader in readers
                if self.nodes[reader].kind == "shape" or self._is_scaled_or_biased(reader)
            ]
        return False

    def _is_scaled_or_biased(self, index: int) -> bool:
        """Whether a node multiplies one activation by a known number, or adds a vector of parameters to one."""
        node = self.nodes[index]
        activations = sum(not self.constant[source] for source, _ in node.inputs)
        return activations == 1 and (
            node.kind == "add" or (node.kind in ("mul", "div") and len(node.inputs) == 1)
        )

    def _scale_behind(self, node: int) -> int | None:
        """The multiplication by a known number that alone reads what an operation makes, perhaps with a bias added.

        None if a product reads it next, whose scale that is: of queries and keys.
        """
        while len(self.readers[node]) == 1:
            node = self.readers[node][0][0]
            kind, inputs = self.nodes[node].kind, self.nodes[node].inputs
            if kind in ("mul", "div") and len(inputs) == 1:
                return None if self._is_multiplied(node) else node
            if not self._is_scaled_or_biased(node) and kind not in ("shape", "dropout"):
                return None
        return None

    def _is_multiplied(self, index: int) -> bool:
        """Whether a product of activations reads a value, looking through shape operations."""
        kinds = {self.nodes[reader].kind for reader, _ in self.readers[index]}
        return bool(kinds & (PRODUCTS | {"attention"})) or any(
            self._is_multiplied(reader)
            for reader, _ in self.readers[index]
            if self.nodes[reader].kind == "shape"
        )

    def _role_of(self, use: Use) -> Role:
        node, rank = self.nodes[use.node], len(use.shape)
        if ("weight_norm", 1) in use.through:
            return Role("weight_norm_scale", vector(use.shape))
        mixing = mixing_role(node, use.slot, use.shape, self._is_counted(node))
        if mixing is not None:
            return mixing
        if node.kind in NORM_SLOTS and use.slot in NORM_SLOTS[node.kind]:
            of_weight = self.constant[use.node] and use.through  # a gain of weight standardization
            names = ("scale", "shift") if of_weight else ("norm_weight", "norm_bias")
            return Role(names[NORM_SLOTS[node.kind].index(use.slot)], vector(use.shape))
        if node.kind == "prelu" and use.slot == 1:
            return Role("slope", vector(use.shape))
        if node.kind == "attention":
            return Role("relative_bias", heads(rank)) if use.slot == 3 else Role("token", table(use.shape))
        if node.kind in ("concat", "stack", "where", "scatter", "copy", "index") and extent(use.shape) >= 1:
            return Role("token", table(use.shape))
        if node.kind in ("mul", "div") or node.operation in ("pow", "addcmul"):
            return self._multiplier(use)
        if node.kind in ("add", "sub"):
            return self._addend(use)
        if node.kind == "output":
            return unknown_role(use.shape, "the model only returns it")
        if node.kind in ELEMENTWISE and extent(use.shape) < 2:
            return Role("shift", vector(use.shape))
        return unknown_role(use.shape, f"no rule says what an operand of {node.operation!r} should be")

    def _multiplier(self, use: Use) -> Role:
        links = [kind for kind, _ in use.through if kind in NEUTRAL]
        others = [source for source, _ in self.nodes[use.node].inputs if not self.constant[source]]
        if links:
            if len(links) > 1 or any(kind not in FAITHFUL | NEUTRAL.keys() for kind, _ in use.through):
                return unknown_role(use.shape, "it goes through more than one function before it multiplies")
            return self._behind_exponential(use, links[0], others)
        if (product := self._dot_product(use, others)) is not None:
            return product
        if any(self._was_normalized(source) for source in others):
            return Role("norm_weight", vector(use.shape))
        if use.offset:
            return Role("scale", vector(use.shape), centre=1.0 - use.offset)
        if self.nodes[use.node].kind == "mul" and self._joins_residual(use.node):
            return Role("layer_scale", vector(use.shape))
        if extent(use.shape) >= 2 and self._tells_apart(use, others):
            return unknown_role(
                use.shape, "it tells members of an ensemble apart, which is their owner's choice"
            )
        return Role("scale", vector(use.shape))

    def _behind_exponential(self, use: Use, link: str, others: Sequence[int]) -> Role:
        """Role of what multiplies behind an exponential: a decay, a temperature, or neither."""
        if self._decays(use.node):
            states = len(use.shape) == 2 and min(use.shape) > 1
            return Role("log_scale", ("channel", "unknown") if states else vector(use.shape))
        cosines = extent(use.shape) < 2 and any(self._is_cosine(source, use.shape) for source in others)
        return Role("log_scale", vector(use.shape), centre=COSINE_CENTRES[link] if cosines else NEUTRAL[link])

    def _decays(self, index: int, depth: int = 6) -> bool:
        """Whether a value is exponentiated, as the rates of a state space are."""
        kinds = ("shape", "neg", "mul", "clamp", "cumsum", "pad", "sub", "where", "triangular")
        return any(
            self.nodes[reader].kind == "exp"
            or (depth and self.nodes[reader].kind in kinds and self._decays(reader, depth - 1))
            for reader, _ in self.readers[index]
        )

    def _is_cosine(self, index: int, shape: tuple[int, ...]) -> bool:
        """Whether a value is a product of two normalized ones; or, if one number multiplies it, a normalized one."""
        index = self._origin(index)
        node = self.nodes[index]
        factors = [source for source, _ in node.inputs]
        if node.kind in PRODUCTS | {"linear"} and len(factors) >= 2:
            return all(self._is_unit(source) for source in factors[:2])
        return extent(shape) == 0 and self._is_unit(index)

    def _is_unit(self, index: int, depth: int = 8) -> bool:
        """Whether a value was divided by its length."""
        node = self.nodes[index]
        if node.kind == "norm" or self._was_normalized(index):
            return True
        if (
            node.kind == "div"
            and len(node.inputs) == 2
            and self._measures(node.inputs[1][0], node.inputs[0][0])
        ):
            return True
        passes = node.kind in ELEMENTWISE | {"shape", "index"} or self.constant[index]
        return bool(depth and passes) and any(self._is_unit(source, depth - 1) for source, _ in node.inputs)

    def _measures(self, index: int, vector: int, summed: bool = False, depth: int = 8) -> bool:
        """Whether a value is computed from a sum over a vector: the root of its squares."""
        if index == vector:
            return summed
        node = self.nodes[index]
        inside = node.kind in ELEMENTWISE | {"shape", "sum", "mean"}
        return bool(depth and inside) and any(
            self._measures(source, vector, summed or node.kind == "sum", depth - 1)
            for source, _ in node.inputs
        )

    def _dot_product(self, use: Use, others: Sequence[int]) -> Role | None:
        """Role of what multiplies activations that are then summed along its own axis; None if they are not."""
        readers = [self.nodes[reader] for reader, _ in self.readers[use.node]]
        if not readers or any(reader.operation != "sum" for reader in readers):
            return None
        shape = self.nodes[use.node].shape
        dims = readers[0].arguments.get("dim")
        dims = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
        sums = {dim % len(shape) for dim in dims} if shape else set()
        first = len(shape) - len(use.shape)
        axes = []
        for axis, size in enumerate(use.shape, start=first):
            shared = any(self._size(source, axis - len(shape)) > 1 for source in others)
            axes.append("one" if size == 1 else "in" if axis in sums else "expert" if shared else "out")
        if "in" not in axes:
            return None
        if len(axes) == 1:
            return Role("matrix", ("in",))
        return Role("expert" if "expert" in axes else "linear", tuple(axes))

    def _tells_apart(self, use: Use, others: Sequence[int]) -> bool:
        """Whether a multiplier makes several out of one along an axis of its own, or is looked up."""
        axes = [axis - len(use.shape) for axis, size in enumerate(use.shape) if size > 1]
        return any(kind in ("index", "gather", "embedding") for kind, _ in use.through) or any(
            all(self._size(source, axis) == 1 for source in others) for axis in axes
        )

    def _size(self, index: int, axis: int) -> int:
        """Size of a value along an axis, counted from the last, before it was expanded."""
        node = self.nodes[index]
        if node.operation in BROADCASTS and node.inputs:
            return self._size(node.inputs[0][0], axis)
        return node.shape[axis] if -axis <= len(node.shape) else 1

    def _addend(self, use: Use) -> Role:
        others = [source for source, _ in self.nodes[use.node].inputs if not self.constant[source]]
        origins = [self.nodes[self._maker(source)] for source in others]
        if extent(use.shape) and any(self._outputs(origin) == math.prod(use.shape) for origin in origins):
            return Role("bias", vector(use.shape))
        if self._reaches_softmax(use.node):
            return Role("relative_bias", heads(len(use.shape)))
        if extent(use.shape) >= 2 and (self._is_affine(use, others) or _has_gap(use.shape)):
            return Role("bias", vector(use.shape))
        if extent(use.shape) >= 2 and self.nodes[use.node].kind == "sub":
            return unknown_role(use.shape, "the model takes differences to its rows")
        if extent(use.shape) >= 2:
            return Role("position", table(use.shape))
        if any(self.nodes[source].kind == "mul" and self._was_normalized(source) for source in others):
            return Role("norm_bias", vector(use.shape))
        return Role(
            "bias" if any(origin.kind in MIXERS for origin in origins) else "shift", vector(use.shape)
        )

    def _is_affine(self, use: Use, others: Sequence[int]) -> bool:
        """Whether something is added to what a tensor of the same shape multiplies."""
        return any(
            self.nodes[source].kind == "mul"
            and any(
                self.constant[each] and self.nodes[each].shape == use.shape
                for each, _ in self.nodes[source].inputs
            )
            for source in others
        )

    def _outputs(self, node: RawNode) -> int:
        """How many outputs the weight of a linear map or convolution makes, one bias each; 0 if it has none."""
        for source, slot in node.inputs:
            shape = self.nodes[source].shape
            role = mixing_role(node, slot, shape, False) if self.constant[source] else None
            if role is not None and role.role in MIXING_ROLES:
                sizes = zip(shape, role.axes, strict=True)
                groups = role.groups if role.role == "conv_transpose" else 1
                return groups * math.prod(size for size, axis in sizes if axis in ("out", "expert"))
        return 0

    def _is_counted(self, node: RawNode) -> bool:
        """Whether a look-up reads at running counts."""
        return node.kind == "embedding" and any(
            self._counts(source) for source, slot in node.inputs if slot == 1
        )

    def _counts(self, index: int, depth: int = 8) -> bool:
        """Whether indices are running counts: RoBERTa's positions, of tokens that are no padding."""
        node = self.nodes[index]
        if node.kind == "cumsum" or depth == 0:
            return node.kind == "cumsum"
        return node.kind in ELEMENTWISE | {"shape"} and any(
            self._counts(source, depth - 1) for source, _ in node.inputs
        )

    def _origin(self, index: int) -> int:
        """Where a value was computed, looking through shape operations."""
        while self.nodes[index].kind in ("shape", "dropout") and self.nodes[index].inputs:
            index = self.nodes[index].inputs[0][0]
        return index

    def _maker(self, index: int) -> int:
        """Where a value was computed, looking through multiplications by known numbers too."""
        index = self._origin(index)
        while self.nodes[index].kind in ("mul", "div") and len(self.nodes[index].inputs) == 1:
            index = self._origin(self.nodes[index].inputs[0][0])
        return index

    def _was_normalized(self, index: int, depth: int = 5) -> bool:
        node = self.nodes[index]
        if node.kind in NORM_SLOTS and self._has_weight(node):
            return False  # what multiplies it is no second weight
        if (
            node.kind in NORMS
            or node.kind == "rsqrt"
            or node.operation in ("linalg_vector_norm", "std", "var_mean")
        ):
            return True
        if depth == 0 or node.kind not in ELEMENTWISE | {"shape", "mean"}:
            return False
        return any(
            self._was_normalized(source, depth - 1) for source, _ in node.inputs if not self.constant[source]
        )

    def _has_weight(self, norm: RawNode) -> bool:
        weight, _ = NORM_SLOTS[norm.kind]
        return any(slot == weight and self.constant[source] for source, slot in norm.inputs)

    def _joins_residual(self, index: int, depth: int = 4) -> bool:
        for reader, _ in self.readers[index]:
            node = self.nodes[reader]
            activations = [source for source, _ in node.inputs if not self.constant[source]]
            if node.kind == "add" and len(activations) == 2:
                return True
            light = node.kind in ("shape", "dropout", "mul", "div") and len(activations) == 1
            if depth and light and self._joins_residual(reader, depth - 1):
                return True
        return False

    def _reaches_softmax(self, index: int, depth: int = 5) -> bool:
        for reader, slot in self.readers[index]:
            node = self.nodes[reader]
            if node.kind == "softmax" or (node.kind == "attention" and slot == 3):
                return True
            if (
                depth
                and node.kind in ("shape", "add", "where", "clamp")
                and self._reaches_softmax(reader, depth - 1)
            ):
                return True
        return False


def _takes_weight(node: RawNode, slot: int) -> bool:
    """Whether an operand is the weight or the bias of a map."""
    return slot in (1, 2) and (node.operation == "linear" or node.kind in ("conv", "conv_transpose"))


def own_axes(shape: tuple[int, ...], role: Role, use: Use) -> tuple[str, ...] | None:
    """Axes of a parameter by those of the tensor that an operation sees.

    Returns:
        None if an axis of the parameter is summed over in one part of that tensor and not in another.
    """
    labels: list[list[str]] = [[] for _ in shape]
    for axis, label in zip(use.axes, role.axes, strict=True):
        if axis is not None and label not in ("one", "unknown"):
            labels[axis].append(label)
    for first in {first for _, first in use.joins}:
        together = sorted({first, *(axis for axis, other in use.joins if other == first)})
        parts = [[label] for label in labels[first]]
        if len(parts) != len(together):  # if as many, they were put apart again
            parts = [labels[first]] * len(together)
        for axis, part in zip(together, parts, strict=True):
            labels[axis] = labels[axis] + part if axis != first else part
    if any(not SUMMED.isdisjoint(names) and not SUMMED.issuperset(names) for names in labels):
        return None
    for axis in use.sums:
        if not labels[axis]:
            rest = {label for names in labels for label in names}
            labels[axis] = ["in" if rest & {"out", "expert"} else "out"] if rest else []
    axes = ("one" if size == 1 else (*names, "unknown")[0] for size, names in zip(shape, labels, strict=True))
    return tuple(axes)


def _has_gap(shape: tuple[int, ...]) -> bool:
    """Whether a tensor differs along two axes around one that it is the same along: by members and channels."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    return bool(long) and long[-1] - long[0] >= len(long)


def _is_cut(shape: tuple[int, ...], candidates: Sequence[tuple[Role, Use]]) -> bool:
    """Whether operations see only parts of a parameter, in different roles."""
    uses = [(role.role, use.shape) for role, use in candidates if role.role != "unknown"]
    parts = all(math.prod(part) < math.prod(shape) for _, part in uses)
    return parts and len({_group(role) for role, _ in uses}) > 1


def _group(role: str) -> str:
    """Roles between which one tensor can't serve both."""
    if role in MULTIPLIERS:
        return "multiplier"
    return (
        "weight" if role in MIXING_ROLES else "vector" if role in ("bias", "shift", "norm_bias") else "table"
    )
