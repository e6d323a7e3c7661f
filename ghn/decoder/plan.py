"""What each parameter of a graph is made of, as far as that is known before anything is predicted."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch

from ghn.base import Decision, ModelTraits, ParamContext, RuleSet, default_rules, in_scheme
from ghn.base.blocks import Block
from ghn.base.init import Init
from ghn.base.predicted import predicted_params
from ghn.base.rules.whitened_filters import whiten_pixels
from ghn.base.sampling import RandomBlock, base_blocks, sample_block
from ghn.decoder.config import DecoderConfig
from ghn.decoder.learned import MemoryLayout
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.ops import MIXING_ROLES
from ghn.settings import own_settings

if TYPE_CHECKING:
    from ghn.decoder.slots import Cuts

LARGE_TABLE = 2**20
"""Elements from which a table of vectors has orthogonal rows too: drawing so many independent numbers is slow."""


LEARNED = (True, False, "all", "early")
Learned = bool | Literal["all", "early"]
"""How much of what was learned a prediction takes: False for nothing, "all", "early" for what fades out with depth, and
True for all of a language model whose vocabulary it was learned with, else "early"."""


@dataclass(frozen=True)
class ParamPlan:
    """What one parameter is made of."""

    number: int
    """Row of the embeddings."""
    spec: ParamSpec
    layout: Layout
    memory_layout: MemoryLayout
    init: Init
    kind: str
    """Of the base, if the parameter is random; see ``ghn.base.sampling.sample_block``."""
    learned: bool
    """Whether there is a learned part."""
    rule: str = ""
    """Name of the rule that says how it starts."""
    modifiers: tuple[str, ...] = ()
    """Names of the modifiers that changed that."""

    @property
    def blocks(self) -> list[Block]:
        """That the base is drawn in."""
        return base_blocks(self.kind, self.memory_layout.grid)

    def sample(self, seed: int, block: Block) -> RandomBlock:
        """Draw one of ``blocks``, on the CPU."""
        numbers = sample_block(self.kind, seed, self.spec.name, self.memory_layout.grid, block)
        if not self.init.whitened or self.kind == "none":
            return numbers
        rows = numbers.make(0, numbers.bands, torch.ones(()))
        return RandomBlock(block, block.height, whiten_pixels(rows, self.spec.shape[1:]))

    @property
    def geometry(self) -> tuple[object, ...]:
        """Parameters that share it are made together."""
        layout = self.layout
        return (layout.row_sizes, layout.column_sizes, layout.spatial, self.init.random, self.learned)


@dataclass(frozen=True)
class GraphPlan:
    """What all parameters of a graph are made of."""

    graph: ComputationGraph
    params: list[ParamPlan]
    """Of those that are predicted, in the order of ``graph.params``."""
    cuts: "Cuts | None" = None
    """What slots have for them, where a decoder has slots."""

    @cached_property
    def depths(self) -> dict[str, float]:
        """Where each parameter is in the order of execution, from 0 for the first to 1 for the last, by name."""
        readers = {
            param.spec.name: min(self.graph.readers(param.spec.node), default=0)
            for param in self.params
            if param.spec.node is not None
        }
        ranks = {reader: rank for rank, reader in enumerate(sorted(set(readers.values())))}
        return {name: ranks[reader] / max(1, len(ranks) - 1) for name, reader in readers.items()}


@own_settings()
@torch.inference_mode(False)  # they are kept, also for calls that record gradients
def plan_parameters(
    graph: ComputationGraph, config: DecoderConfig, rules: RuleSet | None = None
) -> list[ParamPlan]:
    """Of all parameters of a graph that are predicted, in the order of ``graph.params``.

    Args:
        graph: The target.
        config: Of the decoder.
        rules: That say how each starts; None is ``ghn.base.default_rules()``.

    Raises:
        PredictionError: If no rule applies to a parameter, or one fails or says what can't be.
    """
    rules = in_scheme(rules or default_rules(), config.scheme)
    if config.base == "none" and "previous_token_heads" in rules.names:
        rules = rules.without("previous_token_heads")  # it is beside a random matrix
    predicted = {spec.name for spec in predicted_params(graph)}
    plans = []
    for number, context in enumerate(ModelTraits(graph).contexts.values()):
        spec = context.spec
        if spec.name not in predicted:
            continue
        layout, decision = Layout.of(spec), rules.decide(context)
        init = decision.init
        if config.output in ("xavier", "kaiming") and init.random:
            init = replace(init, std=1.0)
        plans.append(
            ParamPlan(
                number=number,
                spec=spec,
                layout=layout,
                memory_layout=MemoryLayout.of(spec, layout),
                init=init,
                kind=_kind(config.base, init, spec),
                learned=config.base == "none" or _has_learned_part(context, decision, config),
                rule=decision.rule,
                modifiers=decision.modifiers,
            )
        )
    return plans


def _kind(base: str, init: Init, spec: ParamSpec) -> str:
    """How the base of a parameter is drawn."""
    if base == "none":
        return base
    if init.distribution == "sinusoids":
        return init.distribution
    large = spec.role not in MIXING_ROLES and spec.numel >= LARGE_TABLE
    return base if base == "normal" or large else init.distribution


def _has_learned_part(context: ParamContext, decision: Decision, config: DecoderConfig) -> bool:
    if config.scope == "tokens" and not context.traits.reads_tokens:
        return False
    return not decision.init.random or context.is_input_or_output or config.scope == "all"
