"""Where predicted values are centred and how far they spread, by role, fan and place in the graph."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ghn.decoder import plain
from ghn.decoder.heads import CHARACTERS, looking_back
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES, NORMS
from ghn.graph.structure import attentions, has_attention, residual_adds

FANS = ("fan_in", "fan_out", "zoo")

TABLE_ROLES = frozenset({"embedding", "position", "token", "relative_bias"})
"""Roles whose rows are read one at a time."""

CENTRES = {
    "norm_weight": 1.0,
    "scale": 1.0,
    "layer_scale": 1.0,  # divided by the square root of the number of residual branches; 0 if nothing on them learns
    "log_scale": math.log(10.0),  # temperature 0.1, as Swin v2 and CLIP-like models start
    "slope": 0.25,  # nn.PReLU
    "weight_norm_scale": math.sqrt(1 / 3),  # length of a row of torch's default linear map
}
"""Value around which a vector is predicted; 0 for roles not listed."""

OPEN_BIAS = 1.0
"""Bias of a batch normalization whose output only rectifiers read. What they read has unit variance, so that five in
six units pass instead of half, and the network is closer to a linear one. Convolutional networks end one to nine points
higher; behind other normalizations, which keep the mean of the next layer, it costs as much, and StarNet loses by it
behind the stem (scripts/LOG.md)."""

LEAST_OPEN = 8
"""Such normalizations below which their biases stay 0: through few layers rectifiers lose little, and a network that is
nearly linear learns more slowly. With one to seven of them networks end up to five points lower by such biases, with
eleven one ends four points higher (scripts/LOG.md)."""

VECTOR_SPREAD = 0.25
"""Spread of a vector around its centre at full trust, relative to the centre."""

BIAS_SPREAD = 0.05
"""Spread at full trust of vectors centred at zero, relative to activations of unit variance."""

POSITION_SPREAD = 0.5
"""Of position tables that are added to patches, of unit variance or less. The zoos' 0.02 leaves a vision transformer
without positions until it has learned them: 41 against 45 % after 400 steps, see scripts/LOG.md."""

STEM_BIAS_SPREAD = 0.5
"""Of the biases of a first convolution in networks with layer normalizations alone, as large as what it makes of an
image. Without them the first normalization takes away how bright a patch is and how much contrast it has, and leaves
the direction alone: an MLP-Mixer ends three points lower. A table of positions does the same, and with both a vision
transformer learns more slowly at first (scripts/LOG.md)."""

RELATIVE_BIAS_SPREAD = 0.02
"""Of Swin's and BEiT's tables."""

DEFAULT_GAIN = math.sqrt(1 / 3)
"""Of torch's default linear map and convolution: uniform within ``1 / sqrt(fan_in)``."""

RELU_GAIN = math.sqrt(2)
"""He et al., https://arxiv.org/abs/1502.01852"""

KERNEL_RATE = 0.03
"""Learning rate of Adam at which a step may be as large as a kernel that batch statistics normalize, in spectral norm.
How large such a kernel is changes nothing but how fast it learns, and narrow and depthwise ones of the size of He et
al. are the slowest of their network: MobileNetV2 ends three points higher, RegNet two (scripts/LOG.md)."""


LAST_NORM = 1.75
"""Of the normalization before the logits of language models, which end lower with larger logits (scripts/LOG.md)."""

LAST_WIDTH = 128
"""Width above which that normalization's weight falls as the root of 128 / width, where logits are taken with the table
of input tokens: a token's logit with itself grows with the root of the width."""

LAST_BIAS_SPREAD = 1.0
"""Spread at full trust of that normalization's bias, as large as what it is added to. It is all that the logits of
every position share: with it a learned token table can say how frequent each token is before any training, and language
models start below the entropy of a guess instead of above it (scripts/LOG.md)."""

WORD_POSITIONS = 0.1
"""Least size of a position table where tokens are words: it shrinks in proportion to the vocabulary, see ``CHARACTERS``
in ``ghn.decoder.heads``."""

WORD_ATTENTION = 0.4
"""Least size of each matrix of attention where tokens are words, in the same way; a branch starts at its square."""

HEADS_OUTPUT = 0.3
"""Of the matrix that reads heads that look back. What they bring is that of one token and not the mean of many, which
random heads make small (scripts/LOG.md)."""

HEAD_GAIN = 1.0
"""Of classifiers of patches, whose inputs are normalized: logits of unit variance. Twice that ends as high, but is
behind for the first fifth of the training; mixers end lower with torch's default (scripts/LOG.md)."""

HEAD_WIDTH = 128
"""Inputs from which classifiers of networks with batch normalization start smaller than torch's default, as 1/fan_in:
each step of an optimizer such as Adam changes their logits in proportion to fan_in (https://arxiv.org/abs/2203.03466)."""

LEAST_PIXELS = 16
"""Of a kernel whose spectrum is shaped: filters of 3×3 gain nothing by it, or lose."""

MESSAGE_STEPS = 4
"""Operations from a node's features to the sum of its neighbours' messages, at most."""

BATCH_STATISTICS = frozenset({"batch_norm", "group_norm", "instance_norm"})
PLACE_NORMS = frozenset({"layer_norm", "rms_norm"})
"""Over the channels of one place alone."""
RECTIFIERS = ACTIVATIONS - {"sigmoid", "tanh", "hardsigmoid", "hardtanh"}


@dataclass(frozen=True)
class Network:
    """What the graph says about the whole network."""

    attention: bool = False
    """It has attention: a transformer."""
    norms: frozenset[str] = frozenset()
    """Kinds of normalization that it has anywhere."""
    vocabulary: int = 0
    """How many tokens its largest table holds, whose vectors start small; 0 if it looks none up."""
    tied: bool = False
    """It looks them up in a table that is also its output map."""
    positions: bool = False
    """It adds a table of positions."""
    rectified: int = 0
    """Batch normalizations, but for the stem's, whose output rectifiers alone read."""
    patches: bool = False
    """It cuts images into patches, and has no other convolution over pixels or space."""

    sums_sets: bool = False
    """It adds up the members of sets, not messages along the edges of a graph, and nothing normalizes."""

    @property
    def tokens(self) -> bool:
        """Whether it looks tokens up."""
        return self.vocabulary > 0

    def of_words(self, least: float) -> float:
        """Size of what words need less of at the start than characters, down to a least share."""
        return max(least, CHARACTERS / max(self.vocabulary, CHARACTERS))


@dataclass(frozen=True)
class Place:
    """What the graph says about one parameter's surroundings."""

    network: Network = Network()
    branches: int = 0
    """Residual additions in the whole graph if this tensor or the norm that it shifts ends a residual branch, or 0."""
    bare: bool = False
    """That branch has no matrix or kernel."""
    readers: frozenset[str] = frozenset()
    """Kinds of the operations that read the result of the parameter's own operation."""
    batch: bool = False
    """The parameter belongs to a batch normalization."""
    boundary: bool = False
    """The parameter's rows or columns are those of the model's inputs or outputs: pixels, tokens, classes. Between
    them, rows and columns are hidden units, which have no identity under a random base: nothing can be known of them
    before training."""
    last: bool = False
    """What the parameter's operation makes is read by the one that makes the model's output."""
    factor: float = 1.0
    """What its linear map reads was multiplied by this constant: T5 shrinks what it looks up in its tied table."""
    padding: int | None = None
    """Row that is looked up for padding alone, and never trained."""
    stem: bool = False
    """The parameter's operation is a convolution that reads images, or the normalization right behind it."""
    pixels: bool = False
    """The columns are the colours and many pixels of an image, and norms alone read what is made of them."""
    attention: bool = False
    """It makes queries, keys or values, or reads what attention makes of them."""
    reads_looking_back: bool = False
    """It reads what heads make that look back."""
    chain: int = 1
    """Operations with a matrix or kernel on the longest way from the inputs to the outputs through its own."""
    repeated: bool = False
    """Its operation is one of a loop, and reads what the last turn made."""
    fan_in: float = 0.0
    """What its operation sums, at most; 0 if that is no matrix or kernel."""
    stride: float = 1.0
    """Points of the output for each of the input of a transposed convolution."""
    summands: float = 1.0
    """Activations that were added up for each one that it reads, where nothing normalizes."""

    @property
    def rectified(self) -> bool:
        """Whether the parameter belongs to a batch normalization, but the stem's, that rectifiers alone read."""
        return self.batch and not self.stem and bool(self.readers) and self.readers <= RECTIFIERS

    @property
    def plain_activation(self) -> float | None:
        """Gain of the activation that reads the parameter's map, if there is no normalization anywhere."""
        return None if self.network.norms else plain.activation_gain(self.readers)

    @property
    def plain_gain(self) -> float | None:
        """Gain of the parameter's map, if nothing but weights keeps the size of activations."""
        if self.plain_activation and self.repeated:  # one that would grow as often as it is repeated
            return RELU_GAIN if self.readers & RECTIFIERS else None
        return self.plain_activation and plain.chain_gain(self.plain_activation, self.chain)


@dataclass(frozen=True)
class Scale:
    """A parameter is ``centre + spread * (unit-variance numbers)``."""

    centre: float
    spread: float
    random: bool
    """Whether the unit-variance numbers have a random base."""
    common: bool = False
    """Whether all rows of the base share a vector, as large as what they have of their own."""


def places(graph: ComputationGraph) -> dict[str, Place]:
    """Look at the surroundings of every attached parameter of a graph, by name."""
    consumers: dict[int, list[int]] = defaultdict(list)
    for edge in graph.edges:
        consumers[edge.source].append(edge.target)
    # What is put out beside being used, as keys and values for a cache, makes no last operation.
    ends = {
        index for index, readers in consumers.items() if all(graph.nodes[r].kind == "output" for r in readers)
    }
    attached = [(spec, consumers[spec.node]) for spec in graph.params if spec.node is not None]
    inputs = [node.index for node in graph.nodes if node.kind == "input"]
    first = {operation for index in inputs for operation in consumers[index]}
    adds = residual_adds(graph)
    damped = {name for add in adds for name in add.branch_ends}
    ending = {operation for spec, operations in attached if spec.name in damped for operation in operations}
    damped |= {
        spec.name
        for spec, operations in attached
        if spec.role == "norm_bias" and not ending.isdisjoint(operations)
    }
    bare = {name for add in adds if add.bare for name in add.branch_ends}
    stems = {
        spec.name for spec, operations in attached if _fits_images(spec) and not first.isdisjoint(operations)
    }
    image_readers = {
        operation for spec, operations in attached if spec.name in stems for operation in operations
    }
    behind = {reader for operation in image_readers for reader in consumers[operation]}
    stem_operations = image_readers | {reader for reader in behind if graph.nodes[reader].kind in NORMS}
    network = _network(graph, stems)
    attention = {name for found in attentions(graph) for name in found.names}
    projections = {looking.attention.projection for looking in looking_back(graph)}
    constant = _constant_factors(graph)
    factors = {
        edge.target: constant[edge.source]
        for edge in graph.edges
        if edge.source in constant and graph.nodes[edge.target].kind == "linear"
    }
    seen = _Beyond(graph, consumers)
    chains, summands = plain.chain_lengths(graph), {} if network.norms else plain.summands(graph)
    summed: dict[int, float] = {}
    for spec, operations in attached:
        if spec.role in MIXING_ROLES:
            made = [node for operation in operations for node in seen.results(operation)]
            summed |= dict.fromkeys(made, fans(spec)[0] / _stride(graph, spec, operations))
    result = {}
    for spec, operations in attached:
        results = {node for operation in operations for node in seen.results(operation)}
        after = {reader for operation in operations for reader in seen.readers(operation)}
        scaled = {reader for node in after & constant.keys() for reader in consumers[node]}
        readers = frozenset(graph.nodes[reader].kind for reader in after)
        result[spec.name] = Place(
            network=network,
            branches=len(adds) if spec.name in damped else 0,
            bare=spec.name in bare,
            readers=readers,
            batch=all(graph.nodes[operation].kind == "batch_norm" for operation in operations),
            boundary=not ends.isdisjoint(results) or not first.isdisjoint(operations),
            last=not ends.isdisjoint(after | scaled),
            factor=math.prod(factors.get(operation, 1.0) for operation in operations),
            padding=_padding(graph, operations),
            stem=not stem_operations.isdisjoint(operations),
            pixels=spec.name in stems
            and _kernel(spec) >= LEAST_PIXELS
            and bool(readers)
            and readers <= NORMS,
            attention=spec.name in attention,
            reads_looking_back=spec in projections,
            chain=max((chains[operation] for operation in operations), default=1),
            repeated=not network.norms and plain.repeats(graph, operations),
            summands=max((summands.get(operation, 1.0) for operation in operations), default=1.0),
            fan_in=max((summed.get(operation, 0.0) for operation in operations), default=0.0),
            stride=_stride(graph, spec, operations),
        )
    opened = sum(spec.role == "norm_bias" and result[spec.name].rectified for spec, _ in attached)
    messages = any(node.kind == "scatter" for node in graph.nodes)
    sums_sets = not messages and any(count > 1 for count in summands.values())
    network = replace(network, rectified=opened, sums_sets=sums_sets)
    return {name: replace(place, network=network) for name, place in result.items()}


class _Beyond:
    """Who reads what an operation makes, looking beyond biases that are added to it, and messages that are passed."""

    def __init__(self, graph: ComputationGraph, consumers: Mapping[int, list[int]]) -> None:
        self.graph, self.consumers = graph, consumers
        roles = {spec.node: spec.role for spec in graph.params if spec.node is not None}
        sources: dict[int, list[int]] = defaultdict(list)
        for edge in graph.edges:
            sources[edge.target].append(edge.source)
        self.biased = {
            node.index
            for node in graph.nodes
            if node.kind == "add"
            and sorted(roles.get(source, "") for source in sources[node.index])
            in (["", "bias"], ["", "shift"])
        }

    def results(self, index: int) -> list[int]:
        """An operation, and the additions of a bias to what it makes."""
        readers = self.consumers.get(index, ())
        biased = [reader for reader in readers if reader in self.biased] if len(readers) == 1 else []
        return [index, *biased]

    def readers(self, index: int) -> set[int]:
        """Operations that read what one makes."""
        found: set[int] = set()
        for reader in self.consumers.get(index, ()):
            gathered = self.graph.nodes[reader].kind in ("index", "gather")
            beyond = [reader] if reader in self.biased else self._sums(reader) if gathered else []
            found |= {each for node in beyond for each in self.readers(node)} if beyond else {reader}
        return found

    def _sums(self, index: int, steps: int = MESSAGE_STEPS) -> list[int]:
        """Sums of messages that a value is, or becomes when it is weighted."""
        kind = self.graph.nodes[index].kind
        if kind == "scatter":
            return [index]
        if not steps or kind not in ("index", "gather", "mul", "div"):
            return []
        return [each for reader in self.consumers.get(index, ()) for each in self._sums(reader, steps - 1)]


def _padding(graph: ComputationGraph, operations: Iterable[int]) -> int | None:
    rows = {graph.nodes[operation].attributes.get("padding") for operation in operations}
    row = rows.pop() if len(rows) == 1 else None
    return row if isinstance(row, int) else None


def _stride(graph: ComputationGraph, spec: ParamSpec, operations: Iterable[int]) -> float:
    """Points that a transposed convolution makes of one, so that each sums as many times fewer; 1 for all others."""
    if spec.role != "conv_transpose":
        return 1.0
    strides = (graph.nodes[operation].attributes.get("stride", 1.0) for operation in operations)
    points = (math.prod(stride) if isinstance(stride, tuple) else stride for stride in strides)
    return max(1.0, min(points, default=1.0))


def _constant_factors(graph: ComputationGraph) -> dict[int, float]:
    """Operations that multiply by a constant, and the constant."""
    factors = {node.index: node.attributes.get("factor") for node in graph.nodes}
    return {index: factor for index, factor in factors.items() if isinstance(factor, float)}


def _network(graph: ComputationGraph, stems: set[str]) -> Network:
    """Facts of the whole network; ``stems`` are the names of convolutions that read images."""
    tables = [spec for spec in graph.params if spec.role == "embedding"]
    spatial = {spec.name for spec in graph.params if spec.role == "conv" and _kernel(spec) > 1}
    return Network(
        attention=has_attention(graph),
        norms=frozenset(node.kind for node in graph.nodes) & NORMS,
        vocabulary=max((spec.shape[0] for spec in tables), default=0),
        tied=any(len(table.names) > 1 for table in tables),
        positions=any(spec.role == "position" for spec in graph.params),
        patches=bool(stems) and spatial <= stems and not tables,
    )


def _fits_images(spec: ParamSpec) -> bool:
    """Whether the columns of a parameter can be grey or coloured images, or videos."""
    return spec.role == "conv" and spec.groups == 1 and len(spec.shape) > 3 and spec.shape[1] in (1, 3)


def _kernel(spec: ParamSpec) -> int:
    """Points of a convolution's kernel."""
    return math.prod(size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "spatial")


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


def scale_of(spec: ParamSpec, place: Place, fan: str) -> Scale:
    """Choose centre and spread of one parameter.

    Args:
        spec: The parameter.
        place: Its surroundings.
        fan: 'fan_in' or 'fan_out' for every mixing parameter, or 'zoo': what the model zoos do at such a place.

    Raises:
        ConfigError: If ``fan`` is none of ``FANS``.

    References:
        Hyperfan initialization, https://arxiv.org/abs/2312.08399; damping of residual branches as in GPT-2 and
        https://arxiv.org/abs/1901.09321
    """
    if fan not in FANS:
        raise ConfigError(f"fan must be one of {', '.join(FANS)}; got {fan!r}")
    scale = _rule(spec, place, fan)
    if not (scale.random or spec.role in ("bias", "shift")):
        return scale
    return replace(scale, centre=scale.centre / spec.factor, spread=scale.spread / spec.factor)


def _rule(spec: ParamSpec, place: Place, fan: str) -> Scale:
    """Centre and spread of what reaches the operation."""
    damping = 1 / math.sqrt(place.branches) if place.branches else 1.0
    if spec.role in MIXING_ROLES:
        spread = _mixing_spread(spec, place, fan, damping)
        return Scale(0.0, spread / math.sqrt(place.summands), random=True)
    if spec.role == "relative_bias":
        return Scale(0.0, RELATIVE_BIAS_SPREAD, random=True)
    if spec.role == "position" and not place.network.tokens:
        return Scale(0.0, POSITION_SPREAD, random=True)
    forgetful = place.network.norms and place.network.norms <= PLACE_NORMS
    if spec.role == "bias" and place.stem and forgetful and not place.network.positions:
        return Scale(0.0, STEM_BIAS_SPREAD, random=True)
    if spec.role == "bias" and place.fan_in and not place.network.norms and "output" not in place.readers:
        # At zero all units of a first layer bend at one point, which few inputs take long to tell apart.
        return Scale(0.0, DEFAULT_GAIN / math.sqrt(place.fan_in), random=True)
    if spec.role == "norm_bias" and place.network.tokens and place.last:
        return Scale(0.0, LAST_BIAS_SPREAD, random=False)
    if spec.role in TABLE_ROLES:
        channels = spec.shape[-1] if spec.shape else 1
        # Something that all tokens share does the work of biases, which such networks lack or start at zero.
        common = spec.role == "embedding" and place.network.attention and not place.network.positions
        spread = DEFAULT_GAIN / math.sqrt(channels)
        if spec.role == "position":
            spread *= place.network.of_words(WORD_POSITIONS)
        if spec.role == "embedding" and not place.network.norms:
            # Nothing makes it larger on the way, and what reads sequences waits for that.
            sequence = place.network.attention or place.readers & plain.SEQUENCE
            spread = 1.0 if sequence else plain.TABLE_SPREAD
        return Scale(0.0, spread / place.factor, random=True, common=common)
    centre = CENTRES.get(spec.role, 0.0) if spec.centre is None else spec.centre
    if spec.role == "norm_bias" and place.rectified and place.network.rectified >= LEAST_OPEN:
        centre = OPEN_BIAS
    if spec.role in ("norm_weight", "norm_bias", "layer_scale"):
        centre *= damping
    if spec.role == "layer_scale" and place.bare:
        centre = 0.0  # PoolFormer's poolings: what they blur at first is lost (scripts/LOG.md)
    if spec.role == "norm_weight" and place.network.tokens and place.last:
        centre *= LAST_NORM
        if place.network.tied:
            centre *= min(1, math.sqrt(LAST_WIDTH / spec.numel))
    return Scale(centre, VECTOR_SPREAD * abs(centre) if centre else BIAS_SPREAD, random=False)


def _mixing_spread(spec: ParamSpec, place: Place, fan: str, damping: float) -> float:
    """Spread of a weight that sums over its columns."""
    fan_in, fan_out = fans(spec)
    fan_in = max(1.0, fan_in / place.stride)
    if fan != "zoo":
        return damping * DEFAULT_GAIN / math.sqrt(fan_in if fan == "fan_in" else fan_out)
    if spec.role == "conv" and place.readers & BATCH_STATISTICS:
        spread = RELU_GAIN / math.sqrt(fan_out)  # He et al. in the backward direction, as ResNets do
        if place.readers <= BATCH_STATISTICS and not place.stem:
            spread = min(spread, KERNEL_RATE / (1 / math.sqrt(fan_in) + 1 / math.sqrt(fan_out)))
        return damping * spread
    if spec.role == "recurrent_hidden" and not place.network.norms:
        return plain.RECURRENT_GAIN / math.sqrt(fan_in)
    if place.plain_gain:
        return damping * place.plain_gain / math.sqrt(fan_in)
    if spec.role == "linear" and place.network.tokens and place.readers & RECTIFIERS:
        return 1 / math.sqrt(fan_in)  # zoos start language models with half of that, and end higher
    if spec.role == "linear" and not place.network.tokens and "output" in place.readers:
        gain = HEAD_GAIN if place.network.patches else DEFAULT_GAIN
        if place.network.sums_sets:
            gain *= plain.SET_OUTPUT
        if "batch_norm" in place.network.norms:
            gain *= min(1, math.sqrt(HEAD_WIDTH / fan_in))
        return gain / math.sqrt(fan_in)
    mixer = place.network.norms and not place.network.attention and not place.network.tokens
    if spec.role == "linear" and mixer and "output" not in place.readers:
        return math.sqrt(2 / (fan_in + fan_out))  # Glorot, undamped, as MLP-Mixers do
    if place.attention:
        damping *= place.network.of_words(WORD_ATTENTION)
    if place.reads_looking_back:
        damping *= HEADS_OUTPUT
    return damping * DEFAULT_GAIN / math.sqrt(fan_in)


def centre_of(spec: ParamSpec, scale: Scale, device: torch.device) -> Tensor | float:
    """The centre as a number, or as a tensor that broadcasts to the parameter's shape.

    State-space decays (a matrix of logarithms, channels x states) start at ``log(1), log(2), …`` along the states,
    as S4D-real does (https://arxiv.org/abs/2206.11893); everything else is constant.
    """
    if spec.role == "log_scale" and spec.centre is None and len(spec.shape) == 2 and min(spec.shape) > 1:
        return torch.arange(1, spec.shape[-1] + 1, device=device, dtype=torch.float32).log()
    return scale.centre
