"""Random numbers that are drawn ahead are those that a prediction draws."""

import pytest
import torch

from ghn.decoder import DecoderConfig, Order, Recipe, Remembered, draw_all, recipes
from ghn.graph.trace import trace
from ghn.models import load_model

SPECS = {
    "timm:regnetx_002": {"num_classes": 7},
    "timm:test_vit": {"num_classes": 7},
    "hf:gpt2": {"n_embd": 200, "n_layer": 1, "n_head": 4, "vocab_size": 300, "n_positions": 700},
}


def no_draw(*given):
    raise AssertionError("drawn again")


@pytest.mark.parametrize("spec", SPECS)
def test_what_was_drawn_ahead_is_all_that_a_prediction_takes(tiny_ghn, spec, monkeypatch):
    graph = trace(load_model(spec, **SPECS[spec]))
    embeddings = tiny_ghn.encode(graph)
    (expected,) = tiny_ghn.decoder([Order(graph, embeddings, 5)])
    made_of = recipes(graph, tiny_ghn.config.decoder)
    drawn = Remembered(recipes=made_of, draws=draw_all(made_of, 5), seed=5, room=0)
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "draw", no_draw)
        (found,) = tiny_ghn.decoder([Order(graph, embeddings, 5, drawn)])
        with pytest.raises(AssertionError, match="drawn again"):
            tiny_ghn.decoder([Order(graph, embeddings, 6, drawn)])
    assert list(found) == list(expected)
    assert all(torch.equal(values, expected[name]) for name, values in found.items())


def test_numbers_drawn_ahead_are_the_same_however_many_threads_there_are():
    made_of = recipes(trace(load_model("timm:regnetx_002")), DecoderConfig())
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(draw_all(made_of, 5))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    one, two = found
    assert one.keys() == two.keys()
    assert all(torch.equal(drawn.left, two[key].left) for key, drawn in one.items())
