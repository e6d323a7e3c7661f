"""Draw a graph from top to bottom: boxes in rows by depth, arrows where data flows."""

import io
import json
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ghn.errors import OutputError
from ghn.files import write_whole
from ghn.graph.blocks import MAX_BLOCKS, Block, BlockGraph, to_blocks
from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import MIXERS, NORMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf", ".html", ".dot")

_DRAWN_MIXERS = MIXERS | {"embedding"}
_ROW, _CHARACTER = 0.75, 0.065
"""Inches between rows, and inches that a character takes."""
_LONGEST = 44
"""Characters of a line; longer ones lose their beginning."""


def draw(graph: ComputationGraph, path: str | Path, title: str = "", max_blocks: int = MAX_BLOCKS) -> Path:
    """Write a drawing of a graph; graphs of more than ``max_blocks`` nodes are collapsed by module.

    Args:
        graph: From ``ghn.trace``.
        path: Ends with ``.png``, ``.svg``, ``.pdf``, ``.html`` (a page of its own) or ``.dot`` (Graphviz source).
        title: Shown on top.
        max_blocks: See ``ghn.graph.blocks.to_blocks``.

    Raises:
        OutputError: If the format is unknown or nothing can be written there.
    """
    path = image_path(path)
    if path.suffix == ".dot":
        content = to_dot(graph, max_blocks).encode()
    else:
        buffer = io.BytesIO()
        drawn = "svg" if path.suffix == ".html" else path.suffix[1:]
        figure(graph, title, max_blocks).savefig(buffer, format=drawn, bbox_inches="tight", dpi=100)
        content = buffer.getvalue()
        if path.suffix == ".html":
            content = _page(title or "graph", content.decode()).encode()
    write_whole(path, content, "choose another place")
    return path


def image_path(path: str | Path) -> Path:
    """Check a drawing's name before the work.

    Raises:
        OutputError: If the format is unknown or the folder missing.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise OutputError(
            f"{path} is no drawing that can be written; end its name with {', '.join(SUFFIXES)}"
        )
    if not path.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; make it with: mkdir -p {path.parent}")
    return path


def to_dot(graph: ComputationGraph, max_blocks: int = MAX_BLOCKS) -> str:
    """The drawing as Graphviz source."""
    shown = to_blocks(graph, max_blocks)
    lines = ["digraph {", '  node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=10];']
    for position, block in enumerate(shown.blocks):
        label = json.dumps(f"{block.title}\n{block.detail}", ensure_ascii=False)
        lines.append(f'  {position} [label={label}, fillcolor="{_color(block)}"];')
    lines += [f"  {source} -> {target};" for source, target in shown.edges]
    return "\n".join([*lines, "}"]) + "\n"


def figure(graph: ComputationGraph, title: str = "", max_blocks: int = MAX_BLOCKS) -> "Figure":
    """The drawing as a matplotlib figure; its size follows the graph's."""
    from matplotlib.figure import Figure

    shown = to_blocks(graph, max_blocks)
    places = _layout(shown)
    width = 1 + max(abs(x) for x, _ in places) * 2
    height = 1 + max(row for _, row in places)
    texts = [f"{_shorten(block.title)}\n{_shorten(block.detail)}".strip() for block in shown.blocks]
    column = 0.5 + _CHARACTER * max(len(line) for text in texts for line in text.splitlines())
    result = Figure(figsize=(width * column, height * _ROW))
    axes = result.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-width / 2, width / 2), ylim=(height - 0.5, -0.5))
    axes.axis("off")
    if title:
        axes.set_title(title)
    for (x, row), block, text in zip(places, shown.blocks, texts, strict=True):
        box = {
            "boxstyle": "round,pad=0.35",
            "facecolor": _color(block),
            "edgecolor": "#555555",
            "linewidth": 0.6,
        }
        # "$" would start a formula.
        axes.text(x, row, text.replace("$", r"\$"), ha="center", va="center", fontsize=7, bbox=box, zorder=2)
    for source, target in shown.edges:
        (x0, row0), (x1, row1) = places[source], places[target]
        straight = row1 - row0 == 1
        # Arrows that skip rows bow out, to pass beside the boxes between.
        bow = 0.0 if straight else min(0.5, 1.2 * column / ((row1 - row0) * _ROW + 1))
        arrow = {"arrowstyle": "-|>", "color": "#777777", "linewidth": 0.7, "shrinkA": 11, "shrinkB": 11}
        arrow["connectionstyle"] = f"arc3,rad={bow:.3f}"
        axes.annotate("", xy=(x1, row1), xytext=(x0, row0), arrowprops=arrow, zorder=1)
    return result


def _layout(shown: BlockGraph) -> list[tuple[float, int]]:
    """Column (0 is the middle) and row of each block: rows by longest path, columns by the sources' mean column."""
    sources: dict[int, list[int]] = defaultdict(list)
    targets: dict[int, list[int]] = defaultdict(list)
    for source, target in shown.edges:
        sources[target].append(source)
        targets[source].append(target)
    rows = [0] * len(shown.blocks)
    for position in range(len(rows)):
        rows[position] = max((rows[source] + 1 for source in sources[position]), default=0)
    for position in reversed(range(len(rows))):
        # What nothing flows into (parameters, constants) sits just above its first reader.
        if not sources[position] and targets[position]:
            rows[position] = min(rows[target] for target in targets[position]) - 1
    by_row: dict[int, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        by_row[row].append(position)
    columns = [0.0] * len(rows)
    for row in sorted(by_row):
        members = by_row[row]
        # Readers of the flow keep the middle, what has no source goes to the right of it.
        wanted = {
            p: sum(columns[s] for s in sources[p]) / len(sources[p]) if sources[p] else float("inf")
            for p in members
        }
        members.sort(key=lambda p: (wanted[p], p))
        flow = sum(bool(sources[p]) for p in members) or len(members)
        for place, position in enumerate(members):
            columns[position] = place - (flow - 1) / 2
    return list(zip(columns, rows, strict=True))


def _color(block: Block) -> str:
    if block.kind in ("input", "output"):
        return "#d9d9d9"
    if block.kind == "parameter":
        return "#fff2b2"
    if block.kind == "module":
        return "#e3d9f2"
    if block.kind in _DRAWN_MIXERS:
        return "#cfe2f7"
    return "#d3efd3" if block.kind in NORMS else "#ffffff"


def _shorten(text: str) -> str:
    """Keep the end, where names differ."""
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _page(title: str, svg: str) -> str:
    """A page that shows the drawing in its own size and scrolls."""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<body style="margin:1em;text-align:center">\n{svg[svg.index("<svg") :]}\n</body></html>\n'
    )
