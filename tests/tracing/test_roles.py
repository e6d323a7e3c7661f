"""Roles of parameters and of their axes, on layers and on tiny models of the zoos."""

import pytest
import torch
from torch import nn

from ghn.graph.ops import AXES, ROLES
from ghn.models import load_model
from ghn.tracing.trace import trace

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
LLAMA = {**SMALL, "num_key_value_heads": 1, "intermediate_size": 48}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
BERT = {**SMALL, "intermediate_size": 48, "max_position_embeddings": 40}


class Score(nn.Module):
    """A product with one vector."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


LAYERS = {
    "vector": (Score(), (8,), {"weight": ("matrix", ("in",), 1)}),
    "linear": (
        nn.Linear(8, 6),
        (8,),
        {"weight": ("linear", ("out", "in"), 1), "bias": ("bias", ("channel",), 1)},
    ),
    "grouped": (
        nn.Conv2d(4, 6, 3, groups=2),
        (4, 8, 8),
        {"weight": ("conv", ("out", "in", "spatial", "spatial"), 2)},
    ),
    "depthwise": (
        nn.Conv1d(4, 4, 3, groups=4),
        (4, 8),
        {"weight": ("conv", ("out", "one", "spatial"), 4)},
    ),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 2, groups=2),
        (4, 8, 8),
        {
            "weight": ("conv_transpose", ("in", "out", "spatial", "spatial"), 2),
            "bias": ("bias", ("channel",), 1),
        },
    ),
    "slope": (nn.PReLU(4), (4, 8, 8), {"weight": ("slope", ("channel",), 1)}),
    "group_norm": (
        nn.GroupNorm(2, 4),
        (4, 8, 8),
        {"weight": ("norm_weight", ("channel",), 1), "bias": ("norm_bias", ("channel",), 1)},
    ),
    "bilinear": (nn.Bilinear(8, 8, 4), None, {"weight": ("bilinear", ("out", "in", "in"), 1)}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layer(layer):
    module, shape, expected = LAYERS[layer]
    inputs = (torch.ones(2, 8), torch.ones(2, 8)) if shape is None else torch.ones(2, *shape)
    specs = {spec.name: (spec.role, spec.axes, spec.groups) for spec in trace(module, inputs).params}
    assert expected.items() <= specs.items()


MODELS = {
    "timm:test_vit": (
        {},
        {
            "cls_token": ("token", ("one", "one", "channel")),
            "pos_embed": ("position", ("one", "table", "channel")),
            "blocks.0.attn.qkv.weight": ("linear", ("out", "in")),
            "patch_embed.proj.weight": ("conv", ("out", "in", "spatial", "spatial")),
        },
    ),
    "timm:test_convnext2": (
        {},
        {
            "stages.0.blocks.0.gamma": ("layer_scale", ("channel",)),
            "stages.0.blocks.0.conv_dw.weight": ("conv", ("out", "one", "spatial", "spatial")),
        },
    ),
    "timm:test_vit2": ({}, {"blocks.0.ls1.gamma": ("layer_scale", ("channel",))}),
    # A map of waves that the forward pass computes from nothing is no table of positions.
    "timm:xcit_nano_12_p8_224": (
        {},
        {"pos_embed.token_projection.weight": ("conv", ("out", "in", "one", "one"))},
    ),
    # Behind a normalization with weights of its own and a pooling minus what it pools.
    "timm:poolformer_s12": ({}, {"stages.0.blocks.0.layer_scale1.scale": ("layer_scale", ("channel",))}),
    "hf:gpt2": (
        GPT2,
        {
            "transformer.h.0.attn.c_attn.weight": ("linear", ("in", "out")),
            "transformer.h.0.mlp.c_proj.weight": ("linear", ("in", "out")),
            "transformer.wte.weight": ("embedding", ("table", "channel")),
            "transformer.wpe.weight": ("position", ("table", "channel")),
            "transformer.h.0.ln_1.weight": ("norm_weight", ("channel",)),
        },
    ),
    "hf:llama": (
        LLAMA,
        {
            "model.norm.weight": ("norm_weight", ("channel",)),
            "model.layers.0.input_layernorm.weight": ("norm_weight", ("channel",)),
            "model.layers.0.mlp.down_proj.weight": ("linear", ("out", "in")),
            "lm_head.weight": ("linear", ("out", "in")),
        },
    ),
    "hf:bert": (
        BERT,
        {
            "bert.embeddings.position_embeddings.weight": ("position", ("table", "channel")),
            "bert.embeddings.word_embeddings.weight": ("embedding", ("table", "channel")),
            "bert.embeddings.LayerNorm.bias": ("norm_bias", ("channel",)),
        },
    ),
    "hf:roberta": (  # looks positions up by how many tokens came before that are no padding
        BERT,
        {
            "roberta.embeddings.position_embeddings.weight": ("position", ("table", "channel")),
            "roberta.embeddings.word_embeddings.weight": ("embedding", ("table", "channel")),
        },
    ),
    "hf:t5": (
        T5,
        {
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
                "relative_bias",
                ("table", "head"),
            ),
            "encoder.block.0.layer.0.layer_norm.weight": ("norm_weight", ("channel",)),
            "shared.weight": ("embedding", ("table", "channel")),
        },
    ),
    "hf:mixtral": (
        {**LLAMA, "num_local_experts": 4},
        {
            "model.layers.0.mlp.experts.gate_up_proj": ("expert", ("expert", "out", "in")),
            "model.layers.0.mlp.experts.down_proj": ("expert", ("expert", "out", "in")),
        },
    ),
    "hf:swin:AutoModelForImageClassification": (
        SWIN,
        {
            "swin.encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table": (
                "relative_bias",
                ("table", "head"),
            ),
        },
    ),
}


@pytest.mark.parametrize("spec", MODELS)
def test_zoo(spec):
    kwargs, expected = MODELS[spec]
    graph = trace(load_model(spec, **kwargs))
    found = {param.name: (param.role, param.axes) for param in graph.params}
    assert graph.coverage() == 1.0
    assert "unknown" not in {role for role, _ in found.values()}
    assert {name: found[name] for name in expected} == expected
    assert all(role in ROLES and set(axes) <= AXES.keys() for role, axes in found.values())
    assert all(len(param.axes) == len(param.shape) for param in graph.params)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_relpos_small_patch16_224", {"blocks.0.attn.rel_pos.mlp.fc1.weight": "linear"}),
        ("test_nfnet", {"stem.conv1.gain": "scale", "stem.conv1.weight": "conv"}),
    ],
)
def test_parameters_of_computed_weights_and_biases_have_roles(name, expected):
    model = load_model(f"timm:{name}", device="meta")
    roles = {spec.name: spec.role for spec in trace(model).params}
    assert expected.items() <= roles.items()
    assert "unknown" not in roles.values()


def test_self_attention_reads_its_packed_weight_in_slices():
    query, memory = torch.ones(2, 5, 8), torch.ones(2, 6, 8)
    graph = trace(nn.MultiheadAttention(8, 2, batch_first=True), (query, memory, memory))
    packed = graph.params[0]
    assert (packed.name, packed.role, packed.axes) == ("in_proj_weight", "linear", ("out", "in"))


def test_expert_bank_in_a_batched_product():
    class Bank(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 8, 6))

        def forward(self, x):
            return torch.bmm(x.expand(4, -1, -1), self.weight)

    (spec,) = trace(Bank(), torch.ones(1, 2, 8)).params
    assert (spec.role, spec.axes) == ("expert", ("expert", "in", "out"))


class Packed(nn.Module):
    """Sequences of different lengths go through another variant of the recurrent operation."""

    def __init__(self, rnn: nn.Module):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        return self.rnn(packed)[0].data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("projected", [0, 3])
def test_recurrent_parameters_by_layer_and_direction(packed, bias, projected):
    rnn = nn.LSTM(8, 6, 2, bias=bias, batch_first=True, bidirectional=True, proj_size=projected)
    roles = {"ih": "recurrent_input", "hh": "recurrent_hidden", "hr": "linear"}
    for spec in trace(Packed(rnn) if packed else rnn, torch.ones(2, 5, 8)).params:
        kind, side = spec.name.removeprefix("rnn.").split("_")[:2]
        assert spec.role == (roles[side] if kind == "weight" else "bias"), spec.name
        assert spec.groups == (4 if spec.role.startswith("recurrent") else 1)


@pytest.mark.parametrize("cell", [nn.LSTMCell(8, 6), nn.GRUCell(8, 6), nn.RNNCell(8, 6, bias=False)])
def test_recurrent_cells(cell):
    roles = [spec.role for spec in trace(cell, torch.ones(2, 8)).params]
    assert roles[:2] == ["recurrent_input", "recurrent_hidden"]
    assert set(roles[2:]) <= {"bias"}


class Latents(nn.Module):
    """Learned queries ask, normalized or not, and what is answered is added to them, as in Perceiver and DETR."""

    def __init__(self, normalized: bool, one: bool):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, 1 if one else 4, 8))
        self.norm = nn.LayerNorm(8) if normalized else nn.Identity()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 16)

    def forward(self, x):
        latents = self.latents.expand(len(x), -1, -1)
        key, value = self.key(x).chunk(2, -1)
        return latents + (self.query(self.norm(latents)) @ key.mT).softmax(-1) @ value


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("one", [False, True])
def test_learned_queries_are_tokens(normalized, one):
    roles = {spec.name: spec.role for spec in trace(Latents(normalized, one), torch.ones(2, 5, 8)).params}
    assert roles["latents"] == "token"
    assert not {"token", "position"} & {role for name, role in roles.items() if name != "latents"}


class Positions(nn.Module):
    """A table that is only added to what a linear map reads."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 8))
        self.map = nn.Linear(8, 8)

    def forward(self, x):
        return self.map(x + self.table)


def test_what_is_only_added_is_a_position():
    assert trace(Positions(), torch.ones(2, 5, 8)).params[0].role == "position"
