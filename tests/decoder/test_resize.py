"""Slots serve patches and grids of tokens of other sizes than were learned."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import ghn
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.resize import patch_points, token_positions
from ghn.decoder.slots import Cut, CutParam, SlotBank, slot_sizes, whole_matrix
from ghn.graph.graph import ComputationGraph
from ghn.metatrain.cutting import Gradients
from ghn.spaces.factories import PyramidViT, mlp


def vit(side: int, patch: int, **kwargs: object) -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=side,
        patch_size=patch,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=10,
        **kwargs,
    )


def described(model: nn.Module, side: int) -> tuple[ComputationGraph, list[ParamPlan]]:
    return _traced(model, torch.zeros(2, 3, side, side))


@pytest.fixture(scope="module")
def bank() -> SlotBank:
    """Slots of a ViT that has 4 × 4 and of one that has 8 × 8 tokens."""
    members = [("vit", *described(vit(16, patch), 16)) for patch in (2, 4)]
    return SlotBank(slot_sizes(members, DENSE))


def parts(bank: SlotBank, model: nn.Module, side: int) -> dict[str, CutParam]:
    return dict(bank.cuts(*described(model, side)).params)


@pytest.mark.parametrize(("learned", "wanted"), [(4, 16), (2, 3), (1, 4), (4, 4)])
def test_a_patch_of_an_enlarged_image_gives_what_it_gave(learned: int, wanted: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(2, 1, 1, learned, learned, generator=generator)
    larger = interpolate(image, (wanted, wanted), mode="bilinear")
    resized = kernel.flatten() @ patch_points(learned, wanted)
    torch.testing.assert_close(resized @ larger.flatten(), (kernel * image).sum(), rtol=1e-4, atol=1e-4)


def test_a_smaller_patch_is_as_near_as_it_can_be() -> None:
    smooth = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    smaller = interpolate(smooth, (4, 4), mode="bilinear", antialias=True)
    kernel = torch.ones(64) / 64
    torch.testing.assert_close(
        kernel @ patch_points(8, 4) @ smaller.flatten(), smooth.mean(), rtol=1e-2, atol=1e-2
    )


def test_positions_lie_between_those_of_the_grid() -> None:
    maps = token_positions(16 + 5, 64 + 1)
    assert maps is not None and maps.shape == (65, 17)
    torch.testing.assert_close(maps.sum(1), torch.ones(65))
    assert maps[0].tolist() == [1.0] + 16 * [0.0]  # the class token's
    rows = torch.arange(4.0).repeat_interleave(4)
    between = (maps[1:, 1:] @ rows).view(8, 8)
    assert (between.diff(dim=0) >= 0).all() and between.diff(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize("wanted", [60, 16 + 7])
def test_positions_of_no_square_grid_have_no_map(wanted: int) -> None:
    assert token_positions(16 + 5, wanted) is None


def test_a_larger_image_in_larger_patches_is_embedded_alike(bank: SlotBank) -> None:
    made = {}
    for side, patch in ((16, 4), (32, 8)):
        own = parts(bank, vit(side, patch), side)["patch_embed.proj.weight"]
        (cut,) = own.cuts
        made[side] = whole_matrix(bank.rows[cut.slot], cut).view(32, 3, patch, patch)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = [part for row in image.split(4, 2) for part in row.split(4, 3)]
    for part in patches[:3]:  # each enlarged alone, as patches are resized without their neighbours
        small = nn.functional.conv2d(part, made[16])
        large = nn.functional.conv2d(interpolate(part, (8, 8), mode="bilinear"), made[32])
        torch.testing.assert_close(large, small, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("side", "patch", "learned"),
    [(32, 8, "patch4 "), (32, 4, "patch2 "), (64, 4, "patch2 "), (48, 16, "patch4 ")],
)
def test_the_grid_with_nearly_as_many_tokens_is_taken(
    bank: SlotBank, side: int, patch: int, learned: str
) -> None:
    (cut,) = parts(bank, vit(side, patch), side)["patch_embed.proj.weight"].cuts
    assert learned in bank.names[cut.slot]


def test_prediction_at_another_size_is_written_and_reported(bank: SlotBank) -> None:
    net = ghn.GHN(ghn.GHNConfig(decoder=DecoderConfig(slots=bank.to_slots()))).eval()
    model = vit(32, 8)
    report = net.init_(model, torch.zeros(2, 3, 32, 32), learned="all")
    assert "patches or maps of another size" in str(report)
    predicted = net.predict(model, torch.zeros(2, 3, 32, 32), learned="all")
    for name, values in model.named_parameters():
        assert values.equal(predicted[name]) and values.isfinite().all(), name
    assert report.learned > 0.9


def test_networks_without_another_size_keep_to_their_base(bank: SlotBank) -> None:
    small, large = mlp("resmlp", 16, 4, 2, 32), mlp("resmlp", 32, 8, 2, 32)
    mixers = SlotBank(slot_sizes([("resmlp", *described(small, 16))], DENSE))
    assert parts(mixers, small, 16) and not parts(mixers, large, 32)


def test_what_can_not_be_resized_is_not_taken_by_number(bank: SlotBank) -> None:
    oblong = timm.create_model(
        "vit_tiny_patch16_224", img_size=(16, 24), patch_size=4, embed_dim=32, depth=2, num_heads=2
    )
    assert not bank.cuts(
        *_traced(oblong, torch.zeros(2, 3, 16, 24))
    ).params  # 25 positions are no 5 × 5 grid here
    factors = SlotBank(slot_sizes([("vit", *described(vit(16, 4), 16))], 4))
    assert {"patch_embed.proj.weight", "pos_embed"} <= parts(factors, vit(16, 4), 16).keys()
    larger = parts(factors, vit(32, 8), 32)
    assert "patch_embed.proj.weight" not in larger and "blocks.0.attn.qkv.weight" in larger


class OfSequences(nn.Module):
    """A transformer that reads patches of something else than images."""

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed, self.body = embed, vit(16, 4).blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.embed(x).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("kernel", [(4,), (16,), (2, 4, 4), (2, 4), (2, 8, 8)])
def test_patches_of_sequences_and_films_take_nothing(bank: SlotBank, kernel: tuple[int, ...]) -> None:
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    model, inputs = (
        OfSequences(convolution(3, 32, kernel, kernel)),
        torch.zeros(2, 3, *(4 * s for s in kernel)),
    )
    net = ghn.GHN(ghn.GHNConfig(decoder=DecoderConfig(slots=bank.to_slots()))).eval()
    net.init_(model, inputs, learned="all")
    assert not bank.cuts(*_traced(model, inputs)).params
    assert all(values.isfinite().all() for values in model.parameters())


def _traced(model: nn.Module, inputs: torch.Tensor) -> tuple[ComputationGraph, list[ParamPlan]]:
    graph = ghn.trace(model, inputs)
    return graph, plan_parameters(graph, DecoderConfig(scope="all"))


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "pos_embed"])
def test_gradients_go_back_through_the_resizing(bank: SlotBank, name: str) -> None:
    bank = SlotBank(bank.to_slots())
    (cut,) = parts(bank, vit(32, 4 if name == "pos_embed" else 8), 32)[name].cuts
    if name == "pos_embed":  # 8 × 8 tokens are there as they are
        cut = parts(bank, vit(48, 4), 48)[name].cuts[0]
    assert cut.resize is not None
    _checked_gradient(bank, cut)


def _checked_gradient(bank: SlotBank, cut: Cut) -> Tensor:
    """The gradient of a table that a cut is taken of, which is autograd's."""
    table = bank.rows[cut.slot]
    grad = torch.randn(cut.height, cut.width, generator=torch.Generator().manual_seed(1))
    (whole_matrix(table, cut) * grad).sum().backward()
    expected = _taken(table)
    Gradients(bank).add_block(table, cut, grad)
    torch.testing.assert_close(_taken(table), expected, rtol=1e-4, atol=1e-5)
    return expected


def _taken(table: nn.Parameter) -> Tensor:
    gradient, table.grad = table.grad, None
    assert gradient is not None and gradient.abs().sum() > 0
    return gradient


def test_cuts_of_the_learned_size_have_nothing_to_resize(bank: SlotBank) -> None:
    cuts: list[Cut] = [cut for part in parts(bank, vit(16, 4), 16).values() for cut in part.cuts]
    assert cuts and all(cut.resize is None for cut in cuts)


def test_linear_maps_take_what_pointwise_convolutions_learned() -> None:
    def convnext(as_convolutions: bool) -> nn.Module:
        sizes = {"patch_size": 1, "dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}
        return timm.create_model("convnext_atto", conv_mlp=as_convolutions, num_classes=10, **sizes)

    bank = SlotBank(slot_sizes([("convnext", *described(convnext(True), 16))], DENSE))
    learned, other = (parts(bank, convnext(kind), 16) for kind in (True, False))
    assert learned.keys() == other.keys()
    name = "stages.0.blocks.0.mlp.fc1.weight"
    made = [whole_matrix(bank.rows[own[name].cuts[0].slot], own[name].cuts[0]) for own in (learned, other)]
    assert made[0].equal(made[1])


def test_tables_of_relative_positions_of_another_size_start_from_the_base() -> None:
    def relative(side: int, patch: int) -> nn.Module:
        return PyramidViT(side, patch, [32, 64], [1, 1], [2, 4], relative=True)

    bank = SlotBank(slot_sizes([("vit", *described(relative(16, 4), 16))], DENSE))
    learned, other = (parts(bank, relative(side, side // 4), side) for side in (16, 32))
    tables = {name for name in learned if "rel_pos" in name}
    assert tables and learned.keys() - other.keys() == tables


@pytest.mark.parametrize(("side", "patch"), [(16, 4), (32, 8)])
def test_grey_images_are_read_as_coloured_ones_of_equal_channels(
    bank: SlotBank, side: int, patch: int
) -> None:
    coloured, grey = vit(side, patch), vit(side, patch, in_chans=1)
    cuts = {}
    for model, channels in ((coloured, 3), (grey, 1)):
        own = bank.cuts(*_traced(model, torch.zeros(2, channels, side, side)))
        (cut,) = own.params["patch_embed.proj.weight"].cuts
        cuts[channels] = whole_matrix(bank.rows[cut.slot], cut).view(32, channels, patch, patch)
        assert ("coloured images" in own.origin) == (channels == 1)
        assert ("another size" in own.origin) == (patch == 8)
    torch.testing.assert_close(cuts[1], cuts[3].sum(1, keepdim=True), rtol=1e-4, atol=1e-4)


def test_gradients_of_a_grey_image_reach_all_colours(bank: SlotBank) -> None:
    bank = SlotBank(bank.to_slots())
    found = bank.cuts(*_traced(vit(16, 4, in_chans=1), torch.zeros(2, 1, 16, 16))).params
    (cut,) = found["patch_embed.proj.weight"].cuts
    colours = _checked_gradient(bank, cut).view(32, 3, -1)
    assert colours[:, 0].equal(colours[:, 1]) and colours[:, 0].equal(colours[:, 2])
