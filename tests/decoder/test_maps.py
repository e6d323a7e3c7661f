"""Linear maps of flattened images: their columns are channels and points, whatever the image's size."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

import ghn
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.slots import CutParam, SlotBank, slot_sizes, whole_matrix
from ghn.graph.addresses import addresses
from ghn.graph.graph import ComputationGraph
from ghn.metatrain.tables import merge
from ghn.spaces.factories import lenet


def network(side: int = 16, hidden: tuple[int, ...] = (24,), **kwargs: object) -> nn.Module:
    return lenet((8, 12), (1, 1), side, hidden, **kwargs)


def described(
    model: nn.Module, side: int, width: int | None = None
) -> tuple[ComputationGraph, list[ParamPlan]]:
    graph = ghn.trace(model, torch.zeros(2, 3, side, width or side))
    return graph, plan_parameters(graph, DecoderConfig(scope="all"))


@pytest.fixture(scope="module")
def bank() -> SlotBank:
    """Slots of networks that leave 4 × 4 points."""
    return SlotBank(slot_sizes([("lenet", *described(network(), 16))], DENSE))


def params(bank: SlotBank, model: nn.Module, side: int) -> dict[str, CutParam]:
    return dict(bank.cuts(*described(model, side)).params)


def matrix(bank: SlotBank, param: CutParam) -> torch.Tensor:
    (cut,) = param.cuts
    return whole_matrix(bank.rows[cut.slot], cut)


def first_map(model: nn.Module) -> str:
    return next(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear))


class Flattened(nn.Module):
    """A convolution whose result is flattened one way or another, and linear maps."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv, self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(96, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(self.conv(x), 4).relu()
        if self.way == "view":
            x = x.view(x.shape[0], -1)
        elif self.way == "channels last":
            x = x.permute(0, 2, 3, 1).flatten(1)
        elif self.way == "rows":
            x = x.flatten(2).transpose(1, 2).reshape(x.shape[0], -1)
        else:
            x = nn.functional.dropout(torch.flatten(x, 1), 0.5, self.training)
        return self.head(self.body(x).relu())


@pytest.mark.parametrize(
    ("way", "image"), [("view", (6, 4, 4)), ("dropout", (6, 4, 4)), ("channels last", None), ("rows", None)]
)
def test_only_what_is_flattened_channels_first_is_an_image(way: str, image: tuple[int, ...] | None) -> None:
    graph = ghn.trace(Flattened(way), torch.zeros(2, 3, 16, 16))
    found = addresses(graph)
    assert [node.attributes.get("image") for node in graph.nodes if node.kind == "linear"] == [image, None]
    assert (" map4 " in found["body.weight"].kind) == (image is not None)
    assert " map" not in found["head.weight"].kind


def test_pixels_themselves_are_an_image_too() -> None:
    graph = ghn.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.zeros(2, 1, 8, 8))
    assert graph.nodes[-2].attributes["image"] == (1, 8, 8)


def test_wide_networks_share_the_units_of_narrow_ones(bank: SlotBank) -> None:
    wide = SlotBank(slot_sizes([("lenet", *described(lenet((8, 20), (1, 1), 16, (40,)), 16))], DENSE))
    whole, name = merge([wide]), first_map(network())
    narrow = matrix(whole, params(whole, network(), 16)[name]).view(24, 12, 4, 4)
    broad = matrix(whole, params(whole, lenet((8, 20), (1, 1), 16, (40,)), 16)[name]).view(40, 20, 4, 4)
    assert narrow.equal(broad[:24, :12])


def test_no_point_of_an_even_image_is_stored_in_vain(bank: SlotBank) -> None:
    assert bank.to_slots()["lenet/2/linear map4 act>act"][:5] == (1, 24, 1, 12, 4)


@pytest.mark.parametrize("side", [8, 32, 64])
def test_a_larger_image_is_read_alike(bank: SlotBank, side: int) -> None:
    large = network(side)
    own = params(bank, large, side)
    assert own.keys() == dict(large.named_parameters()).keys()
    name, points = first_map(large), side // 4
    learned = matrix(bank, params(bank, network(), 16)[name]).view(24, 12, 4, 4)
    resized = matrix(bank, own[name]).view(24, 12, points, points)
    if points < 4:  # as nearly as that goes
        return
    image = torch.randn(3, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    larger = interpolate(image, (points, points), mode="bilinear")
    torch.testing.assert_close(
        larger.flatten(1) @ resized.flatten(1).T,
        image.flatten(1) @ learned.flatten(1).T,
        rtol=1e-3,
        atol=1e-3,
    )


def test_of_several_sizes_the_nearest_is_taken() -> None:
    members = [("lenet", *described(network(side), side)) for side in (8, 16)]
    bank = SlotBank(slot_sizes(members, DENSE))
    name = first_map(network())
    for side, learned in ((8, 2), (16, 4), (12, 4), (64, 4)):
        (cut,) = params(bank, network(side), side)[name].cuts
        assert f" map{learned} " in bank.names[cut.slot], side


def test_oblong_images_keep_the_base_there(bank: SlotBank) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(12 * 4 * 6, 24), nn.ReLU(), nn.Linear(24, 10)),
    )
    found = bank.cuts(*described(model, 16, 24)).params
    assert "7.weight" not in found and "9.weight" in found


def test_copies_keep_the_function_through_the_map(bank: SlotBank) -> None:
    twice = lenet((8, 24), (1, 1), 16, (24,))
    (cut,) = params(bank, twice, 16)[first_map(twice)].cuts
    assert cut.copy_weights is not None and set(cut.copy_weights.tolist()) == {0.5}
    table = bank.rows[cut.slot]
    units = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    own = matrix(bank, params(bank, network(), 16)[first_map(network())])
    torch.testing.assert_close(
        units.repeat(1, 2, 1, 1).flatten(1) @ whole_matrix(table, cut).T, units.flatten(1) @ own.T
    )


def test_prediction_fits_the_memory_of_the_model(bank: SlotBank) -> None:
    net = ghn.GHN(ghn.GHNConfig(decoder=DecoderConfig(slots=bank.to_slots()))).eval()
    model = network(32)
    report = net.init_(model, torch.zeros(2, 3, 32, 32), learned="all")
    assert report.learned > 0.9 and all(values.isfinite().all() for values in model.parameters())
