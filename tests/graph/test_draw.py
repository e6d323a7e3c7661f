import re
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from ghn.errors import OutputError
from ghn.graph.blocks import to_blocks
from ghn.graph.draw import SUFFIXES, draw, figure, image_path, to_dot
from ghn.graph.graph import ComputationGraph
from ghn.tracing.trace import trace


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(self.norm(x)).relu()


@pytest.fixture(scope="module")
def small() -> ComputationGraph:
    return trace(_Residual(), torch.rand(2, 4))


@pytest.fixture(scope="module")
def large() -> ComputationGraph:
    return trace(nn.Sequential(*[_Residual() for _ in range(12)]), torch.rand(2, 4))


def test_small_graphs_show_every_node_and_edge(small):
    shown = to_blocks(small)
    assert len(shown.blocks) == len(small.nodes)
    assert set(shown.edges) == {(edge.source, edge.target) for edge in small.edges}
    assert {"inner.weight", "linear inner", "layer_norm norm"} <= {block.title for block in shown.blocks}


def test_large_graphs_collapse_to_modules_with_their_parameters(large):
    assert len(large.nodes) > 80
    shown = to_blocks(large, max_blocks=20)
    modules = [block for block in shown.blocks if block.kind == "module"]
    assert [block.title for block in modules] == [str(index) for index in range(12)]
    assert all(block.detail.endswith("28 parameters") for block in modules)
    assert "1 linear" in modules[0].detail


@pytest.mark.parametrize("max_blocks", [2, 20, 60, 1000])
def test_collapsed_graphs_have_no_cycle_and_stay_connected(large, max_blocks):
    shown = to_blocks(large, max_blocks)
    assert all(source < target for source, target in shown.edges)
    reached = {target for _, target in shown.edges}
    starts = [block.kind for at, block in enumerate(shown.blocks) if at not in reached]
    assert set(starts) <= {"input", "parameter"}


def test_deeper_modules_are_told_apart_when_they_fit(large):
    coarse, fine = to_blocks(large, 20), to_blocks(large, 70)
    assert len(coarse.blocks) < len(fine.blocks) <= 70


def test_dot_has_a_line_per_box_and_arrow(small):
    source = to_dot(small)
    assert len(re.findall(r"^  \d+ \[label=", source, re.MULTILINE)) == len(small.nodes)
    assert len(re.findall(r"^  \d+ -> \d+;", source, re.MULTILINE)) == len(to_blocks(small).edges)


def test_figure_holds_every_label_once(small):
    texts = [text.get_text() for text in figure(small, "title").axes[0].texts]
    assert sum("inner.weight" in text for text in texts) == 1
    assert figure(small, "title").axes[0].get_title() == "title"


def test_boxes_do_not_overlap(small):
    drawn = figure(small)
    renderer = FigureCanvasAgg(drawn).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in drawn.axes[0].texts if text.get_text()]
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_written(suffix, small, tmp_path):
    path = draw(small, tmp_path / f"graph{suffix}", title="<small & simple>")
    content = path.read_bytes()
    if suffix == ".png":
        assert min(Image.open(path).size) > 100
    elif suffix == ".svg":
        assert ElementTree.fromstring(content).tag.endswith("svg")
    elif suffix == ".html":
        assert b"<title>&lt;small &amp; simple&gt;</title>" in content
        assert b"http-equiv" not in content and b"<script" not in content
    else:
        assert content.startswith(b"%PDF" if suffix == ".pdf" else b"digraph")


def test_bad_names_are_refused_before_work(tmp_path):
    with pytest.raises(OutputError, match=r"end its name with \.png"):
        image_path(tmp_path / "graph.jpeg2000")
    with pytest.raises(OutputError, match="make it with: mkdir -p"):
        image_path(tmp_path / "no" / "graph.png")
