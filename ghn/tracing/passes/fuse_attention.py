"""Attention that is written out as two products with a softmax between them."""

from ghn.graph.ops import ELEMENTWISE, PRODUCTS
from ghn.tracing.channels import Products
from ghn.tracing.passes.group import Groups, readers_of
from ghn.tracing.recorder import RawNode

MAX_SCORE_STEPS = 4
"""One more than the elementwise operations that are allowed between the product of queries and keys and its softmax."""


def fuse_attention(groups: Groups) -> dict[int, Products]:
    """Recognize softmax(query key) value written out as products, and make it one 'attention' node.

    Scores that something else reads too (attention maps that are returned) stay beside it.

    Returns:
        The two products of each, by the index of the new node.
    """
    readers = readers_of(groups)
    attentions = {}
    for index in sorted(groups):
        if groups[index].node.kind != "softmax":
            continue
        inner = _product_before(groups, index)
        outer = [reader for reader in readers[index] if groups[reader].node.kind == "matmul"]
        if inner is None or len(outer) != 1:
            continue
        before, chain = inner
        scores, product = groups[before], groups[outer[0]]
        values = [(source, 2) for source, _ in product.inputs if source != index]
        operands = [(source, min(slot, 1)) for source, slot in scores.inputs]
        masks = [
            (source, 3)
            for link in (*chain, index)
            for source, _ in groups[link].inputs
            if source not in (*chain, before)
        ]
        product.node = RawNode("attention", "attention", product.node.module, shape=product.node.shape)
        product.kinds = ["attention"]
        product.inputs = sorted({*operands, *values, *masks}, key=lambda entry: (entry[1], entry[0]))
        attentions[outer[0]] = Products(before, outer[0])
    return attentions


def _product_before(groups: Groups, softmax: int) -> tuple[int, list[int]] | None:
    """The product that feeds a softmax, through elementwise operations (scale, mask), and those operations."""
    paths: list[list[int]] = [[softmax]]
    for _ in range(MAX_SCORE_STEPS):
        sources = [(path, source) for path in paths for source, _ in groups[path[-1]].inputs]
        for path, source in sources:
            if groups[source].node.kind in PRODUCTS:
                return source, path[1:]
        paths = [[*path, source] for path, source in sources if groups[source].node.kind in ELEMENTWISE]
    return None
