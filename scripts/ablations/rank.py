"""Width of the factors, and low-rank factors against dense tiles that are repeated over a tensor.

    python scripts/ablations/rank.py

Tiles are what earlier graph hypernetworks write: one block from a head of its full size, repeated to fill a tensor.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from common import RESULTS, SMALL, plot_curves, train_variants, write_rows
from torch import Tensor, nn

from ghn.decoder import Decoder, DecoderConfig
from ghn.hypernetwork import GHNConfig
from ghn.metatrain.config import MetaTrainConfig

RANKS = (4, 16, 64)
TILES = (16, 32)


class TileDecoder(Decoder):
    """A decoder whose learned part is one dense tile per tensor, of ``config.rank`` squared numbers."""

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__(embedding, config)
        side = config.rank
        # In place of the generators, whose first layer is all that the decoder itself calls.
        for generator in ("rows", "columns"):
            setattr(self, generator, nn.ModuleDict({"embedding": nn.Identity()}))
        self.tile = nn.Sequential(
            nn.Linear(embedding, config.hidden), nn.GELU(), nn.Linear(config.hidden, side * side)
        )

    def _factors(self, sides: tuple[Tensor, Tensor], parts: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
        """Repeating a tile is a product with selections of its rows and columns: entry (i, j) is (i % n, j % n)."""
        side = self.config.rank
        tiles = self.tile(sides[0][[part.row for part in parts]]).unflatten(-1, (side, side))
        pick = torch.eye(side, device=tiles.device)
        found = []
        for tile, part in zip(tiles, parts, strict=True):
            layout = part.recipe.layout
            size = tile[: layout.rows, : layout.columns].square().mean().clamp_min(1e-12).sqrt()
            rows, columns = torch.arange(layout.rows) % side, torch.arange(layout.columns) % side
            found.append((tile[rows] / size, pick[columns]))
        return found


def main(
    steps: Annotated[int, typer.Option(help="Updates of each variant.")] = SMALL.steps,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    output: Path = RESULTS,
) -> None:
    """Train the variants on the same targets."""

    def variants(name: str, sizes: Sequence[int]) -> dict[str, MetaTrainConfig]:
        decoders = {f"{name} {size}": DecoderConfig(rank=size, base="none") for size in sizes}
        return {
            label: replace(SMALL, steps=steps, ghn=GHNConfig(decoder=decoder))
            for label, decoder in decoders.items()
        }

    rows, curves, _ = train_variants(variants("rank", RANKS), range(seeds))
    # The library has no such decoder to choose: it is here for the comparison alone.
    with patch("ghn.hypernetwork.Decoder", TileDecoder):
        tiled, tiled_curves, _ = train_variants(variants("tile", TILES), range(seeds))
    write_rows("rank", [*rows, *tiled], output)
    plot_curves("rank", {**curves, **tiled_curves}, output, "loss of the prediction (nats)")


if __name__ == "__main__":
    typer.run(main)
