"""Rules of tables whose rows are read one at a time: where they act, where not, and what they say."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ghn import GHN
from ghn.base import decisions
from ghn.base.rules.unnormalized_table import UnnormalizedTable
from ghn.models import load_model
from ghn.tracing.trace import trace

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}


def decided(spec, **kwargs):
    return decisions(trace(load_model(spec, device="meta", **kwargs)))


def test_relative_biases_are_as_the_zoos_draw_them():
    sizes = {
        "img_size": 32,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 16,
        "depths": (1,),
        "num_heads": (1,),
    }
    made = decided("timm:swin_tiny_patch4_window7_224", **sizes)
    (table,) = (decision for name, decision in made.items() if "relative_position_bias" in name)
    assert table.rule == "relative_bias" and table.init.std == 0.02
    assert "relative_bias" not in {decision.rule for decision in decided("timm:test_vit").values()}


def test_positions_match_patches_and_stay_below_tokens():
    """Patches have about unit variance; tokens of 32 channels spread by ``1 / sqrt(3 * 32)``."""
    patches, tokens = (
        decided("timm:test_vit")["pos_embed"],
        decided("hf:gpt2", **GPT)["transformer.wpe.weight"],
    )
    assert (patches.rule, tokens.rule) == ("patch_positions", "token_positions")
    assert (patches.init.distribution, tokens.init.distribution) == ("normal", "sinusoids")
    assert patches.init.std == 0.5 and tokens.init.std == pytest.approx(96**-0.5)


@pytest.mark.parametrize(("vocabulary", "share"), [(384, 1), (1024, 0.5), (4096, 0.125), (10**5, 0.1)])
def test_positions_start_smaller_beside_words_than_beside_characters(vocabulary, share):
    made = decided("hf:gpt2", **{**GPT, "n_embd": 64, "vocab_size": vocabulary})
    assert made["transformer.wte.weight"].init.std == pytest.approx(math.sqrt(1 / 3 / 64))
    assert made["transformer.wpe.weight"].init.std == pytest.approx(share * math.sqrt(1 / 3 / 64))


class Recurrent(nn.Module):
    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.table, self.layers, self.head = nn.Embedding(50, 16), nn.LSTM(16, 16), nn.Linear(16, 50)

    def forward(self, tokens):
        return self.head(self.layers(self.table(tokens * self.every))[0])


@pytest.mark.parametrize("every", [1, 2])
def test_recurrent_networks_read_tokens_of_unit_variance(every):
    made = decisions(trace(Recurrent(every), torch.zeros(4, 2, dtype=torch.long)))["table.weight"]
    assert made.rule == "sequence_table" and made.init.std == 1.0


class Tokens(nn.Module):
    def __init__(self, reader: str) -> None:
        super().__init__()
        self.table, self.reader = nn.Embedding(20, 16), reader
        layers = [layer for pair in pairwise((16, 32, 2)) for layer in (nn.Linear(*pair), nn.ReLU())]
        makers = {
            "gru": lambda: nn.GRU(16, 16, batch_first=True),
            "attention": lambda: nn.MultiheadAttention(16, 2, batch_first=True),
            "mlp": lambda: nn.Sequential(*layers[:-1]),
            "normalized": lambda: nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 2)),
        }
        self.body = makers[reader]()

    def forward(self, x: Tensor) -> Tensor:
        found = self.table(x)
        made = self.body(found, found, found) if self.reader == "attention" else self.body(found)
        return made[0] if isinstance(made, tuple) else made


@pytest.mark.parametrize(
    ("reader", "rule", "std"),
    [
        ("gru", "sequence_table", 1.0),
        ("attention", "sequence_table", 1.0),
        ("mlp", "unnormalized_table", UnnormalizedTable().std),
        ("normalized", "vector_table", 48**-0.5),
    ],
)
def test_tables_are_small_unless_something_reads_sequences(reader, rule, std):
    made = decisions(trace(Tokens(reader), torch.randint(20, (2, 5))))["table.weight"]
    assert made.rule == rule and made.init.std == pytest.approx(std)


def test_class_tokens_are_rows_of_a_table():
    made = decided("timm:test_vit")["cls_token"]
    assert made.rule == "vector_table" and made.init.std == pytest.approx((3 * 64) ** -0.5)


def test_tied_tables_make_up_for_a_constant_factor():
    """T5 multiplies by one over the root of the width before it looks words up in the table of its tokens."""
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    table = decided("hf:t5", **sizes)["shared.weight"]
    assert "tied_lookup" in table.modifiers
    assert table.init.std == pytest.approx(8 * math.sqrt(1 / 3 / 64))
    assert "tied_lookup" not in decided("hf:gpt2", **GPT)["transformer.wte.weight"].modifiers


@pytest.mark.parametrize(
    ("model", "kwargs", "expected"),
    [
        ("hf:gpt_neox", TINY, True),
        ("hf:llama", TINY, True),
        ("hf:gpt2", GPT, False),  # a table of positions does it
    ],
)
def test_tokens_share_a_vector_where_there_is_no_table_of_positions(model, kwargs, expected):
    graph = trace(load_model(model, device="meta", **kwargs))
    (table,) = (entry for entry in graph.params if entry.role == "embedding")
    made = decisions(graph)[table.name]
    assert ("shared_token_vector" in made.modifiers) == expected
    assert made.init.std == pytest.approx(96**-0.5)


def test_rows_of_a_token_table_share_a_vector_as_large_as_what_is_their_own(tiny_ghn: GHN):
    sizes = {**TINY, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 4000}
    graph = trace(load_model("hf:llama", device="meta", **sizes))
    table = tiny_ghn.predict_graph(graph, learned=False).params["model.embed_tokens.weight"]
    shared = table.mean(dim=0)
    assert shared.square().mean() == pytest.approx((table - shared).square().mean().item(), rel=0.5)
    other = (
        tiny_ghn.predict_graph(graph, seed=1, learned=False).params["model.embed_tokens.weight"].mean(dim=0)
    )
    assert torch.cosine_similarity(shared, other, dim=0).abs() < 0.5


@pytest.mark.parametrize("row", [None, 3])
def test_rows_for_padding_are_zero(tiny_ghn, row):
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(20, 16, padding_idx=row), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    graph = trace(Bag(), torch.randint(20, (2, 5)))
    assert ("padding_row" in decisions(graph)["table.weight"].modifiers) == (row is not None)
    zero = (tiny_ghn.predict_graph(graph).params["table.weight"] == 0).all(1)
    assert zero.nonzero().flatten().tolist() == ([] if row is None else [row])
