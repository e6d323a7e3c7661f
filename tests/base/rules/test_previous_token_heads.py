"""Heads that look back: which ones, how far, and what they are made of."""

import pytest
import torch
from torch import nn

from ghn import GHN
from ghn.base import decisions, default_rules
from ghn.base.previous_token import find_previous_token_attentions
from ghn.models import load_model
from ghn.tracing.trace import trace

OFFSETS = 4
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
        assert max(range(6), key=mean.__getitem__) == head % OFFSETS
        assert mean[head % OFFSETS] > 0.3
    if case == "biases":  # which no other tensor can drown
        assert attention[1][:, 1, 1:].diagonal(0, 1, 2).mean() > 0.5


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_masks_are_recognized_as_tensors_and_as_arguments(implementation):
    spec, kwargs = LANGUAGE_MODELS["waves"]
    found = find_previous_token_attentions(
        trace(load_model(spec, **kwargs, attn_implementation=implementation))
    )
    assert [entry.sinusoids.name for entry in found] == ["transformer.wpe.weight"] * 2


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
    assert find_previous_token_attentions(trace(load_model(spec, device="meta", **kwargs))) == []


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

    (entry,) = find_previous_token_attentions(trace(Model(), torch.zeros(1, 16, dtype=torch.long)))
    assert entry.sinusoids.name == "positions"


ANGLES = torch.arange(64)[:, None] * 1e4 ** -(torch.arange(8) / 8)
COS, SIN = ANGLES.cos(), ANGLES.sin()


def halves(x):
    first, second = x.chunk(2, -1)
    cos, sin = COS[: x.shape[-2]], SIN[: x.shape[-2]]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def halves_in_another_order(x):
    first, second = x.chunk(2, -1)
    cos, sin = COS[: x.shape[-2]], SIN[: x.shape[-2]]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def halves_turned_back(x):
    """As in nanochat."""
    first, second = x.chunk(2, -1)
    cos, sin = COS[: x.shape[-2]], SIN[: x.shape[-2]]
    return torch.cat([first * cos + second * sin, first * (-sin) + second * cos], -1)


def halves_rotated_back(x):
    first, second = x.chunk(2, -1)
    cos, sin = (torch.cat([table[: x.shape[-2]]] * 2, -1) for table in (COS, SIN))
    return x * cos + torch.cat([second, -first], -1) * sin


def halves_times_minus_one(x):
    first, second = x.chunk(2, -1)
    cos, sin = (torch.cat([table[: x.shape[-2]]] * 2, -1) for table in (COS, SIN))
    return x * cos + torch.cat([-1 * second, first], -1) * sin


def neighbours(x):
    """As in Meta's own Llama."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.complex(COS, SIN)[: x.shape[-2]]).flatten(-2)


def neighbours_turned_back(x):
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.complex(COS, -SIN)[: x.shape[-2]]).flatten(-2)


MAPS = {
    "one matrix": ((192, 64), lambda x, w: nn.functional.linear(x, w).chunk(3, -1)),
    "slices": ((192, 64), lambda x, w: [nn.functional.linear(x, w[i : i + 64]) for i in (0, 64, 128)]),
    "columns": ((64, 192), lambda x, w: [x @ w[:, i : i + 64] for i in (0, 64, 128)]),
    "a stack": ((3, 64, 64), lambda x, w: nn.functional.linear(x, w.flatten(0, 1)).chunk(3, -1)),
    "parts of a stack": ((3, 64, 64), lambda x, w: [nn.functional.linear(x, part) for part in w.unbind()]),
    "four axes": ((64, 3, 4, 16), lambda x, w: (x @ w.flatten(1)).chunk(3, -1)),
}


class Own(nn.Module):
    """A user's own causal attention over tokens; what it attends to is kept in ``seen``."""

    def __init__(self, maps="one matrix", turn=None, channels=64, causal=True):
        super().__init__()
        shape, self.split = MAPS[maps]
        shape = tuple(channels * size // 64 if size % 64 == 0 else size for size in shape)
        self.tokens, self.norm = nn.Embedding(50, channels), nn.LayerNorm(channels)
        self.weight = nn.Parameter(torch.randn(shape) / 8)
        self.positions = None if turn else nn.Parameter(torch.zeros(1, 64, channels))
        self.turn, self.causal = turn or (lambda x: x), causal
        self.output = nn.Linear(shape[0] // 3 if channels != 64 else 64, channels, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions[:, : tokens.shape[1]]
        split = self.split(self.norm(x), self.weight)
        query, key, value = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in split)
        scores = self.turn(query) @ self.turn(key).mT / query.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        self.seen = scores.softmax(-1)
        return self.output((self.seen @ value).transpose(1, 2).flatten(2)) @ self.tokens.weight.mT


def where_heads_look(model: nn.Module) -> list[int]:
    """How many tokens back each head looks most."""
    with torch.no_grad():
        model(torch.randint(0, 50, (4, 40), generator=torch.Generator().manual_seed(0)))
    shares = [model.seen[:, :, 8:].diagonal(8 - back, 2, 3).mean((0, 2)) for back in range(6)]
    return torch.stack(shares).argmax(0).tolist()


TOKENS = torch.zeros(1, 16, dtype=torch.long)


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("turn", [None, halves])
def test_maps_of_any_form_look_back(tiny_ghn, maps, turn):
    model = Own(maps, turn)
    tiny_ghn.init_(model, inputs=TOKENS)
    assert where_heads_look(model) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "turn",
    [
        halves,
        halves_in_another_order,
        halves_turned_back,
        halves_rotated_back,
        halves_times_minus_one,
        neighbours,
        neighbours_turned_back,
    ],
)
def test_rotary_embeddings_of_any_sense_look_back(tiny_ghn, turn):
    model = Own(turn=turn)
    tiny_ghn.init_(model, inputs=TOKENS)
    assert where_heads_look(model) == [0, 1, 2, 3]


def test_attention_that_sees_all_tokens_stays_random():
    assert find_previous_token_attentions(trace(Own(turn=halves), TOKENS))
    assert not find_previous_token_attentions(trace(Own(turn=halves, causal=False), TOKENS))


@pytest.mark.parametrize("fixed", ["weight", "positions"])
def test_what_is_fixed_is_not_counted_on(fixed):
    model = Own()
    getattr(model, fixed).requires_grad_(False)
    assert not find_previous_token_attentions(trace(model, TOKENS))


def test_positions_of_another_stream_are_not_looked_for():
    """A decoder without positions of its own beside patches that have some."""

    class Captioner(Own):
        def __init__(self):
            super().__init__(turn=nn.Identity())
            self.patches = nn.Parameter(torch.zeros(1, 9, 64))
            self.look = nn.Linear(64, 50)

        def forward(self, tokens, patches):
            return super().forward(tokens) + self.look((patches + self.patches).mean(1))

    assert not find_previous_token_attentions(trace(Captioner(), (TOKENS, torch.zeros(1, 9, 64))))


def test_waves_of_an_odd_width(tiny_ghn):
    class Odd(Own):
        def __init__(self):
            super().__init__()
            self.tokens, self.norm = nn.Embedding(50, 65), nn.LayerNorm(65)
            self.weight = nn.Parameter(torch.randn(192, 65))
            self.positions = nn.Parameter(torch.zeros(1, 64, 65))
            self.output = nn.Linear(64, 65)

    model = Odd()
    tiny_ghn.init_(model, inputs=TOKENS)
    assert where_heads_look(model) == [0, 1, 2, 3]


def test_biases_put_together_from_several_are_left_alone(tiny_ghn):
    class Model(Own):
        def __init__(self):
            super().__init__(turn=halves)
            self.query_bias, self.value_bias = nn.Parameter(torch.zeros(64)), nn.Parameter(torch.zeros(64))
            self.split = self.with_biases

        def with_biases(self, x, weight):
            bias = torch.cat([self.query_bias, torch.zeros(64), self.value_bias])
            return nn.functional.linear(x, weight, bias).chunk(3, -1)

    tiny_ghn.init_(Model(), inputs=TOKENS)
    assert not any(entry.biases for entry in find_previous_token_attentions(trace(Model(), TOKENS)))


def test_blocks_of_one_shape_share_what_they_look_for():
    spec, kwargs = LANGUAGE_MODELS["waves"]
    made = decisions(trace(load_model(spec, device="meta", **kwargs)))
    first, second = (made[f"transformer.h.{block}.attn.c_attn.weight"].init.pattern for block in (0, 1))
    assert first is second and first is not None


def test_without_the_modifier_no_matrix_has_a_pattern():
    spec, kwargs = LANGUAGE_MODELS["waves"]
    rules = default_rules().without("previous_token_heads")
    made = decisions(trace(load_model(spec, device="meta", **kwargs)), rules)
    assert not any(decision.init.pattern for decision in made.values())


def test_empty_tensors_are_no_masks():
    class Model(nn.Linear):
        def forward(self, x):
            made = super().forward(x)
            return made, torch.zeros(0, 3, 3) + made.mean()

    assert trace(Model(3, 3), torch.zeros(2, 3)).coverage() == 1


def test_biases_hold_the_vectors_that_are_turned(tiny_ghn: GHN):
    spec, kwargs = LANGUAGE_MODELS["biases"]
    made = tiny_ghn.predict_graph(trace(load_model(spec, device="meta", **kwargs)), learned=False).params
    query, key, value = made["gpt_neox.layers.0.attention.query_key_value.bias"].reshape(4, 3, 32).unbind(1)
    assert torch.equal(value, torch.zeros(4, 32))
    # Of the four pairs, channels i and i + 4, the slower two tell no neighbours apart.
    assert (key[:, :2] > 1).all() and torch.equal(key[:, 2:], torch.zeros(4, 30))
    assert torch.equal(query[0], key[0]) and (query[1:, 4:6] < 0).all()
    torch.testing.assert_close(query.norm(dim=1), key.norm(dim=1))
    assert not query[:, [2, 3, *range(6, 32)]].any()


class SharedMaps(nn.Module):
    """Two attentions by one map, of other heads or of keys that are the queries."""

    def __init__(self, heads: tuple[int, int], same: bool) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(50, 32), nn.Embedding(24, 32)
        self.norm, self.maps = nn.LayerNorm(32), nn.Linear(32, 96, bias=False)
        self.project, self.head = nn.Linear(32, 32), nn.Linear(32, 50)
        self.heads, self.same = heads, same

    def forward(self, tokens):
        stream = self.table(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for heads in self.heads:
            query, key, value = (
                part.unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in self.maps(self.norm(stream)).chunk(3, -1)
            )
            made = nn.functional.scaled_dot_product_attention(
                query, query if self.same else key, value, is_causal=True
            )
            stream = stream + self.project(made.transpose(1, 2).flatten(2))
        return self.head(self.norm(stream))


@pytest.mark.parametrize(
    ("heads", "same", "expected"), [((4, 4), False, 2), ((4, 2), False, 1), ((4, 4), True, 0)]
)
def test_shared_maps_serve_one_kind_of_heads(tiny_ghn, heads, same, expected):
    model, tokens = SharedMaps(heads, same), torch.zeros(2, 20, dtype=torch.long)
    assert len(find_previous_token_attentions(trace(model, tokens))) == expected
    assert tiny_ghn.init_(model, tokens).count("predicted") == len(list(model.parameters()))
