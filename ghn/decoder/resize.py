"""Patches, flattened maps and grids of tokens of other sizes than slots have learned: as of the same image, larger or
smaller."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ghn.decoder.units import Segment

COLOURS = 3
"""Channels of an image that isn't grey."""

PATCH = re.compile(r"(?:\d+/)?patch(\d+) input>")
MAP = re.compile(r"(?:\d+/)?linear(?:/\d+)? map(\d+) ")
POSITION = re.compile(r"(?:\d+/)?position(\d+) after patch(\d+) ")


@dataclass(frozen=True)
class Resize:
    """Linear maps of what a table has, on either side of it."""

    points: Tensor | None = None
    """From the points of a patch or map that was learned, of all colours where what is wanted is grey, to those that
    are wanted, shape ``(learned, wanted)``."""
    tokens: Tensor | None = None
    """From the positions that were learned to those that are wanted, shape ``(wanted, learned)``."""
    colours: int = 1
    """Channels that are summed up for each one that is wanted: of grey images."""

    @property
    def notes(self) -> set[str]:
        """What of it a report says."""
        sized = self.points is None or len(self.points) != self.colours * self.points.shape[1]
        grey = self.colours > 1
        return {*["patches or maps of another size"] * sized, *["coloured images"] * grey}

    def __call__(self, block: Tensor) -> Tensor:
        """What is wanted, of a block of a table."""
        if self.points is not None:
            points = self.points.to(block)
            block = (block.view(-1, len(points)) @ points).view(len(block), -1)
        return block if self.tokens is None else self.tokens.to(block) @ block

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of the block from that of what is wanted."""
        if self.points is not None:
            points = self.points.to(grad)
            grad = (grad.view(-1, points.shape[1]) @ points.T).view(len(grad), -1)
        return grad if self.tokens is None else self.tokens.to(grad).T @ grad


def is_other_size(segment: Segment, positions: int) -> bool:
    """Whether a segment is of other patches or maps, or of another grid, than its slot.

    Args:
        segment: With the address of the slot.
        positions: Units of a block of the slot's rows.
    """
    kind = segment.address.kind
    if learned := _learned_side(kind):
        return learned != _side(segment)
    return bool(POSITION.match(kind)) and math.isqrt(len(segment.row_units)) != math.isqrt(positions)


def resize_of(segment: Segment, positions: int) -> Resize | None:
    """What a segment of another size (see ``is_other_size``) needs of its slot; None if there is no way."""
    if learned := _learned_side(segment.address.kind):
        return Resize(points=patch_points(learned, _side(segment)))
    tokens = token_positions(positions, len(segment.row_units))
    return None if tokens is None else Resize(tokens=tokens)


def _learned_side(kind: str) -> int:
    """Points along a side of the patches or maps at a kind of place; 0 of all else."""
    match = PATCH.match(kind) or MAP.match(kind)
    return int(match[1]) if match else 0


def _side(segment: Segment) -> int:
    """Points along a side of a segment's own patches or maps."""
    along = segment.column_units[:, 2]
    return int(along.max() - along.min()) + 1


def reads_grey(segment: Segment, channels: int) -> bool:
    """Whether a segment reads images of one channel, where its slot has learned of coloured ones.

    Args:
        segment: With the address of the slot.
        channels: Units of a block of the slot's columns.
    """
    return channels == COLOURS and " input>" in segment.address.kind and not segment.column_units[:, :2].any()


def of_grey(resize: Resize | None, column_units: Tensor) -> tuple[Resize, Tensor]:
    """What a grey image needs: the sum over the colours, as if its channel were there three times.

    Args:
        resize: What else is needed.
        column_units: Of the columns that a table has of one channel.

    Returns:
        What is needed in all, and the units of all colours.
    """
    points = torch.eye(len(column_units)) if resize is None or resize.points is None else resize.points
    colours = column_units.repeat(COLOURS, 1)
    colours[:, 1] = torch.arange(COLOURS).repeat_interleave(len(column_units))
    return Resize(points=points.repeat(COLOURS, 1), colours=COLOURS), colours


def with_points(column_units: Tensor, side: int) -> Tensor:
    """Units of the columns of a patch or map, had it so many points a side; see ``Segment.column_units``."""
    points = int((column_units[:, :2] == column_units[0, :2]).all(1).sum())
    inputs = column_units[::points, :2]
    along = torch.arange(side) - side // 2
    places = torch.cartesian_prod(along, along)
    return torch.cat([inputs.repeat_interleave(len(places), 0), places.repeat(len(inputs), 1)], 1)


@lru_cache(maxsize=64)
def patch_points(learned: int, wanted: int) -> Tensor:
    """A patch that gives, of an enlarged image, what another one gave of the image, shape ``(learned², wanted²)``.

    Of an image that is made smaller, as nearly as that goes in the least squares.

    References:
        FlexiViT's resizing by a pseudo-inverse, https://arxiv.org/abs/2212.08013
    """
    basis = torch.eye(learned**2).view(-1, 1, learned, learned)
    larger = interpolate(basis, (wanted, wanted), mode="bilinear", antialias=wanted < learned)
    return torch.linalg.pinv(larger.view(learned**2, -1).T)


@lru_cache(maxsize=64)
def token_positions(learned: int, wanted: int) -> Tensor | None:
    """Positions of a square grid between those of another one, shape ``(wanted, learned)``.

    Args:
        learned: Positions that were learned: a grid, and room for tokens that are not of an image, which come first.
        wanted: Likewise those that are wanted.

    Returns:
        None if there is no such grid, or there are more other tokens than were learned.
    """
    side = math.isqrt(learned)
    others = next(
        (n for n in range(learned - side**2 + 1) if math.isqrt(wanted - n) ** 2 == wanted - n), None
    )
    if others is None:
        return None
    grid = math.isqrt(wanted - others)
    basis = torch.eye(side**2).view(1, -1, side, side)
    between = interpolate(basis, (grid, grid), mode="bilinear", antialias=grid < side).view(side**2, -1).T
    return torch.block_diag(torch.eye(others), between) if others else between
