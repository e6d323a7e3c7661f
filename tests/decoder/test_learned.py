"""The learned part in the order of memory: what the layout says, in any pieces, with the same bits."""

import math

import pytest
import torch

from ghn.base.sampling import base_blocks
from ghn.decoder.learned import LowRankUpdate, MemoryLayout
from ghn.graph.graph import ParamSpec
from ghn.graph.layout import Layout

RANK = 4
SPECS = {
    "linear": ((90, 40), "out in", 1),
    "of GPT-2, three in one": ((40, 96), "in out", 3),
    "convolution, channels last": ((50, 3, 3, 24), "out spatial spatial in", 1),
    "transposed convolution": ((60, 20, 3, 2), "in out spatial spatial", 1),
    "transposed convolution, grouped": ((60, 20, 4), "in out spatial", 4),
    "transposed convolution, channels last": ((60, 3, 2, 20), "in spatial spatial out", 1),
    "experts": ((5, 30, 40), "expert in out", 1),
    "experts of convolutions": ((5, 30, 12, 3), "expert in out spatial", 1),
    "large": ((600, 160, 3), "in out spatial", 1),
    "large experts": ((2, 640, 700), "expert in out", 1),
    "a column of single points": ((1, 7, 1, 3), "in out spatial table", 1),
}


def _made(spec: ParamSpec) -> tuple[MemoryLayout, LowRankUpdate, torch.Tensor]:
    """A product, and its values in the order of memory, all at once."""
    layout = Layout.of(spec)
    memory_layout = MemoryLayout.of(spec, layout)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, RANK, generator=generator) for size in (layout.rows, layout.columns))
    expected = layout.restore(left @ right.mT).reshape(memory_layout.grid.height, -1)
    return memory_layout, LowRankUpdate(left, right, layout, memory_layout), expected


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("kind", ["orthogonal", "normal"])
@pytest.mark.parametrize("name", SPECS)
def test_bands_are_parts_of_the_whole_to_the_last_bit(name, kind, gradients):
    shape, axes, groups = SPECS[name]
    spec = ParamSpec(names=("p",), shape=shape, axes=tuple(axes.split()), groups=groups, node=0)
    memory_layout, product, expected = _made(spec)
    assert memory_layout.grid.height * memory_layout.grid.columns == math.prod(shape)
    for block in base_blocks(kind, memory_layout.grid):
        here = expected[block.start : block.start + block.height]
        band = block.height if block.matrices > 1 else -(-block.height // 5)
        with torch.set_grad_enabled(gradients):
            whole = product.add(torch.ones_like(here), block, band, 0)
            torch.testing.assert_close(whole, here + 1)
            for start in range(0, block.height, band):
                part = torch.ones_like(here[start : start + band])
                assert torch.equal(product.add(part, block, band, start // band), whole[start : start + band])


def test_no_product_is_made_as_a_whole():
    """Two memory rows of a tensor whose product alone would take 64 GB."""
    spec = ParamSpec(
        names=("p",), shape=(2**14, 2**10, 32, 32), axes=("in", "out", "spatial", "spatial"), node=0
    )
    layout = Layout.of(spec)
    memory_layout = MemoryLayout.of(spec, layout)
    right = torch.ones(1, RANK).expand(layout.columns, -1)
    product = LowRankUpdate(torch.ones(layout.rows, RANK), right, layout, memory_layout)
    block = base_blocks("normal", memory_layout.grid)[-1]
    assert torch.equal(
        product.add(torch.zeros(block.height, block.columns), block, block.height, 0),
        torch.full((block.height, block.columns), float(RANK)),
    )
