"""A graph as a value: written, read back, compared."""

import json

import pytest

from ghn.errors import ShapeError
from ghn.graph.graph import ComputationGraph
from ghn.models import load_model
from ghn.tracing.trace import trace


def _vit(**kwargs):
    return trace(load_model("timm:test_vit", **kwargs))


def test_a_graph_survives_json():
    graph = _vit()
    again = ComputationGraph.from_dict(json.loads(json.dumps(graph.to_dict())))
    assert again == graph
    assert again.fingerprint() == graph.fingerprint()


def test_the_fingerprint_tells_architectures_apart_and_not_their_weights():
    fingerprint = _vit().fingerprint()
    assert _vit().fingerprint() == fingerprint
    assert len({fingerprint, _vit(depth=2).fingerprint(), _vit(num_heads=4).fingerprint()}) == 3


@pytest.mark.parametrize("values", [{}, {"nodes": [{"no": 1}], "edges": [], "params": [], "notes": []}])
def test_other_values_are_refused(values):
    with pytest.raises(ShapeError, match="no computation graph"):
        ComputationGraph.from_dict(values)
