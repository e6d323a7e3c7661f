"""Residual additions with the parameters that set the size of their branches, and the channels of attention heads."""

import pytest
import torch
from torch import nn

from ghn.apply.mimetic import as_out_in
from ghn.graph.structure import Attention
from ghn.models import load_model
from ghn.tracing.trace import trace


def _ends(model: nn.Module, inputs=None) -> list[str]:
    return [name for add in trace(model, inputs).residual_adds for name in add.branch_ends]


def test_resnet_branches_end_in_a_norm():
    model = load_model("torchvision:resnet18")
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert _ends(model) == [f"{block}.bn2.weight" for block in blocks]


def test_vit_branches_end_in_a_projection():
    model = load_model("timm:test_vit")
    expected = [
        f"blocks.{block}.{end}.weight"
        for block in range(len(model.blocks))
        for end in ("attn.proj", "mlp.fc2")
    ]
    assert _ends(model) == expected


def test_gpt2_branches_end_in_a_projection():
    model = load_model("hf:gpt2", n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=32)
    expected = [f"transformer.h.{block}.{end}.c_proj.weight" for block in range(2) for end in ("attn", "mlp")]
    assert _ends(model) == expected


def test_branches_are_followed_through_reshapes():
    ends = _ends(load_model("timm:levit_128s", device="meta"))
    assert {"stages.0.blocks.0.attn.proj.ln.bn.weight", "stages.0.blocks.0.mlp.ln2.bn.weight"} <= set(ends)


def test_what_both_sides_of_an_addition_share_is_no_end_of_a_branch():
    """CoaT adds two products of the same queries and values."""
    ends = _ends(load_model("timm:coat_lite_tiny", device="meta"))
    assert "serial_blocks1.0.factoratt_crpe.proj.weight" in ends
    assert not [name for name in ends if "qkv" in name]


def test_a_branch_that_only_pools_is_bare():
    adds = trace(load_model("timm:poolformer_s12", device="meta")).residual_adds
    assert {add.branch_ends[0].split(".")[-2]: add.bare for add in adds} == {
        "layer_scale1": True,
        "layer_scale2": False,
    }
    assert not any(add.bare for add in trace(load_model("timm:test_resnet")).residual_adds)


class ConditionedBlock(nn.Module):
    """A residual branch that a condition is added within, as the time in a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.time = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 8)

    def forward(self, x, time):
        return x + self.second(torch.relu(self.first(x) + self.time(time)[:, :, None, None]))


class Conditioned(nn.ModuleList):
    def __init__(self) -> None:
        super().__init__(ConditionedBlock() for _ in range(2))

    def forward(self, x, time):
        for block in self:
            x = block(x, time)
        return x


def test_what_is_added_to_all_places_is_no_shortcut():
    ends = _ends(Conditioned(), (torch.randn(2, 8, 4, 4), torch.randn(2, 8)))
    assert ends == ["0.second.weight", "1.second.weight"]


def test_layer_scale_comes_before_what_it_scales():
    model = load_model("timm:test_convnext2")
    assert _ends(model) == [f"stages.{stage}.blocks.0.gamma" for stage in range(4)]


def test_two_branches_of_equal_depth_are_no_residual():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.left(x) + self.right(x)

    assert _ends(Sum(), torch.ones(2, 8)) == []


def test_a_sum_of_unrelated_inputs_is_no_residual():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x, y):
            return self.left(x) + torch.relu(self.right(torch.relu(y)))

    assert _ends(Two(), (torch.ones(2, 8), torch.ones(2, 8))) == []


def test_parallel_branches_end_in_both():
    model = load_model("hf:gptj", n_embd=32, n_layer=1, n_head=2, rotary_dim=8, vocab_size=50)
    assert _ends(model) == ["transformer.h.0.attn.out_proj.weight", "transformer.h.0.mlp.fc_out.weight"]


def test_branches_of_experts_and_of_shifted_windows():
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = load_model("hf:mixtral", **sizes, num_hidden_layers=1, num_local_experts=2, vocab_size=50)
    assert _ends(experts)[1] == "model.layers.0.mlp.experts.down_proj"
    swin = load_model("torchvision:swin_t")
    assert len(_ends(swin)) == 2 * 12


def _attention_outputs(model: nn.Module, inputs=None) -> tuple[Attention, list[torch.Tensor]]:
    """The first attention, and the weight rows of its first two query heads and of their keys and values."""
    attention = trace(model, inputs).attentions[0]
    parameters = dict(model.named_parameters())
    rows = []
    for channels in (attention.query, attention.key, attention.value):
        weight = as_out_in(parameters[channels.weight.name].detach(), channels.weight)
        rows += list(weight[channels.rows(attention.heads, attention.width)][:2])
    return attention, rows


@pytest.mark.parametrize(
    ("spec", "kwargs", "expected"),
    [
        ("timm:test_vit", {}, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]),
        (
            "hf:bloom",
            {"n_layer": 1, "hidden_size": 64, "n_head": 2},
            [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)],
        ),
    ],
)
def test_fused_rows_by_head(spec, kwargs, expected):
    """(query | key | value, head) in timm and (head, query | key | value) in BLOOM."""
    model = load_model(spec, **kwargs, **({"vocab_size": 50} if kwargs else {}))
    attention, rows = _attention_outputs(model)
    assert attention.heads == 2
    weight = dict(model.named_parameters())[attention.query.weight.name].detach()
    first, second = (3, 2) if spec == "timm:test_vit" else (2, 3)
    blocks = weight.reshape(first, second, attention.width, -1)
    assert all(torch.equal(row, blocks[position]) for row, position in zip(rows, expected, strict=True))
    assert attention.projection is not None


def test_grouped_query_heads_share_keys_and_values():
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = load_model("hf:llama", **sizes, num_hidden_layers=1, vocab_size=50)
    attention, rows = _attention_outputs(model)
    assert (attention.heads, attention.width) == (4, 16)
    assert (attention.query.group, attention.key.group, attention.value.group) == (1, 2, 2)
    assert torch.equal(rows[2], rows[3])
    assert attention.projection.name == "model.layers.0.self_attn.o_proj.weight"


@pytest.mark.parametrize("need_weights", [True, False])
def test_torch_multihead_attention(need_weights):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x):
            out, weights = self.attention(x, x, x, need_weights=need_weights)
            return (out, weights) if need_weights else out

    attention, rows = _attention_outputs(Layer(), torch.ones(3, 5, 32))
    assert (attention.heads, attention.width) == (4, 8)
    assert attention.key.offset == 32
    assert attention.projection.name == "attention.out_proj.weight"
    assert len(rows) == 6


def test_attention_between_channels_has_no_heads_of_channels():
    assert len(trace(load_model("timm:xcit_nano_12_p16_224")).attentions) == 2  # its class attention alone


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("spec", "kwargs", "causal", "rotary"),
    [
        ("hf:gpt2", {"n_embd": 64, "n_head": 2, "n_layer": 1}, True, None),
        ("hf:llama", {"num_attention_heads": 2, "num_key_value_heads": 1}, True, (range(16), 16)),
        ("hf:gpt_neox", {"num_attention_heads": 2}, True, (range(4), 4)),
        (
            "hf:glm",
            {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
            True,
            (range(0, 16, 2), 1),
        ),
        ("hf:modernbert", {"num_attention_heads": 2, "pad_token_id": 0}, False, (range(16), 16)),
        ("hf:bert", {"num_attention_heads": 2}, False, None),
    ],
)
def test_masks_and_rotary_embeddings(spec, kwargs, causal, rotary, implementation):
    sizes = {} if spec == "hf:gpt2" else {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = load_model(
        spec, device="meta", vocab_size=50, **sizes, **kwargs, attn_implementation=implementation
    )
    (attention,) = trace(model).attentions
    assert attention.causal is causal
    if rotary is None:
        assert attention.rotary is None
    else:
        first, gap = rotary
        assert attention.rotary.first.tolist() == list(first)
        assert attention.rotary.second.tolist() == [channel + gap for channel in first]


def test_a_window_as_long_as_the_text_is_causal_and_a_mask_of_padding_is_not():
    class Layer(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.maps = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
            self.register_buffer("mask", mask)

        def forward(self, x):
            query, key, value = (each(x).unflatten(-1, (2, 8)).transpose(1, 2) for each in self.maps)
            return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)

    lower = torch.ones(6, 6, dtype=torch.bool).tril()
    padding = torch.ones(6, 6, dtype=torch.bool)
    padding[:, 4:] = False
    masks = [lower, torch.zeros(6, 6).masked_fill(~lower, -torch.inf), padding, lower & (lower.cumsum(0) < 3)]
    found = [trace(Layer(mask), torch.ones(1, 6, 16)).attentions[0].causal for mask in masks]
    assert found == [True, True, False, False]
