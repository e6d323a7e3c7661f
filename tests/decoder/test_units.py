"""Units: rows and columns of parameters know which hidden unit, head, group or kernel point they belong to."""

import pytest
import timm
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import ghn
from ghn.decoder.units import Segment, segments

IMAGES = torch.zeros(2, 3, 32, 32)
TOKENS = {"input_ids": torch.zeros(2, 16, dtype=torch.long), "use_cache": False}


def by_name(model: torch.nn.Module, inputs: object) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for segment in segments(ghn.trace(model, inputs)):
        found.setdefault(segment.spec.name, []).append(segment)
    return found


def test_queries_keys_and_values_of_one_map_are_cut_by_part_and_head() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=16, vocab_size=64))
    query, key, value = by_name(model, TOKENS)["transformer.h.0.attn.c_attn.weight"]
    assert [part.address.kind[-1] for part in (query, key, value)] == ["q", "k", "v"]
    assert query.rows is not None and key.rows is not None and value.rows is not None
    assert torch.cat([query.rows, key.rows, value.rows]).sort().values.equal(torch.arange(96))
    assert key.rows.equal(torch.arange(32, 64))
    assert query.row_units.equal(torch.cartesian_prod(torch.arange(4), torch.arange(8)))


def test_shared_keys_stand_with_the_first_head_that_reads_them() -> None:
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=64,
    )
    (key,) = by_name(LlamaForCausalLM(config), TOKENS)["model.layers.0.self_attn.k_proj.weight"]
    assert key.row_units[:, 0].unique().tolist() == [0, 2]


def test_the_map_behind_attention_reads_heads() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=16, vocab_size=64))
    (projection,) = by_name(model, TOKENS)["transformer.h.0.attn.c_proj.weight"]
    assert projection.column_units[:, :2].equal(torch.cartesian_prod(torch.arange(4), torch.arange(8)))


def test_kernels_are_counted_from_their_centre() -> None:
    found = by_name(timm.create_model("resnet18"), IMAGES)
    (stem,), (kernel,) = found["conv1.weight"], found["layer1.0.conv1.weight"]
    assert stem.column_units[:, 2].min() == -3 and stem.column_units[:, 2].max() == 3
    middle = kernel.column_units[(kernel.column_units[:, 2:] == 0).all(1)]
    assert middle[:, 1].equal(torch.arange(64))


def test_groups_are_parts_of_a_dense_kernel() -> None:
    found = by_name(timm.create_model("resnext50_32x4d"), IMAGES)
    (before,), (grouped,), (behind,) = (found[f"layer1.0.conv{number}.weight"] for number in (1, 2, 3))
    assert grouped.groups == 32 and before.groups == behind.groups == 1
    assert grouped.row_units.equal(before.row_units)  # one number for a hidden unit, whatever its group
    assert grouped.column_units[::9, :2].equal(behind.column_units[:, :2])


@pytest.mark.parametrize("heads", [1, 2])
def test_relative_positions_are_counted_by_head_also_where_there_is_one(heads: int) -> None:
    model = timm.create_model(
        "vit_relpos_small_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=1,
        num_heads=heads,
        rel_pos_type="bias",
    )
    (table,) = by_name(model, IMAGES)["blocks.0.attn.rel_pos.relative_position_bias_table"]
    assert table.row_units.equal(torch.cartesian_prod(torch.arange(49), torch.arange(heads)))


def test_concatenated_channels_keep_their_parts() -> None:
    model = timm.create_model("densenet121", growth_rate=8, block_config=(3, 2))
    found = by_name(model, IMAGES)
    (reads,) = found["features.denseblock1.denselayer3.conv1.weight"]
    (norm,) = found["features.denseblock1.denselayer3.norm1.weight"]
    assert reads.column_units[:, 0].bincount().tolist() == [16, 8, 8]
    assert norm.row_units.equal(reads.column_units[:, :2])


def test_parts_that_layers_of_one_depth_wrote_are_copies() -> None:
    found = by_name(timm.create_model("densenet121", growth_rate=8, block_config=(12, 2)), IMAGES)
    (reads,) = found["features.denseblock1.denselayer12.conv1.weight"]
    blocks = reads.column_units[:, 0].bincount().tolist()
    # The first and the last of the twelve have a depth step of their own; the others share four.
    assert blocks[:2] == [16, 8] and len(blocks) == 6 and sum(blocks) == 16 + 11 * 8


def test_what_one_weight_wrote_twice_are_two_parts() -> None:
    class Concatenated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(16, 8, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            image = self.first(image)
            return self.last(torch.cat([image.relu(), (-image).relu()], 1))

    (reads,) = by_name(Concatenated(), IMAGES)["last.weight"]
    assert reads.column_units[:, 0].bincount().tolist() == [8 * 9, 8 * 9]


def test_a_head_reads_the_parts_of_what_was_pooled() -> None:
    found = by_name(timm.create_model("densenet121", growth_rate=8, block_config=(2, 2)), IMAGES)
    (head,) = found["classifier.weight"]
    assert head.column_units[:, 0].bincount().tolist() == [16, 8, 8]


def test_segments_cover_every_row_once() -> None:
    for name, inputs in (
        ("mobilevit_xxs", torch.zeros(2, 3, 64, 64)),
        ("swin_tiny_patch4_window7_224", None),
    ):
        model = timm.create_model(name)
        for parts in by_name(model, inputs).values():
            if len(parts) > 1:
                rows = torch.cat([part.rows for part in parts if part.rows is not None])
                assert rows.sort().values.equal(torch.arange(len(rows)))
