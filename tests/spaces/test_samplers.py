"""Samplers of targets: every draw builds, traces completely, and is a function of the seed."""

import json
import random
from collections import Counter

import pytest
import torch

from ghn.errors import ConfigError
from ghn.graph.trace import trace
from ghn.spaces import (
    LARGEST,
    SCALES,
    SMALLEST_IMAGE,
    Architecture,
    Space,
    sample_cnn,
    sample_gpt2,
    sample_mlp,
    sample_vit,
)

TASKS = ("images", "text")


def draw(kind: str, seed: int, scale: str = "small") -> Architecture:
    rng = random.Random(seed)
    if kind == "gpt2":
        return sample_gpt2(rng, 50, 8, scale)
    sample = {"cnn": sample_cnn, "vit": sample_vit, "mlp": sample_mlp}[kind]
    return sample(rng, 16, scale)


def first_of_each_family(space: Space) -> list[Architecture]:
    found: dict[str, Architecture] = {}
    for task in TASKS:
        for number in range(300):
            architecture = space.draw(task, number)
            found.setdefault(architecture.family, architecture)
    return list(found.values())


@pytest.mark.parametrize("scale", SCALES)
def test_every_family_traces_completely(scale: str) -> None:
    space = Space(scale=scale, image_size=16 if scale == "small" else 32, sequence_length=8, vocabulary=50)
    drawn = first_of_each_family(space)
    assert {architecture.family for architecture in drawn} == LARGEST.keys()
    for architecture in drawn:
        text = architecture.task == "text"
        model = architecture.build(**({} if text else {"num_classes": 10}))
        tokens = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "use_cache": False}
        graph = trace(model, tokens if text else torch.randn(2, 3, space.image_size, space.image_size))
        assert graph.coverage() == 1.0, architecture.key
        unknown = [spec.name for spec in graph.params if spec.role in ("unknown", "matrix")]
        assert not unknown, architecture.key


@pytest.mark.parametrize("image_size", [SMALLEST_IMAGE, 16, 28, 30])
@pytest.mark.parametrize("scale", SCALES)
def test_every_drawn_network_has_room_for_its_strides(scale: str, image_size: int) -> None:
    space = Space(scale=scale, image_size=image_size)
    images = torch.zeros(2, 3, image_size, image_size, device="meta")
    for number in range(100):
        architecture = space.draw("images", number)
        model = architecture.build(num_classes=10, device="meta").to("meta")
        assert model(images).shape == (2, 10), architecture.key


def test_images_that_can_not_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size is 7; .* expected 8 or more"):
        Space(image_size=7)


@pytest.mark.parametrize("kind", ["cnn", "vit", "mlp", "gpt2"])
def test_draws_depend_on_the_seed_alone(kind: str) -> None:
    assert draw(kind, 5) == draw(kind, 5)
    assert len({draw(kind, seed).key for seed in range(200)}) > 100


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["cnn", "vit", "mlp", "gpt2"])
def test_every_sampler_has_thousands_of_distinct_networks(kind: str, scale: str) -> None:
    assert len({draw(kind, seed, scale).key for seed in range(8000)}) > 2000


@pytest.mark.parametrize("scale", SCALES)
def test_thousands_of_distinct_networks_for_each_kind_of_data(scale: str) -> None:
    space = Space(scale=scale)
    for task in TASKS:
        drawn = [space.draw(task, number) for number in range(6000)]
        assert len({architecture.key for architecture in drawn}) > 2000
        assert all(architecture.task == task for architecture in drawn)
        assert space.draw(task, 17) == drawn[17]
        assert space.draw(task, 17, seed=1) != drawn[17]


def _sizes(scale: str) -> dict[str, list[tuple[int, int]]]:
    """Depths and widths of many networks, by family."""
    found: dict[str, list[tuple[int, int]]] = {}
    for task in TASKS:
        for number in range(3000):
            drawn = Space(scale=scale).draw(task, number)
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
    drawn = [Space().draw("images", number) for number in range(2000)]
    families = Counter(architecture.family for architecture in drawn)
    assert all(families[family] > 20 for family in LARGEST if family not in ("gpt2", "llama"))
    for argument, least in (("norm_layer", 4), ("act_layer", 5), ("patch_size", 2), ("global_pool", 2)):
        values = {json.dumps(architecture.kwargs.get(argument)) for architecture in drawn}
        assert len(values - {"null"}) >= least, argument


def test_unknown_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        Space(scale="smal")
