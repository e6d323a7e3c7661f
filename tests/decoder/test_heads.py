"""Heads that look back: which ones, how far, and what they are made of."""

import pytest
import torch
from torch import nn

from ghn import GHN
from ghn.decoder.heads import REACH, looking_back
from ghn.graph.trace import trace
from ghn.models import load_model

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
EAGER = {"attn_implementation": "eager"}
LANGUAGE_MODELS = {
    "waves": ("hf:gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 64}),
    "waves, maps apart": (
        "hf:opt",
        {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 64, "max_position_embeddings": 64},
    ),
    "shared vector": ("hf:llama", {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}),
    "shared vector, neighbouring channels": (
        "hf:gptj",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 16, "vocab_size": 50},
    ),
    "biases": ("hf:gpt_neox", {**SIZES, "hidden_size": 128, "intermediate_size": 64}),
}


@pytest.mark.parametrize("case", LANGUAGE_MODELS)
def test_the_first_heads_look_a_few_tokens_back(tiny_ghn, case):
    spec, kwargs = LANGUAGE_MODELS[case]
    model = load_model(spec, **kwargs, **EAGER).eval()
    tiny_ghn.init_(model)
    tokens = torch.randint(0, 50, (4, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention = model(tokens, output_attentions=True).attentions
    for head in range(4):
        mean = [attention[0][:, head, 8:].diagonal(8 - back, 1, 2).mean().item() for back in range(6)]
        assert max(range(6), key=mean.__getitem__) == head % REACH
        assert mean[head % REACH] > 0.3
    if case == "biases":  # which no other tensor can drown
        assert attention[1][:, 1, 1:].diagonal(0, 1, 2).mean() > 0.5


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_masks_are_recognized_as_tensors_and_as_arguments(implementation):
    spec, kwargs = LANGUAGE_MODELS["waves"]
    found = looking_back(trace(load_model(spec, **kwargs, attn_implementation=implementation)))
    assert [looking.waves.name for looking in found] == ["transformer.wpe.weight"] * 2


@pytest.mark.parametrize(
    ("spec", "kwargs"),
    [
        (
            "hf:gpt2",
            {"n_embd": 64, "n_layer": 1, "n_head": 4, "vocab_size": 1024, "n_positions": 64},
        ),  # words
        ("hf:bert", {**SIZES, "intermediate_size": 64}),  # sees all tokens
        ("hf:bloom", {"hidden_size": 64, "n_layer": 1, "n_head": 4, "vocab_size": 50}),  # biases by distance
        ("timm:test_vit", {}),  # no tokens
    ],
)
def test_elsewhere_heads_are_random(spec, kwargs):
    assert looking_back(trace(load_model(spec, device="meta", **kwargs))) == []


def test_a_users_own_mask_and_positions_are_enough():
    """Scores filled by a buffer's mask, and positions that are a parameter, as in many a small GPT."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.norm = nn.Embedding(50, 64), nn.LayerNorm(64)
            self.positions = nn.Parameter(torch.zeros(1, 32, 64))
            self.maps, self.output = nn.Linear(64, 192, bias=False), nn.Linear(64, 50)
            self.register_buffer("mask", torch.ones(32, 32).tril())

        def forward(self, tokens):
            length = tokens.shape[1]
            x = self.tokens(tokens) + self.positions[:, :length]
            query, key, value = self.maps(self.norm(x)).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
            scores = (query @ key.mT / 4).masked_fill(self.mask[:length, :length] == 0, -torch.inf)
            return self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    (looking,) = looking_back(trace(Model(), torch.zeros(1, 16, dtype=torch.long)))
    assert looking.waves.name == "positions"


def test_complex_numbers_turn_neighbouring_channels():
    """Rotary embeddings as in Meta's own Llama."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.norm = nn.Embedding(50, 64), nn.RMSNorm(64)
            self.query, self.key, self.value, self.output = (nn.Linear(64, 64, bias=False) for _ in range(4))
            angles = torch.arange(32)[:, None] * 1e4 ** -(torch.arange(8) / 8)
            self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

        def turned(self, x):
            pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
            return torch.view_as_real(pairs * self.turns[: x.shape[1], None]).flatten(3)

        def forward(self, tokens):
            x = self.norm(self.tokens(tokens))
            query, key, value = (
                each(x).unflatten(-1, (4, 16)) for each in (self.query, self.key, self.value)
            )
            query, key, value = (
                each.transpose(1, 2) for each in (self.turned(query), self.turned(key), value)
            )
            made = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            return self.output(made.transpose(1, 2).flatten(2)) @ self.tokens.weight.T

    (looking,) = looking_back(trace(Model(), torch.zeros(1, 16, dtype=torch.long)))
    rotary = looking.attention.rotary
    assert rotary.first.tolist() == list(range(0, 16, 2)) and rotary.second.tolist() == list(range(1, 16, 2))
    assert looking.table.name == "tokens.weight"


def test_rows_of_a_token_table_share_a_vector_as_large_as_what_is_their_own(tiny_ghn: GHN):
    spec, kwargs = LANGUAGE_MODELS["shared vector"]
    graph = trace(load_model(spec, device="meta", **{**kwargs, "vocab_size": 4000}))
    table = tiny_ghn(graph, learned=False)["model.embed_tokens.weight"]
    shared = table.mean(dim=0)
    assert shared.square().mean() == pytest.approx((table - shared).square().mean().item(), rel=0.5)
    other = tiny_ghn(graph, seed=1, learned=False)["model.embed_tokens.weight"].mean(dim=0)
    assert torch.cosine_similarity(shared, other, dim=0).abs() < 0.5


def test_biases_hold_the_vectors_that_are_turned(tiny_ghn: GHN):
    spec, kwargs = LANGUAGE_MODELS["biases"]
    made = tiny_ghn(trace(load_model(spec, device="meta", **kwargs)), learned=False)
    query, key, value = made["gpt_neox.layers.0.attention.query_key_value.bias"].reshape(4, 3, 32).unbind(1)
    assert torch.equal(value, torch.zeros(4, 32))
    # Of the four pairs, channels i and i + 4, the slower two tell no neighbours apart.
    assert (key[:, :2] > 1).all() and torch.equal(key[:, 2:], torch.zeros(4, 30))
    assert torch.equal(query[0], key[0]) and (query[1:, 4:6] < 0).all()
    torch.testing.assert_close(query.norm(dim=1), key.norm(dim=1))
    assert not query[:, [2, 3, *range(6, 32)]].any()
