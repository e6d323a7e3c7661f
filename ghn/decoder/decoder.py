"""From one embedding per parameter to its values."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.base import BASES, base_matrix, smooth_kernels
from ghn.decoder.layout import Layout, axis_positions
from ghn.decoder.low_rank import HEAD_RULES, FactorGenerator, init_head_, product_norm, whiten
from ghn.decoder.mip import combine
from ghn.decoder.scale import FANS, centre_tensor, places, scale_of
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.ops import MIXING_ROLES


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Size and output form of the decoder."""

    hidden: int = 96
    """Width of the row and column generators."""
    rank: int = 32
    """Width of the factors."""
    base: str = "orthogonal"
    """Random part of mixing parameters: 'orthogonal', 'normal', or 'none': then nothing random enters anywhere, and
    everything that a random part would fill is learned."""
    fan: str = "zoo"
    """Rule for the spread of mixing parameters: 'fan_in', 'fan_out' or 'zoo'."""
    output: str = "normalized"
    """What becomes of the factors: 'normalized' (centred, orthonormalized, a product of unit size), or multiplied as
    they are, with heads initialized by the rule 'hyperfan' (to unit size times the scale rule's), 'xavier' or 'kaiming'
    (sizes are what comes out, as in earlier graph hypernetworks; only with ``base='none'``)."""
    max_trust: float = 0.7
    """Largest share (as a standard deviation) of the learned part."""
    max_gain: float = 1.0
    """Predicted gains stay within this factor of the scale rule; 1 fixes sizes, or short horizons game them."""

    def __post_init__(self) -> None:
        if self.base not in BASES or self.fan not in FANS:
            raise ConfigError(
                f"base must be one of {BASES} and fan one of {FANS}; got {self.base!r}, {self.fan!r}"
            )
        if self.output not in ("normalized", *HEAD_RULES):
            raise ConfigError(f"output must be 'normalized' or one of {HEAD_RULES}; got {self.output!r}")
        if self.output in ("xavier", "kaiming") and self.base != "none":
            raise ConfigError(
                f"output={self.output!r} has no scale for a base; set base='none' or use 'hyperfan'"
            )
        if min(self.hidden, self.rank) < 1 or not 0 < self.max_trust < 1 or self.max_gain < 1:
            raise ConfigError("decoder needs hidden >= 1, rank >= 1, 0 < max_trust < 1 and max_gain >= 1")


@dataclass(frozen=True)
class Statistics:
    """Scalars predicted for each tensor, every field of shape ``(tensors,)``."""

    gain: Tensor
    """Factor on the spread (and on the centre) given by the scale rule."""
    trust: Tensor
    """Standard-deviation share of the learned part, in (0, max_trust)."""
    smoothness: Tensor
    """Damping of high spatial frequencies, see ``smooth_kernels``."""


START_TRUST, START_SMOOTHNESS = 0.1, 0.05
"""Statistics of the untrained hypernetwork."""


class StatisticsHead(nn.Module):
    """Predicts the scalars of every tensor; its last layer starts small, so that it starts from the defaults."""

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.net = nn.Sequential(nn.Linear(embedding, config.hidden), nn.GELU(), nn.Linear(config.hidden, 3))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, embeddings: Tensor) -> Statistics:
        """Map embeddings ``(tensors, embedding)`` to ``Statistics``."""
        return self._bounded(self.net(embeddings))

    def defaults(self, like: Tensor) -> Statistics:
        """What an untrained head predicts, for as many tensors as ``like`` has rows."""
        return self._bounded(like.new_zeros(like.shape[0], 3))

    def _bounded(self, raw: Tensor) -> Statistics:
        config = self.config
        gain, trust, smoothness = raw.unbind(-1)
        start = torch.logit(torch.tensor(START_TRUST / config.max_trust)).item()
        return Statistics(
            gain=config.max_gain ** torch.tanh(gain),
            trust=config.max_trust * torch.sigmoid(trust + start),
            smoothness=START_SMOOTHNESS * torch.exp(3 * torch.tanh(smoothness / 3)),
        )


class Decoder(nn.Module):
    """Decodes every parameter of a graph: scale rule x (random base + low-rank learned part)."""

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.statistics = StatisticsHead(embedding, config)
        self.rows = FactorGenerator(embedding, config.hidden, config.rank)
        self.columns = FactorGenerator(embedding, config.hidden, config.rank)
        if config.output != "normalized":
            init_head_(self.rows, config.output)
            init_head_(self.columns, config.output)

    def forward(
        self, embeddings: Tensor, graph: ComputationGraph, seed: int = 0, learned: bool = True
    ) -> dict[str, Tensor]:
        """Decode the parameters of one graph.

        Args:
            embeddings: One row per attached entry of ``graph.params``, in that order, shape ``(tensors, embedding)``.
            graph: The target.
            seed: Keys the random base.
            learned: False leaves the learned part out: scale rules and random bases alone.

        Returns:
            Float32 tensors by parameter name; none for parameters of role 'unknown'.

        Raises:
            ConfigError: If there is neither a base nor a learned part.
        """
        if not learned and self.config.base == "none":
            raise ConfigError("base='none' and learned=False leave nothing to fill parameters with")
        specs = [spec for spec in graph.params if spec.node is not None]
        statistics = self.statistics(embeddings) if learned else self.statistics.defaults(embeddings)
        factors = self.factors(embeddings, specs) if learned else [None] * len(specs)
        surroundings = places(graph)
        device = embeddings.device
        decoded = {}
        for number, spec in enumerate(specs):
            if spec.role == "unknown" or not spec.dtype.is_floating_point:
                continue  # no rule says what it should be: the model's own values stay
            layout = Layout.of(spec)
            scale = scale_of(spec, surroundings[spec.name], self.config.fan)
            base, trust, spread = None, statistics.trust[number], scale.spread
            if scale.random and self.config.base == "none":
                trust = torch.ones_like(trust)
                spread = 1.0 if self.config.output in ("xavier", "kaiming") else spread
            elif scale.random:
                kind = self.config.base if spec.role in MIXING_ROLES else "normal"
                base = base_matrix(kind, seed, spec.name, layout, device)
                base = smooth_kernels(base, layout, statistics.smoothness[number])
            factor = factors[number]
            product = None if factor is None else factor[0] @ factor[1].mT
            unit = combine(base, product, trust)
            centre = centre_tensor(spec, scale, device)
            values = layout.restore((spread * unit).expand(layout.rows, layout.columns))
            decoded[spec.name] = statistics.gain[number] * (centre + values)
        return decoded

    def factors(self, embeddings: Tensor, specs: Sequence[ParamSpec]) -> list[tuple[Tensor, Tensor]]:
        """Generate the factors of every tensor and finish them as ``config.output`` says.

        Tensors whose side has the same sizes go through the generator together.

        Returns:
            Per tensor a row factor ``(rows, rank)`` and a column factor ``(columns, rank)``; their product has unit
            root mean square if it is normalized.
        """
        layouts = [Layout.of(spec) for spec in specs]
        left = self._side(self.rows, embeddings, [(layout.row_sizes, 0) for layout in layouts])
        right = self._side(
            self.columns, embeddings, [(layout.column_sizes, layout.spatial) for layout in layouts]
        )
        if self.config.output != "normalized":
            return [
                (rows / math.sqrt(self.config.rank), columns)
                for rows, columns in zip(left, right, strict=True)
            ]
        return [
            (rows / product_norm(rows[None], columns[None]), columns)
            for rows, columns in zip(left, right, strict=True)
        ]

    def _side(
        self,
        generator: FactorGenerator,
        embeddings: Tensor,
        geometries: Sequence[tuple[tuple[int, ...], int]],
    ) -> list[Tensor]:
        members = defaultdict(list)
        for number, geometry in enumerate(geometries):
            members[geometry].append(number)
        result: list[Tensor] = [embeddings] * len(geometries)
        for (sizes, spatial), numbers in members.items():
            positions = axis_positions(sizes, spatial, embeddings.device)
            made = generator(embeddings[numbers], positions)
            for number, factor in zip(
                numbers, whiten(made) if self.config.output == "normalized" else made, strict=True
            ):
                result[number] = factor
        return result
