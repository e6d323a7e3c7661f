"""Samplers of targets: every draw builds, traces completely, and is a function of the seed."""

import json
import random
from collections import Counter

import pytest
import torch

from ghn.errors import ConfigError
from ghn.spaces import (
    LARGEST,
    SCALES,
    SMALLEST_IMAGE,
    Architecture,
    ImageSpace,
    TargetSpace,
    TextSpace,
    sample_causal_lm,
    sample_cnn,
    sample_mlp,
    sample_pyramid,
    sample_vit,
)
from ghn.tracing.trace import trace

SPACES = (ImageSpace, TextSpace)


def draw(kind: str, seed: int, scale: str = "small") -> Architecture:
    rng = random.Random(seed)
    if kind == "gpt2":
        return sample_causal_lm(rng, 50, 8, scale)
    sample = {"cnn": sample_cnn, "vit": sample_vit, "mlp": sample_mlp, "pyramid": sample_pyramid}[kind]
    return sample(rng, 16, scale)


def numbered(space: TargetSpace, number: int, seed: int = 0) -> Architecture:
    """One of the many networks of a space."""
    return space.sample(random.Random(f"{seed}/{number}"))


def first_of_each_family(*spaces: TargetSpace) -> list[Architecture]:
    found: dict[str, Architecture] = {}
    for space in spaces:
        for number in range(300):
            architecture = numbered(space, number)
            found.setdefault(architecture.family, architecture)
    return list(found.values())


@pytest.mark.parametrize("scale", SCALES)
def test_every_family_traces_completely(scale: str) -> None:
    images = ImageSpace(scale=scale, image_size=16 if scale == "small" else 32)
    drawn = first_of_each_family(images, TextSpace(scale=scale, sequence_length=8, vocabulary=50))
    assert {architecture.family for architecture in drawn} == LARGEST.keys()
    for architecture in drawn:
        text = architecture.task == "text"
        model = architecture.build(**({} if text else {"num_classes": 10}))
        tokens = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "use_cache": False}
        graph = trace(model, tokens if text else torch.randn(2, 3, images.image_size, images.image_size))
        assert graph.coverage() == 1.0, architecture.key
        unknown = [spec.name for spec in graph.params if spec.role in ("unknown", "matrix")]
        assert not unknown, architecture.key


@pytest.mark.parametrize("image_size", [SMALLEST_IMAGE, 16, 28, 30])
@pytest.mark.parametrize("scale", SCALES)
def test_every_drawn_network_has_room_for_its_strides(scale: str, image_size: int) -> None:
    space = ImageSpace(scale=scale, image_size=image_size)
    images = torch.zeros(2, 3, image_size, image_size, device="meta")
    for number in range(60):
        architecture = numbered(space, number)
        model = architecture.build(num_classes=10, device="meta").to("meta")
        assert model(images).shape == (2, 10), architecture.key


def test_images_that_can_not_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size is 7; .* expected 8 or more"):
        ImageSpace(image_size=7)


@pytest.mark.parametrize("kind", ["cnn", "vit", "pyramid", "mlp", "gpt2"])
def test_draws_depend_on_the_seed_alone(kind: str) -> None:
    assert draw(kind, 5) == draw(kind, 5)
    assert len({draw(kind, seed).key for seed in range(200)}) > 100


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["cnn", "vit", "pyramid", "mlp", "gpt2"])
def test_every_sampler_has_thousands_of_distinct_networks(kind: str, scale: str) -> None:
    assert len({draw(kind, seed, scale).key for seed in range(8000)}) > 2000


@pytest.mark.parametrize("scale", SCALES)
def test_thousands_of_distinct_networks_for_each_kind_of_data(scale: str) -> None:
    for kind, task in zip(SPACES, ("images", "text"), strict=True):
        space = kind(scale=scale)
        drawn = [numbered(space, number) for number in range(6000)]
        assert len({architecture.key for architecture in drawn}) > 2000
        assert all(architecture.task == task for architecture in drawn)
        assert numbered(space, 17) == drawn[17]
        assert numbered(space, 17, seed=1) != drawn[17]


def _sizes(scale: str) -> dict[str, list[tuple[int, int]]]:
    """Depths and widths of many networks, by family."""
    found: dict[str, list[tuple[int, int]]] = {}
    for kind in SPACES:
        for number in range(3000):
            drawn = numbered(kind(scale=scale), number)
            found.setdefault(drawn.family, []).append((drawn.depth, drawn.width))
    return found


def test_full_scale_covers_the_published_ranges_and_nothing_exceeds_the_stated_sizes() -> None:
    small, seen = _sizes("small"), _sizes("full")
    for family, sizes in small.items():
        assert all(depth <= LARGEST[family][0] and width <= LARGEST[family][1] for depth, width in sizes), (
            family
        )
    for family, sizes in seen.items():
        depth, width = (max(values) for values in zip(*sizes, strict=True))
        assert 0.8 * LARGEST[family][0] < depth <= LARGEST[family][0], family
        assert 0.8 * LARGEST[family][1] < width <= LARGEST[family][1], family
    vits, gpts = set(seen["vit"]), set(seen["gpt2"])
    assert {depth for depth, _ in vits} >= set(range(3, 10))
    assert min(width for _, width in vits) <= 128 and max(width for _, width in vits) == 512
    assert {depth for depth, _ in gpts} >= set(range(3, 10))
    assert min(width for _, width in gpts) <= 72 and max(width for _, width in gpts) == 256


def test_vision_networks_vary_in_kind_norm_and_activation() -> None:
    drawn = [numbered(ImageSpace(), number) for number in range(2000)]
    families = Counter(architecture.family for architecture in drawn)
    assert all(families[family] > 20 for family in LARGEST if family not in ("gpt2", "llama"))
    for argument, least in (("norm_layer", 4), ("act_layer", 5), ("patch_size", 2), ("global_pool", 2)):
        values = {json.dumps(architecture.kwargs.get(argument)) for architecture in drawn}
        assert len(values - {"null"}) >= least, argument


def test_unknown_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        ImageSpace(scale="smal")
