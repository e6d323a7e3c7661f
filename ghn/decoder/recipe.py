"""What each parameter of a graph is made of, as far as that is known before anything is predicted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ghn.base.blocks import Block
from ghn.base.predicted import predicted_params
from ghn.base.sampling import Draw, base_blocks, draw
from ghn.decoder.config import DecoderConfig
from ghn.decoder.heads import Pattern, constants, looking_back, patterns, sharing
from ghn.decoder.learned import Arrangement
from ghn.decoder.pixels import whiten_pixels
from ghn.decoder.scale import Place, Scale, places, scale_of
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.ops import MIXING_ROLES

LARGE_TABLE = 2**20
"""Elements from which a table of vectors has orthogonal rows too: drawing so many independent numbers is slow."""


@dataclass(frozen=True)
class Recipe:
    """What one parameter is made of."""

    number: int
    """Row of the embeddings."""
    spec: ParamSpec
    layout: Layout
    arrangement: Arrangement
    scale: Scale
    kind: str
    """Of the base, if the scale is random."""
    pixels: bool
    """Whether the base is to suit natural images."""
    learned: bool
    """Whether there is a learned part."""
    pattern: Pattern | None = None
    """What a random base is added to."""
    constant: Tensor | None = None
    """What a centre is added to."""
    padding: int | None = None
    """Row that is zero."""

    @property
    def blocks(self) -> list[Block]:
        """That the base is drawn in."""
        return base_blocks(self.kind, self.arrangement.grid)

    def draw(self, seed: int, block: Block) -> Draw:
        """Draw one of ``blocks``, on the CPU."""
        drawn = draw(self.kind, seed, self.spec.name, self.arrangement.grid, block)
        if not self.pixels:
            return drawn
        rows = drawn.make(0, drawn.bands, torch.ones(()))
        return Draw(block, block.height, whiten_pixels(rows, self.spec.shape[1:]))

    @property
    def geometry(self) -> tuple[object, ...]:
        """Parameters that share it are made together."""
        layout = self.layout
        return (layout.row_sizes, layout.column_sizes, layout.spatial, self.scale.random, self.learned)


@torch.inference_mode(False)  # they are kept, also for calls that record gradients
def recipes(graph: ComputationGraph, config: DecoderConfig) -> list[Recipe]:
    """Of all parameters of a graph that are predicted, in the order of ``graph.params``."""
    surroundings = places(graph)
    predicted = {spec.name for spec in predicted_params(graph)}
    scales = _scales(graph, surroundings, config)
    spreads = {name: scale.spread for name, scale in scales.items()}
    looking = [] if config.base == "none" else looking_back(graph)
    added, constant = patterns(looking, spreads), constants(looking)
    made = []
    for number, spec in enumerate(spec for spec in graph.params if spec.node is not None):
        if spec.name not in predicted:
            continue
        layout, place, scale = Layout.of(spec), surroundings[spec.name], scales[spec.name]
        kind = config.base
        if kind != "none" and spec.role == "position" and place.network.tokens:
            kind = "waves"  # order is what attention first learns from a text, see scripts/LOG.md
        if kind == "orthogonal" and spec.role not in MIXING_ROLES and spec.numel < LARGE_TABLE:
            # Units of a first layer bend at places that are spread evenly, see scripts/LOG.md.
            kind = "uniform" if spec.role == "bias" and not place.network.norms else "normal"
        made.append(
            Recipe(
                number=number,
                spec=spec,
                layout=layout,
                arrangement=Arrangement.of(spec, layout),
                scale=scale,
                kind=kind,
                pixels=place.pixels and kind != "none",
                learned=kind == "none" or _has_learned_part(place, scale, config),
                pattern=sharing(spec) if scale.common else added.get(spec.name),
                constant=constant.get(spec.name),
                padding=place.padding,
            )
        )
    return made


def _scales(
    graph: ComputationGraph, surroundings: Mapping[str, Place], config: DecoderConfig
) -> dict[str, Scale]:
    """Scale rules of all attached parameters, by name."""
    specs = {spec.name: spec for spec in graph.params}
    scales = {name: scale_of(specs[name], place, config.fan) for name, place in surroundings.items()}
    if config.output not in ("xavier", "kaiming"):
        return scales
    return {name: replace(scale, spread=1.0) if scale.random else scale for name, scale in scales.items()}


def _has_learned_part(place: Place, scale: Scale, config: DecoderConfig) -> bool:
    if config.scope == "tokens" and not place.network.tokens:
        return False
    return not scale.random or place.boundary or config.scope == "all"
