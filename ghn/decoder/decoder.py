"""From one embedding per parameter to its values."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.base import BASES, base_matrix, smooth_kernels
from ghn.decoder.layout import Layout, axis_positions
from ghn.decoder.low_rank import FactorGenerator, product_norm, whiten
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
    """Random part of mixing parameters: 'orthogonal' or 'normal'."""
    fan: str = "zoo"
    """Rule for the spread of mixing parameters: 'fan_in', 'fan_out' or 'zoo'."""
    max_trust: float = 0.7
    """Largest share (as a standard deviation) of the learned part."""
    max_gain: float = 1.0
    """Predicted gains stay within this factor of the scale rule; 1 fixes sizes, or short horizons game them."""

    def __post_init__(self) -> None:
        if self.base not in BASES or self.fan not in FANS:
            raise ConfigError(
                f"base must be one of {BASES} and fan one of {FANS}; got {self.base!r}, {self.fan!r}"
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
        """
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
            base = None
            if scale.random:
                kind = self.config.base if spec.role in MIXING_ROLES else "normal"
                base = base_matrix(kind, seed, spec.name, layout, device)
                base = smooth_kernels(base, layout, statistics.smoothness[number])
            factor = factors[number]
            product = None if factor is None else factor[0] @ factor[1].mT
            unit = combine(base, product, statistics.trust[number])
            centre = centre_tensor(spec, scale, device)
            values = layout.restore((scale.spread * unit).expand(layout.rows, layout.columns))
            decoded[spec.name] = statistics.gain[number] * (centre + values)
        return decoded

    def factors(self, embeddings: Tensor, specs: Sequence[ParamSpec]) -> list[tuple[Tensor, Tensor]]:
        """Generate, centre and orthonormalize the factors of every tensor.

        Tensors whose side has the same sizes go through the generator together.

        Returns:
            Per tensor a row factor ``(rows, rank)`` and a column factor ``(columns, rank)`` whose product has unit
            root mean square.
        """
        layouts = [Layout.of(spec) for spec in specs]
        left = self._side(self.rows, embeddings, [(layout.row_sizes, 0) for layout in layouts])
        right = self._side(
            self.columns, embeddings, [(layout.column_sizes, layout.spatial) for layout in layouts]
        )
        return [
            (rows / product_norm(rows[None], columns[None]), columns)
            for rows, columns in zip(left, right, strict=True)
        ]

    @staticmethod
    def _side(
        generator: FactorGenerator, embeddings: Tensor, geometries: Sequence[tuple[tuple[int, ...], int]]
    ) -> list[Tensor]:
        members = defaultdict(list)
        for number, geometry in enumerate(geometries):
            members[geometry].append(number)
        result: list[Tensor] = [embeddings] * len(geometries)
        for (sizes, spatial), numbers in members.items():
            positions = axis_positions(sizes, spatial, embeddings.device)
            for number, factor in zip(
                numbers, whiten(generator(embeddings[numbers], positions)), strict=True
            ):
                result[number] = factor
        return result
