import json

import torch

from ghn.graph.graph import ComputationGraph, Edge, Node, ParamSpec
from ghn.graph.summary import count_roles, depths, unattached

GRAPH = ComputationGraph(
    nodes=(
        Node(index=0, kind="input", shape=(1, 3)),
        Node(index=1, kind="parameter", shape=(4, 3), param="fc.weight"),
        Node(index=2, kind="linear", module="fc", shape=(1, 4)),
        Node(index=3, kind="relu", shape=(1, 4)),
        Node(index=4, kind="add", shape=(1, 4), attributes={"alpha": 1.0}),
    ),
    edges=(Edge(2, 4, 0), Edge(3, 4, 1), Edge(2, 3, 0), Edge(0, 2, 0), Edge(1, 2, 1)),
    params=(
        ParamSpec(names=("fc.weight",), shape=(4, 3), role="linear", axes=("out", "in"), node=1),
        ParamSpec(names=("left", "right"), shape=(2,), dtype=torch.float16, reason="never read"),
    ),
    notes=("a note",),
)


def test_depth_is_the_longest_path_whatever_the_order_of_edges():
    assert depths(GRAPH) == [0, 0, 1, 2, 3]


def test_roles_are_counted_largest_first():
    assert [(entry.role, entry.tensors, entry.numel) for entry in count_roles(GRAPH)] == [
        ("linear", 1, 12),
        ("unknown", 1, 2),
    ]


def test_unattached_parameters_are_those_without_node():
    assert [spec.name for spec in unattached(GRAPH)] == ["left"]


def test_plain_values_survive_json():
    values = json.loads(json.dumps(GRAPH.to_dict()))
    assert values["edges"][0] == [2, 4, 0]
    assert values["nodes"][4]["attributes"] == {"alpha": 1.0}
    assert values["params"][1]["names"] == ["left", "right"]
    assert values["params"][1]["dtype"] == "float16"
    assert values["notes"] == ["a note"]
