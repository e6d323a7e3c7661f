"""Layers that slots have learned under another address that does the same: patches and flattened images of other sizes,
texts of other lengths, pointwise maps."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from ghn.decoder.resize import PATCH, POSITION
from ghn.decoder.units import Segment

MAP_SIDE = re.compile(r" map(\d+)(?= )")
TEXT_LENGTH = re.compile(r"^position\d+(?= after embedding)")
"""Of a table of positions of tokens, its octave; it repeats what was learned (docs/log/longer-texts.md)."""

POINTWISE = re.compile(r"\b(linear|conv)(?= )(?! of tokens)")


def equivalents(segments: Sequence[Segment], places: Collection[str]) -> list[Segment]:
    """The segments of a network, with learned addresses in place of others that do the same.

    Args:
        segments: Of the network.
        places: Stages and kinds that slots have learned in a family.
    """
    return [
        _at_learned_map(_at_learned_length(_as_pointwise(segment, places), places), places)
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


def _at_learned_length(segment: Segment, places: Collection[str]) -> Segment:
    """A table of positions for longer or shorter texts is one for texts as they were learned."""
    address = segment.address
    match = TEXT_LENGTH.match(address.kind)
    if match is None or f"{address.stage}/{address.kind}" in places:
        return segment
    of_any = re.compile(rf"{address.stage}/(position\d+{re.escape(address.kind[match.end() :])})")
    learned = sorted(found[1] for found in map(of_any.fullmatch, places) if found)
    return replace(segment, address=replace(address, kind=learned[-1])) if learned else segment


def _at_learned_map(segment: Segment, places: Collection[str]) -> Segment:
    """A linear map of a flattened image reads one that has more or fewer points as one that is nearly as fine."""
    address = segment.address
    match = MAP_SIDE.search(address.kind)
    if match is None or f"{address.stage}/{address.kind}" in places:
        return segment
    before, after = address.kind[: match.start(1)], address.kind[match.end(1) :]
    same = re.compile(re.escape(f"{address.stage}/{before}") + r"(\d+)" + re.escape(after))
    learned = sorted(int(other[1]) for other in map(same.fullmatch, places) if other)
    if not learned:
        return segment
    side = min(learned, key=lambda side: abs(math.log2(side / int(match[1]))))
    return replace(segment, address=replace(address, kind=f"{before}{side}{after}"))


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
