"""Factors: whitened, flat in their spectrum, and of the variance their rules promise."""

import math

import pytest
import torch

from ghn.decoder.low_rank import HEAD_RULES, FactorGenerator, init_head_, product_norm, whiten
from ghn.decoder.mip import shares
from ghn.decoder.positions import axis_positions
from ghn.errors import ShapeError


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_whitening_centres_and_orthonormalizes(generator):
    skewed = torch.randn(3, 50, 8, generator=generator) * torch.linspace(0.5, 2, 8) + 5
    white = whiten(skewed.double())
    torch.testing.assert_close(white.mean(dim=1), torch.zeros(3, 8).double())
    gram = white.mT @ white
    off_diagonal = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 0.02
    torch.testing.assert_close(gram.diagonal(dim1=-2, dim2=-1), torch.ones(3, 8).double(), atol=0.02, rtol=0)


def test_whitening_copes_with_fewer_positions_than_rank_and_with_none(generator):
    for positions in (1, 2, 5):
        white = whiten(torch.randn(2, positions, 8, generator=generator))
        assert torch.isfinite(white).all()
    assert torch.equal(whiten(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_whitened_products_have_a_flat_spectrum(generator):
    left, right = (whiten(torch.randn(1, size, 8, generator=generator) + 3) for size in (60, 40))
    values = torch.linalg.svdvals(left[0] @ right[0].mT)[:8]
    assert values.max() / values.min() < 1.05


def test_product_norm_is_the_root_mean_square(generator):
    left, right = torch.randn(2, 30, 4, generator=generator), torch.randn(2, 20, 4, generator=generator)
    expected = (left @ right.mT).square().mean(dim=(1, 2)).sqrt()
    grams = [left.mT @ left, right.mT @ right]
    torch.testing.assert_close(product_norm(*grams, [30 * 20, 30 * 20]), expected)
    with pytest.raises(ShapeError, match="no product"):
        product_norm(grams[0], grams[1][:, :3, :3], [600, 600])


@pytest.mark.parametrize("rule", HEAD_RULES)
def test_only_hyperfan_heads_give_products_of_unit_size(rule):
    torch.manual_seed(0)
    rank = 64
    factors = [FactorGenerator(16, 256, rank) for _ in range(2)]
    embedding, positions = torch.randn(8, 16), axis_positions((64,), 0, torch.device("cpu"))
    for factor in factors:
        init_head_(factor, rule)
    product = factors[0](embedding, positions) @ factors[1](embedding, positions).mT / math.sqrt(rank)
    assert (product.square().mean().item() == pytest.approx(1, rel=0.3)) == (rule == "hyperfan")


def test_blocks_of_rows_are_generated_alone():
    torch.manual_seed(0)
    generate, embedding = FactorGenerator(8, 16, 4), torch.randn(1, 8)
    positions = axis_positions((100,), 0, torch.device("cpu"))
    torch.testing.assert_close(
        generate(embedding, positions[40:60]), generate(embedding, positions)[:, 40:60]
    )


@pytest.mark.parametrize(("sizes", "spatial"), [((100,), 0), ((4, 40, 3, 3), 2)])
def test_the_bits_of_factors_depend_on_nothing_but_their_tensor(sizes, spatial, monkeypatch):
    torch.manual_seed(0)
    generator, embeddings = FactorGenerator(8, 16, 4), torch.randn(5, 8)
    projected = generator.embedding(embeddings)
    together = whiten(generator.generate(projected, sizes, spatial))
    for number in range(5):
        alone = whiten(generator.generate(projected[[number]], sizes, spatial))
        assert torch.equal(alone[0], together[number])
    positions = axis_positions(sizes, spatial, torch.device("cpu"))
    torch.testing.assert_close(together, whiten(generator(embeddings, positions)))
    monkeypatch.setattr("ghn.decoder.low_rank.POSITIONS_AT_ONCE", 64)
    torch.testing.assert_close(together, whiten(generator.generate(projected, sizes, spatial)))


@pytest.mark.parametrize("trust", [0.0, 0.3, 0.7])
def test_trust_never_changes_magnitude(trust, generator):
    base, learned = torch.randn(2, 300, 300, generator=generator)
    of_base, of_learned = shares(torch.tensor([trust, trust]), torch.tensor([1.0, 0.0]))
    assert (of_base[0] * base + of_learned[0] * learned).std().item() == pytest.approx(1, abs=0.02)
    assert of_base[1] == 0
    assert of_learned.tolist() == pytest.approx([trust, trust])
