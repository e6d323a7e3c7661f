"""Addresses: equal places of different networks share names, whatever their widths, depths and modules are called."""

import pytest
import timm
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

import ghn
from ghn.graph.addresses import Address, addresses

IMAGES = torch.zeros(2, 3, 32, 32)
TOKENS = {"input_ids": torch.zeros(2, 16, dtype=torch.long), "use_cache": False}


def resnet(layers: list[int], width: int, **kwargs: object) -> dict[str, Address]:
    channels = [width * 2**stage for stage in range(4)]
    return addresses(
        ghn.trace(timm.create_model("resnet18", layers=layers, channels=channels, **kwargs), IMAGES)
    )


def places(found: dict[str, Address]) -> set[tuple[int, str]]:
    return {(address.stage, address.kind) for address in found.values()}


def test_widths_and_depths_do_not_enter() -> None:
    assert places(resnet([1, 2, 1, 1], 8)) == places(resnet([3, 2, 4, 2], 24))


def test_every_attached_parameter_has_one() -> None:
    graph = ghn.trace(timm.create_model("mobilevit_xxs"), torch.zeros(2, 3, 64, 64))
    assert set(addresses(graph)) == {spec.name for spec in graph.params if spec.node is not None}


def test_stages_follow_the_residual_stream() -> None:
    found = resnet([1, 2, 1, 1], 8)
    assert found["conv1.weight"].stage == 0
    for stage in range(4):
        for name in ("conv1", "conv2"):
            assert found[f"layer{stage + 1}.0.{name}.weight"].stage == stage + 1
    assert found["layer2.1.conv2.weight"].stage == 2
    assert found["fc.weight"].stage == 5


def test_stem_is_a_stage_of_its_own_even_if_the_next_is_as_wide() -> None:
    wide = addresses(ghn.trace(timm.create_model("resnet18"), IMAGES))
    assert wide["layer1.0.conv1.weight"] == resnet([2, 2, 2, 2], 8)["layer1.0.conv1.weight"]


def test_depth_counts_within_a_stage() -> None:
    found = resnet([1, 3, 1, 1], 8)
    blocks = [found[f"layer2.{block}.conv1.weight"] for block in range(3)]
    assert [(block.index, block.count) for block in blocks] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("index", "count", "steps", "expected"),
    [
        (0, 1, 6, 0),
        (1, 2, 6, 1),
        (2, 3, 6, 2),
        (11, 12, 6, 5),
        (0, 12, 6, 0),
        (1, 12, 6, 1),
        (10, 12, 6, 4),
        (5, 12, 6, 2),
        (3, 4, 1, 0),
    ],
)
def test_relative_depth(index: int, count: int, steps: int, expected: int) -> None:
    assert Address(0, "linear", index, count).depth(steps) == expected


def test_gates_are_told_from_the_block_they_gate() -> None:
    found = addresses(ghn.trace(timm.create_model("efficientnet_b0"), IMAGES))
    block = "blocks.2.1."
    assert found[f"{block}se.conv_reduce.weight"].kind == "conv actpool>gated"
    assert found[f"{block}se.conv_expand.weight"].kind == "conv squeezed>gate"
    assert found[f"{block}conv_pwl.weight"].kind == "conv act>trunk"


def test_gates_are_found_where_a_single_pixel_is_left() -> None:
    found = addresses(ghn.trace(timm.create_model("efficientnet_b0"), torch.zeros(2, 3, 32, 32)))
    assert found["blocks.5.1.se.conv_expand.weight"].kind == "conv squeezed>gate"
    assert found["blocks.5.1.conv_pwl.weight"].kind == "conv act>trunk"


def test_two_zoos_spell_one_architecture_alike() -> None:
    gpt2 = addresses(
        ghn.trace(
            GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=16, vocab_size=64)), TOKENS
        )
    )
    opt = addresses(
        ghn.trace(
            OPTForCausalLM(
                OPTConfig(
                    hidden_size=32,
                    word_embed_proj_dim=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    ffn_dim=64,
                    max_position_embeddings=16,
                    vocab_size=64,
                )
            ),
            TOKENS,
        )
    )
    ours, theirs = gpt2["transformer.h.1.mlp.c_fc.weight"], opt["model.decoder.layers.1.fc1.weight"]
    assert ours == theirs
    assert gpt2["transformer.wte.weight"] == opt["model.decoder.embed_tokens.weight"]
    assert gpt2["transformer.ln_f.weight"] == opt["model.decoder.final_layer_norm.weight"]


def test_class_counts_and_vocabularies_are_part_of_the_address() -> None:
    ten = addresses(ghn.trace(timm.create_model("resnet18", num_classes=10), IMAGES))
    eleven = addresses(ghn.trace(timm.create_model("resnet18", num_classes=11), IMAGES))
    assert ten["fc.weight"].kind.startswith("linear/10 ")
    assert ten["fc.weight"] != eleven["fc.weight"]
    assert ten["layer4.0.conv1.weight"] == eleven["layer4.0.conv1.weight"]


def test_the_sum_of_heads_is_an_output_and_no_trunk() -> None:
    found = addresses(
        ghn.trace(timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=7), IMAGES)
    )
    heads = [found["head.weight"], found["head_dist.weight"]]
    assert [(head.kind, head.index, head.count) for head in heads] == [
        ("linear/7 trunk>output", 0, 2),
        ("linear/7 trunk>output", 1, 2),
    ]
    assert found["blocks.11.mlp.fc2.weight"].kind == "linear act>trunk"


def test_networks_without_merges_count_every_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    found = addresses(ghn.trace(model, IMAGES))
    assert [found[f"{layer}.weight"].stage for layer in (0, 2, 4)] == [0, 1, 2]
    assert found["8.weight"].kind == "linear/10 actpool>output"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixer_s32_224", {"mlp_tokens.fc1", "mlp_tokens.fc2"}),
        ("gmlp_ti16_224", {"mlp_channels.gate.proj"}),
        ("resmlp_12_224", {"linear_tokens"}),
        ("vit_tiny_patch16_224", set()),
    ],
)
def test_maps_of_tokens_are_told_from_maps_of_channels(name: str, expected: set[str]) -> None:
    found = addresses(ghn.trace(timm.create_model(name), torch.zeros(2, 3, 224, 224)))
    of_tokens = {
        path.removeprefix("blocks.1.").removesuffix(".weight")
        for path, address in found.items()
        if path.startswith("blocks.1.") and address.kind.startswith("linear of tokens ")
    }
    assert of_tokens == expected
