"""Layers that slots have learned under another address that does the same: patches and flattened images of other sizes,
texts of other lengths, pointwise maps."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from ghn.decoder.resize import PATCH, POSITION
from ghn.decoder.units import Segment

SIZED = (re.compile(r" map(\d+)(?= )"), re.compile(r"^position(\d+)(?= after embedding)"))
"""Sizes that others serve for: points along a side of a flattened image, which is read as one nearly as fine; the
octave of a text's positions, which repeat those that were learned (docs/log/longer-texts.md)."""

POINTWISE = re.compile(r"\b(linear|conv)(?= )(?! of tokens)")


def equivalents(segments: Sequence[Segment], places: Collection[str]) -> list[Segment]:
    """The segments of a network, with learned addresses in place of others that do the same.

    Args:
        segments: Of the network.
        places: Stages and kinds that slots have learned in a family.
    """
    return [
        _at_nearest_size(_as_pointwise(segment, places), places)
        for segment in _at_learned_size(segments, places)
    ]


def _as_pointwise(segment: Segment, places: Collection[str]) -> Segment:
    """A convolution of single points is a linear map of the channels, and the other way round."""
    address = segment.address
    if f"{address.stage}/{address.kind}" in places:
        return segment
    other = POINTWISE.sub(lambda match: "conv" if match[1] == "linear" else "linear", address.kind)
    known = f"{address.stage}/{other}" in places
    return replace(segment, address=replace(address, kind=other)) if known else segment


def _at_nearest_size(segment: Segment, places: Collection[str]) -> Segment:
    """A map of a flattened image, or positions of a text, of the size nearest to its own; see ``SIZED``."""
    address = segment.address
    match = next(filter(None, (pattern.search(address.kind) for pattern in SIZED)), None)
    if match is None or f"{address.stage}/{address.kind}" in places:
        return segment
    before, after = address.kind[: match.start(1)], address.kind[match.end(1) :]
    same = re.compile(re.escape(f"{address.stage}/{before}") + r"(\d+)" + re.escape(after))
    learned = sorted(int(other[1]) for other in map(same.fullmatch, places) if other)
    if not learned:
        return segment
    size = min(learned, key=lambda size: abs(math.log2(max(size, 1) / max(int(match[1]), 1))))
    return replace(segment, address=replace(address, kind=f"{before}{size}{after}"))


def _at_learned_size(segments: Sequence[Segment], places: Collection[str]) -> list[Segment]:
    """The segments of a network of patches with the addresses of the size that is nearest to its own.

    Near are grids with nearly as many tokens, for a patch then has a similar part of an image; without positions,
    patches of a similar size. Tables of relative positions have no other size, and so have networks with maps over
    tokens.

    Returns:
        The segments as they are, if there is no such size.
    """
    kinds = [segment.address.kind for segment in segments]
    patches = {int(match[1]) for match in map(PATCH.match, kinds) if match}
    if len(patches) != 1 or any(" of tokens" in kind for kind in kinds):
        return list(segments)
    (patch,) = patches
    learned = {int(match[1]) for match in map(PATCH.match, places) if match}
    octave = next((int(match[1]) for match in map(POSITION.match, kinds) if match), None)
    octaves = {int(match[2]): int(match[1]) for match in map(POSITION.match, sorted(places)) if match}
    if octave is not None:
        learned &= octaves.keys()
    if not learned:
        return list(segments)

    def distance(size: int) -> tuple[float, float]:
        return 0 if octave is None else abs(octaves[size] - octave), abs(math.log2(size / patch))

    size = min(sorted(learned), key=distance)
    if size == patch and (octave is None or octaves[size] == octave):
        return list(segments)

    def renamed(kind: str) -> str:
        if kind.startswith("relative_bias"):
            return f"{kind} of another size"
        kind = kind.replace(f"patch{patch} ", f"patch{size} ")
        return kind.replace(f"position{octave} ", f"position{octaves[size]} ") if octave is not None else kind

    return [
        replace(segment, address=replace(segment.address, kind=renamed(segment.address.kind)))
        for segment in segments
    ]
