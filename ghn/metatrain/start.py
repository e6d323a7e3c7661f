"""Tables before the first update: as the base of the networks that are cut out, or as an earlier run left them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil
import torch

from ghn.decoder import Decoder, Prediction
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import ParamPlan
from ghn.decoder.slots import SlotBank, SlotSize, slot_sizes
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph
from ghn.metatrain.cutting import as_matrix
from ghn.metatrain.sampler import Sampler
from ghn.metatrain.tables import load_tables, merge

COPIES = 5
"""How many times training holds each number of the tables: these, their average, a gradient, and two moments."""

Networks = Iterable[tuple[str, ComputationGraph, Sequence[ParamPlan]]]
"""Family of slots, graph, and what its parameters are made of."""


def first_tables(samplers: Mapping[str, Sampler], rank: int, start: Path | None) -> SlotBank:
    """The tables that a run begins with.

    Args:
        samplers: The networks that they have to fit.
        rank: Of the factors; 0 for whole matrices, which begin as the base.
        start: Tables of an earlier run, or a checkpoint: places that these have slots for begin with theirs, as far as
            sizes agree.

    Raises:
        ConfigError: If they don't fit into memory.
        CheckpointError: If ``start`` holds none.
    """
    earlier = SlotBank({}) if start is None else load_tables(start)
    sizes = slot_sizes(_networks(samplers), rank or DENSE)
    known = earlier.to_slots()
    for key in sizes.keys() & known.keys():
        if SlotSize(*sizes[key]).rank == SlotSize(*known[key]).rank:  # nothing that was learned is left out
            sizes[key] = tuple(map(max, zip(sizes[key], known[key], strict=True)))
    check_memory({**known, **sizes})
    bank = SlotBank(sizes)
    if not rank:
        begin_with_base(bank, _networks(samplers))
    return bank if start is None else merge([bank, earlier], sizes)


def _networks(samplers: Mapping[str, Sampler]) -> Networks:
    for sampler in samplers.values():
        yield from sampler.training()


def check_memory(sizes: Mapping[str, Sequence[int]]) -> None:
    """Refuse tables that training would find no memory for.

    Raises:
        ConfigError: If the memory that is free now is too small.
    """
    numbers = sum(SlotSize(*values).numel for values in sizes.values())
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed, free = 4 * COPIES * numbers * processes, psutil.virtual_memory().available
    if needed > free:
        raise ConfigError(
            f"the tables have {numbers / 1e6:.0f} M numbers, so training needs {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; give a smaller largest (--largest), or a rank (--rank 32)"
        )


@torch.no_grad()
def begin_with_base(bank: SlotBank, networks: Networks) -> None:
    """Let every matrix that is learned itself start as the base of the network that takes most of it.

    So heads that look a few tokens back, waves of positions and sizes beside the spread of the random numbers are there
    from the start (docs/log/slots-what-held-them-back.md has what that is worth). A slot's gain is the size of its base
    and stays: learned, it runs away, because it drowns what is drawn anew for each seed, and a user's learning rate is
    then too small.
    """
    areas = [0] * len(bank.names)
    own = Decoder(1, DecoderConfig())
    for family, graph, plans in networks:
        cut_params = bank.cut_params(graph, plans, family)
        larger = [
            cut_param
            for cut_param in cut_params
            if any(cut.dense and cut.height * cut.width > areas[cut.slot] for cut in cut_param.cuts)
        ]
        if not larger:
            continue
        nodes = sum(spec.node is not None for spec in graph.params)
        base = Prediction(own, own.plan(graph), torch.zeros(nodes, 1), learned=False).params
        for cut_param in larger:
            values = base[cut_param.plan.spec.name] / cut_param.plan.init.std
            matrix = as_matrix(cut_param.plan, cut_param.cuts[0], values)
            for cut in cut_param.cuts:
                if cut.height * cut.width <= areas[cut.slot] or cut.copy_weights is not None or cut.resize:
                    continue
                areas[cut.slot] = cut.height * cut.width
                block = matrix if cut.where is None else matrix[cut.where]
                size = block.square().mean().sqrt()
                rows = torch.arange(cut.height) if cut.rows is None else cut.rows
                columns = torch.arange(cut.width) if cut.columns is None else cut.by_row(cut.columns)
                bank.rows[cut.slot][rows[:, None], columns] = block / size
                bank.gain[cut.slot] = size.log()
