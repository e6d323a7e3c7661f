"""What a drawing shows: single nodes of a small graph, runs of nodes of one module in a large one."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from ghn.graph.graph import ComputationGraph, Node, ParamSpec

MAX_BLOCKS = 80
"""More of them make a drawing unreadable."""


@dataclass(frozen=True)
class Block:
    """One box of a drawing."""

    title: str
    detail: str
    """A second line: shape, or what a run of nodes holds."""
    kind: str
    """The node's kind; 'module' for a run of nodes."""


@dataclass(frozen=True)
class BlockGraph:
    """Boxes in execution order, and arrows between their positions; a directed acyclic graph."""

    blocks: tuple[Block, ...]
    edges: tuple[tuple[int, int], ...]


def to_blocks(graph: ComputationGraph, max_blocks: int = MAX_BLOCKS) -> BlockGraph:
    """Show every node if they are few; else runs of operations in one module, as deep as fits, with their parameters.

    A run is consecutive in execution order: so blocks, too, make no cycle, and a module that is left and entered
    again is several blocks.

    Args:
        graph: From ``ghn.trace``.
        max_blocks: Modules are told apart as deep as this allows; one level always is.
    """
    if len(graph.nodes) <= max_blocks:
        runs = [[node] for node in graph.nodes]
        params = {spec.name: spec for spec in graph.params}
        return _connect(graph, runs, [_single(run[0], params) for run in runs])
    nodes = [node for node in graph.nodes if node.kind != "parameter"]
    deepest = max(node.module.count(".") for node in nodes) + 1
    runs = _runs(nodes, 1)
    for depth in range(2, deepest + 1):
        finer = _runs(nodes, depth)
        if len(finer) > max_blocks:
            break
        runs = finer
    blocks = []
    for run in runs:
        params = {spec.name: spec for node in run for spec in graph.operands(node.index)}
        blocks.append(_module(run, sum(spec.numel for spec in params.values())))
    return _connect(graph, runs, blocks)


def _runs(nodes: list[Node], depth: int) -> list[list[Node]]:
    def prefix(node: Node) -> tuple[str, str]:
        alone = node.kind if node.kind in ("input", "output") else ""
        return alone, ".".join(node.module.split(".")[:depth])

    return [list(run) for _, run in groupby(nodes, prefix)]


def _connect(graph: ComputationGraph, runs: list[list[Node]], blocks: list[Block]) -> BlockGraph:
    home = {node.index: position for position, run in enumerate(runs) for node in run}
    edges = {
        (home[source], home[target])
        for source, target, _ in graph.edges
        if source in home and target in home and home[source] != home[target]
    }
    return BlockGraph(tuple(blocks), tuple(sorted(edges)))


def _single(node: Node, params: dict[str, ParamSpec]) -> Block:
    shape = "×".join(map(str, node.shape))
    if node.param is not None:
        return Block(node.param, f"{params[node.param].role} {shape}", node.kind)
    return Block(f"{node.kind} {node.module}".strip(), shape, node.kind)


def _module(run: list[Node], numel: int) -> Block:
    shape = "×".join(map(str, run[-1].shape))
    if len(run) == 1:
        detail, kind = shape, run[0].kind
    else:
        kinds = Counter(node.kind for node in run)
        detail = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
        detail += f" → {shape}"
        kind = "module"
    if numel:
        detail += f" · {_short(numel)} parameters"
    modules = [node.module.split(".") for node in run]
    common = next(n for n in range(len(modules[0]), -1, -1) if all(m[:n] == modules[0][:n] for m in modules))
    name = ".".join(modules[0][:common])
    return Block(name if kind == "module" and name else f"{run[0].kind} {name}".strip(), detail, kind)


def _short(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
