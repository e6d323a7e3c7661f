"""Slots: weights that networks share place by place."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call

import ghn
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.slot_decoder import SlotDecoder
from ghn.decoder.slots import COHERENT, FRESH, SlotBank, slot_sizes
from ghn.graph.graph import ComputationGraph
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.cutting import Gradients, Noise, cut_out

IMAGES = torch.zeros(2, 3, 16, 16)


def network(width: int, layers: tuple[int, ...] = (1, 1), **kwargs: object) -> nn.Module:
    layers = (*layers, 1, 1)
    return timm.create_model(
        "resnet18", layers=layers, channels=[width * 2**s for s in range(4)], num_classes=10, **kwargs
    )


def described(model: nn.Module) -> tuple[ComputationGraph, list[ParamPlan]]:
    graph = ghn.trace(model, IMAGES)
    return graph, plan_parameters(graph, DecoderConfig(scope="all"))


@pytest.fixture(scope="module", params=[4, DENSE], ids=["factors", "matrices"])
def bank(request: pytest.FixtureRequest) -> SlotBank:
    """Slots for networks up to 8 channels and two blocks a stage, as if something had been learned."""
    bank = SlotBank(slot_sizes([("resnet", *described(network(8, (2, 2))))], request.param))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for table in bank.parameters():
            table += 0.3 * torch.randn(table.shape, generator=generator)
    return bank


def grouped(width: int, groups: int) -> nn.Module:
    """A ResNeXt with blocks that are twice as wide as within."""
    channels = [width * 2**stage for stage in range(4)]
    return timm.create_model(
        "resnext50_32x4d",
        layers=(1, 1, 1, 1),
        channels=channels,
        cardinality=groups,
        base_width=128 // groups,
        num_classes=10,
    )


@pytest.fixture(scope="module")
def grouped_bank() -> SlotBank:
    """Slots for ResNeXts of 8 to 64 channels within, in two groups."""
    return SlotBank(slot_sizes([("resnext", *described(grouped(4, 2)))], DENSE))


def hypernetwork(bank: SlotBank) -> GHN:
    sizes = bank.to_slots()
    net = GHN(GHNConfig(decoder=DecoderConfig(slots=sizes)))
    assert isinstance(net.decoder, SlotDecoder)
    net.decoder.bank.load_state_dict(bank.state_dict())
    return net.eval()


def cut(bank: SlotBank, model: nn.Module) -> dict[str, Tensor]:
    graph, plans = described(model)
    return cut_out(bank, bank.cut_params(graph, plans, bank.families[0]), None)[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_vector_that_only_some_members_start_at_random_has_one_slot(reverse: bool) -> None:
    """A stem's biases are random where no table of positions is added, and zero where one is."""
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "depth": 1,
        "num_heads": 2,
        "num_classes": 10,
        "global_pool": "avg",
    }
    absolute = timm.create_model("vit_tiny_patch16_224", **sizes, embed_dim=32, class_token=False)
    relative = timm.create_model("vit_relpos_small_patch16_224", **sizes, embed_dim=24, class_token=False)
    members = [("vit", *described(absolute)), ("vit", *described(relative))]
    bank = SlotBank(slot_sizes(members[::-1] if reverse else members, DENSE))
    ranks = {key: size.rank for key, size in bank.sizes.items()}
    (key,) = [key for key in ranks if key.startswith("vit/0/bias at patch4")]
    assert ranks[key] == 0
    with torch.no_grad():
        bank.rows[bank.first[key]].copy_(torch.linspace(-1, 1, 32))
    net, name = hypernetwork(bank), "patch_embed.proj.bias"
    predicted = net.predict(relative, IMAGES, learned="all")[name]
    torch.testing.assert_close(predicted, torch.linspace(-1, 1, 32)[:24])
    torch.testing.assert_close(cut(bank, relative)[name], predicted)
    assert 0.3 < net.predict(relative, IMAGES, learned=False)[name].std() < 0.7


def test_a_narrower_network_is_cut_out_of_a_wider_one(bank: SlotBank) -> None:
    wide, narrow = cut(bank, network(8)), cut(bank, network(4))
    for name in ("layer2.0.conv1.weight", "layer3.0.conv2.weight"):
        rows, columns = narrow[name].shape[:2]
        inner = wide[name][:rows, :columns]
        # Equal up to the size of the whole, and nearly so: the low-rank part is measured on what was cut.
        similar = nn.functional.cosine_similarity(inner.flatten(), narrow[name].flatten(), dim=0)
        assert similar > 0.98


def test_shallower_networks_take_the_first_blocks(bank: SlotBank) -> None:
    deep, shallow = cut(bank, network(8, (2, 2))), cut(bank, network(8, (1, 1)))
    assert deep["layer1.0.conv1.weight"].equal(shallow["layer1.0.conv1.weight"])
    assert not deep["layer1.1.conv1.weight"].equal(deep["layer1.0.conv1.weight"])


def test_values_have_the_size_of_their_rule(bank: SlotBank) -> None:
    graph, plans = described(network(8))
    parts = bank.cut_params(graph, plans, "resnet")
    made, _ = cut_out(bank, parts, None)
    for part in parts:
        if part.plan.init.random and part.plan.spec.numel > 500:
            size = made[part.plan.spec.name].square().mean().sqrt().item()
            gain = bank.gain[part.cuts[0].slot].exp().item()
            assert size == pytest.approx(gain * COHERENT * part.plan.init.std, rel=0.15)


@pytest.mark.parametrize("width", [5, 8, 16, 20])
def test_the_hypernetwork_makes_what_meta_training_made(bank: SlotBank, width: int) -> None:
    agree(bank, network(width, (2, 3)))


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("width", [4, 12])
def test_the_hypernetwork_makes_grouped_kernels_of_meta_training(
    grouped_bank: SlotBank, width: int, groups: int
) -> None:
    agree(grouped_bank, grouped(width, groups))


def agree(bank: SlotBank, model: nn.Module) -> None:
    net, (family,) = hypernetwork(bank), bank.families
    made = cut(bank, model)
    graph, plans = described(model)
    whole, base = (
        net.predict_graph(graph, seed=1, learned="all").params,
        net.predict_graph(graph, seed=1, learned=False).params,
    )
    parts = {part.plan.spec.name: part for part in bank.cut_params(graph, plans, family)}
    for name, values in made.items():
        fresh: float | Tensor = 0.0
        if parts[name].plan.init.random:
            fresh = base[name] * FRESH
        torch.testing.assert_close(whole[name], values + fresh, rtol=1e-4, atol=1e-5)


def test_networks_of_other_groups_share_what_both_have(grouped_bank: SlotBank) -> None:
    two, four = (cut(grouped_bank, grouped(4, groups))["layer1.0.conv2.weight"] for groups in (2, 4))
    assert two.shape[:2] == (8, 4) and four.shape[:2] == (8, 2)
    both = torch.cat([two[:2, :2], two[2:4, 2:], two[4:6, :2], two[6:, 2:]])
    similar = nn.functional.cosine_similarity(both.flatten(), four.flatten(), dim=0)
    assert similar > 0.999


def test_copies_of_groups_compute_the_same(grouped_bank: SlotBank) -> None:
    narrow, wide = (
        cut(grouped_bank, grouped(width, width // 2)) for width in (4, 8)
    )  # twice the groups, as wide
    for name in ("layer1.0.conv2.weight", "layer1.0.conv1.weight", "layer1.0.bn2.weight"):
        once, twice = narrow[name], wide[name]
        assert twice[: len(once)].equal(twice[len(once) :])
        assert nn.functional.cosine_similarity(once.flatten(), twice[: len(once)].flatten(), dim=0) > 0.999
    once, twice = narrow["layer1.0.conv3.weight"], wide["layer1.0.conv3.weight"]
    assert twice[:, : once.shape[1]].equal(twice[:, once.shape[1] :])


def test_init_writes_what_predict_gives_in_pieces_of_any_size(bank: SlotBank) -> None:
    net, model = hypernetwork(bank), network(24)
    predicted = net.predict(model, IMAGES, seed=3, learned="all")
    net.init_(model, IMAGES, seed=3, learned="all", memory=2**22)
    for name, values in model.named_parameters():
        assert values.equal(predicted[name]), name


def test_twice_the_width_computes_the_same(bank: SlotBank) -> None:
    """Copies of units, divided where they are read, leave the function as it was."""
    narrow, wide = network(8), network(16)
    small, large = cut(bank, narrow), cut(bank, wide)
    once, twice = small["layer3.0.conv1.weight"], large["layer3.0.conv1.weight"]
    folded = twice[: once.shape[0]].unflatten(1, (2, -1)).sum(1)
    ratio = (folded / once).flatten()
    assert ratio.std() < 1e-3 * ratio.mean().abs()


def test_what_writes_units_beyond_a_table_and_what_reads_them_repeats_them_alike() -> None:
    sizes = slot_sizes([("resnet", *described(network(8)))], DENSE)
    (wider,) = (key for key in sizes if key.startswith("resnet/1/convk act>trunk"))
    sizes[wider] = (1, 12, *sizes[wider][2:])  # as if another member had a wide trunk there
    bank = SlotBank(sizes)
    parts = {part.plan.spec.name: part for part in bank.cut_params(*described(network(16)), "resnet")}
    for name in ("layer1.0.conv2.weight", "layer1.0.bn2.weight", "layer1.0.conv1.weight"):
        rows = parts[name].cuts[0].rows
        assert rows is not None and rows.equal(torch.arange(16) % 8), name


def test_seeds_differ_and_agree_in_what_is_learned(bank: SlotBank) -> None:
    net, (graph, _) = hypernetwork(bank), described(network(8))
    one, other = (net.predict_graph(graph, seed=seed, learned="all").params for seed in (0, 1))
    name = "layer3.0.conv2.weight"
    similar = nn.functional.cosine_similarity(one[name].flatten(), other[name].flatten(), dim=0)
    assert 0.8 < similar < 0.99


def test_gradients_are_those_of_the_loss(bank: SlotBank) -> None:
    gradients_agree(bank, network(6, act_layer="gelu"))


@pytest.mark.parametrize("width", [4, 6])
def test_gradients_of_grouped_kernels_are_those_of_the_loss(grouped_bank: SlotBank, width: int) -> None:
    gradients_agree(grouped_bank, grouped(width, 2))


def gradients_agree(bank: SlotBank, model: nn.Module) -> None:
    (family,) = bank.families
    bank = SlotBank(bank.to_slots()).double()
    model = model.double().train()
    graph, plans = described(model)
    parts = [
        replace(
            part,
            cuts=tuple(
                replace(cut, master=None if cut.master is None else cut.master.double()) for cut in part.cuts
            ),
        )
        for part in bank.cut_params(graph, plans, family)
    ]
    inputs = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(model, weights, inputs).square().mean()

    made, saved = cut_out(bank, parts, None)
    leaves = {name: values.double().requires_grad_() for name, values in made.items()}
    loss(leaves).backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    Gradients(bank).add(saved, gradients, 1.0)
    generator = torch.Generator().manual_seed(2)
    touched = [table for table in bank.parameters() if table.grad is not None]
    directions = [torch.randn(table.shape, generator=generator).double() for table in touched]
    along = sum(float((table.grad * way).sum()) for table, way in zip(touched, directions, strict=True))

    def moved(by: float) -> float:
        with torch.no_grad():
            for table, way in zip(touched, directions, strict=True):
                table += by * way
            value = float(loss({name: v.double() for name, v in cut_out(bank, parts, None)[0].items()}))
            for table, way in zip(touched, directions, strict=True):
                table -= by * way
        return value

    measured = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert along == pytest.approx(measured, rel=1e-3)


def test_prediction_is_differentiable_in_the_tables(bank: SlotBank) -> None:
    net, model = hypernetwork(bank), network(8)
    predicted = net.predict(model, IMAGES, learned="all")
    functional_call(model, predicted, torch.randn(4, 3, 16, 16)).square().mean().backward()
    assert isinstance(net.decoder, SlotDecoder)
    gradients = [table.grad for table in net.decoder.bank.rows if table.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_a_network_of_another_kind_keeps_to_its_base(bank: SlotBank) -> None:
    net = hypernetwork(bank)
    graph = ghn.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    assert net.decoder.bank.family(graph)[0] == ""
    whole, base = (
        net.predict_graph(graph, learned="all").params,
        net.predict_graph(graph, learned=False).params,
    )
    assert all(values.equal(base[name]) for name, values in whole.items())


def test_of_families_that_know_a_network_alike_the_one_with_nothing_more_is_taken(bank: SlotBank) -> None:
    own = bank.to_slots()
    more = {f"zoo/{key.partition('/')[2]}": size for key, size in own.items()}
    more |= {f"zoo/9/linear {number}": next(iter(own.values())) for number in range(3)}
    graph, _ = described(network(8))
    family, known = SlotBank(own | more).family(graph)
    assert (family, known) == (bank.families[0], 1.0)


def test_a_family_with_much_more_than_a_network_has_is_not_taken(bank: SlotBank) -> None:
    own = bank.to_slots()
    graph, _ = described(network(8))
    more = {
        f"{bank.families[0]}/9/linear {number}": next(iter(own.values())) for number in range(9 * len(own))
    }
    assert SlotBank(own | more).family(graph) == ("", 0.0)


def test_other_classes_start_from_the_base(bank: SlotBank) -> None:
    net = hypernetwork(bank)
    model = timm.create_model("resnet18", layers=[1, 1, 1, 1], channels=[8, 16, 32, 64], num_classes=7)
    graph = ghn.trace(model, IMAGES)
    whole, base = (
        net.predict_graph(graph, learned="all").params,
        net.predict_graph(graph, learned=False).params,
    )
    assert whole["fc.weight"].equal(base["fc.weight"])
    assert not whole["layer4.0.conv1.weight"].equal(base["layer4.0.conv1.weight"])


def test_saved_tables_come_back_within_rounding_and_then_stay(bank: SlotBank, tmp_path: Path) -> None:
    net = hypernetwork(bank)
    net.save_pretrained(tmp_path / "once")
    again = GHN.from_pretrained(tmp_path / "once")
    graph, _ = described(network(8))
    for name, values in net.predict_graph(graph, learned="all").params.items():
        bound = 0.02 if bank.sizes["resnet/1/convk trunk>act"].rank > 0 else 0.1
        torch.testing.assert_close(
            again.predict_graph(graph, learned="all").params[name],
            values,
            rtol=0,
            atol=bound * values.abs().max().item(),
        )
    again.save_pretrained(tmp_path / "twice")
    once, twice = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("once", "twice"))
    assert once == twice
    assert GHN.from_pretrained(tmp_path / "twice").fingerprint() == again.fingerprint()


def test_noise_is_added_in_place() -> None:
    values = torch.zeros(64, 64)
    Noise(torch.Generator().manual_seed(0), size=1000).add_(values, 0.5)
    assert values.std().item() == pytest.approx(0.5, rel=0.1)


def test_report_says_what_is_learned_and_from_where(bank: SlotBank) -> None:
    net = hypernetwork(bank)
    report = net.init_(network(8), IMAGES, learned="all")
    shares = {entry.name: entry.learned for entry in report.parameters}
    assert shares["layer3.0.conv2.weight"] == pytest.approx(COHERENT**2, abs=1e-3)
    assert report.learned == pytest.approx(COHERENT**2, abs=0.01)
    assert "98% learned: from resnet, which has 100% of its layers" in str(report)
    wider = net.init_(network(32), IMAGES, learned="all")
    assert 0.8 < wider.learned < report.learned
    assert net.init_(network(8), IMAGES, learned=False).learned == 0
    other = net.init_(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    assert other.learned == 0
    assert "0% learned: the nearest, resnet, has" in str(other)
