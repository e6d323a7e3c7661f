"""Which images linear maps read whole: a convolution's result that was flattened, channels first."""

import math

from ghn.tracing.recorder import RawNode

ORDER_KEPT = frozenset("view _unsafe_view reshape flatten view_as reshape_as contiguous".split())
"""Moves that leave the entries of an image in their order."""

WHOLE = frozenset({"conv", "conv_transpose", "linear", "input"})
"""Kinds before which nothing is looked for: what they give is channels first, if it has four axes."""


def flattened_images(nodes: list[RawNode]) -> dict[int, dict[str, float | tuple[int, ...]]]:
    """The attribute ``image`` of the linear maps that read one: its channels, height and width.

    Args:
        nodes: In execution order.
    """
    facts: dict[int, dict[str, float | tuple[int, ...]]] = {}
    for index, node in enumerate(nodes):
        image = _image(nodes, node) if node.kind == "linear" and len(node.shape) == 2 else ()
        if image:
            facts[index] = {"image": image}
    return facts


def _image(nodes: list[RawNode], node: RawNode) -> tuple[int, ...]:
    """Channels, height and width of what a linear map reads, if it was flattened in this order; else empty."""
    current = node
    image: tuple[int, ...] = ()
    while sources := [source for source, _ in current.inputs if nodes[source].kind != "parameter"]:
        before = nodes[sources[0]]
        if before.kind == "shape" and before.operation not in ORDER_KEPT:
            return ()  # channels may be last
        if not image and len(before.shape) == 4:
            if math.prod(before.shape[1:]) != math.prod(current.shape[1:]) or current is node:
                return ()
            image = before.shape[1:]
        if before.kind in WHOLE or len(sources) > 1:
            break
        current = before
    return image if math.prod(image[1:]) > 1 else ()
