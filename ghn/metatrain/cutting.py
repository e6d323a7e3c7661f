"""Weights of a network cut out of slots, and the way of their gradients back to the tables.

By hand, without autograd through the prediction: it would take several times as long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.plan import ParamPlan
from ghn.decoder.slots import COHERENT, FRESH, Cut, Part, SlotBank, whole_matrix


class Noise:
    """A stock of normal numbers of which slices are taken: targets of meta-training need no independent ones."""

    def __init__(self, generator: torch.Generator, size: int = 2**22) -> None:
        self._stock = torch.randn(size, generator=generator)
        self.generator = generator
        """Draws where slices begin."""

    def add_(self, values: Tensor, size: float) -> None:
        """Add noise of a standard deviation to a contiguous tensor."""
        flat = values.view(-1)
        start = int(torch.randint(len(self._stock), (), generator=self.generator))
        done = 0
        while done < len(flat):
            count = min(len(flat) - done, len(self._stock) - start)
            flat[done : done + count].add_(self._stock[start : start + count], alpha=size)
            done, start = done + count, 0


@dataclass(frozen=True)
class Taken:
    """What cutting has left for the way back."""

    part: Part
    cut: Cut
    left: Tensor | None = None
    right: Tensor | None = None
    left_gram: Tensor | None = None
    right_gram: Tensor | None = None
    inverse_norm: float = 0.0
    share: float = 0.0
    size: float = 0.0
    """Of the slot's part within the parameter: spread times coherent share."""


@torch.no_grad()
def cut_out(
    bank: SlotBank, parts: Sequence[Part], noise: Noise | None
) -> tuple[dict[str, Tensor], list[Taken]]:
    """Make all parameters of a network that have cuts; no gradient is recorded.

    Args:
        bank: The tables.
        parts: As ``SlotBank.parts`` gives them.
        noise: Fresh numbers, instead of a base; None for none.

    Returns:
        Tensors by name, and what ``Gradients.add`` needs.
    """
    shares = torch.sigmoid(bank.share).tolist()
    gains = bank.gain.exp().tolist()
    values: dict[str, Tensor] = {}
    taken: list[Taken] = []
    for part in parts:
        if not part.cuts:
            continue
        segments = []
        for cut in part.cuts:
            rows = bank.rows[cut.slot].detach()
            if cut.master is None and not cut.dense:
                taken.append(Taken(part, cut))
                segments.append(_moved(part, _rows(rows, cut.rows, cut.height), cut.where))
                continue
            std, coherent = part.plan.init.std, COHERENT * cut.dilution
            size = std * coherent * gains[cut.slot]
            if cut.dense:
                block = whole_matrix(rows, cut)
                inverse = 1 / math.sqrt(max(float(block.square().mean()), 1e-30))
                matrix = block * (size * inverse)
                taken.append(Taken(part, cut, block, inverse_norm=inverse, size=size))
            else:
                assert cut.master is not None
                left = _rows(rows, cut.rows, cut.height)
                right = _rows(bank.columns[cut.slot].detach(), cut.columns, cut.width)
                if cut.shares is not None:
                    right = right * cut.shares[:, None]
                left_gram, right_gram = left.mT @ left, right.mT @ right
                mean_square = float((left_gram * right_gram).sum()) / (cut.height * cut.width)
                inverse, share = 1 / math.sqrt(max(mean_square, 1e-30)), shares[cut.slot]
                fixed, learned = size * math.sqrt(1 - share**2), size * share * inverse
                matrix = torch.addmm(cut.master, left, right.mT, beta=fixed, alpha=learned)
                taken.append(Taken(part, cut, left, right, left_gram, right_gram, inverse, share, size))
            if noise is not None:
                noise.add_(matrix, std * FRESH)
            segments.append(matrix)
        whole = _together(part, segments)
        if part.plan.init.random and part.cuts[0].width > 1:  # a line is in order as it is
            whole = part.plan.layout.restore(whole)
        values[part.plan.spec.name] = whole.reshape(part.plan.spec.shape)
    return values, taken


class Gradients:
    """Gradients of a bank's tables: those that nothing has touched have none.

    Their memory is kept from one update to the next: getting it anew takes longer than filling it.
    """

    def __init__(self, bank: SlotBank) -> None:
        self._bank = bank
        self._zeros: dict[nn.Parameter, Tensor] = {}

    def of(self, table: nn.Parameter) -> Tensor:
        """The gradient of a table, zero at first."""
        if table.grad is None:
            zeros = self._zeros.pop(table, None)
            table.grad = torch.zeros_like(table) if zeros is None else zeros
        return table.grad

    def clear(self) -> None:
        """Begin again."""
        for table in self._bank.parameters():
            if table.grad is not None:
                self._zeros[table] = table.grad.zero_()
                table.grad = None

    @torch.no_grad()
    def add(self, taken: Sequence[Taken], slopes: Mapping[str, Tensor], weight: float) -> None:
        """Add the gradient of a loss with respect to what was cut out.

        Args:
            taken: From ``cut_out``.
            slopes: Gradients of the parameters, by name; some may be missing.
            weight: Factor on all of them.
        """
        bank = self._bank
        matrices: dict[str, Tensor] = {}
        for one in taken:
            cut, plan = one.cut, one.part.plan
            name = plan.spec.name
            if name not in slopes:
                continue
            if cut.master is None and not cut.dense:
                slope = slopes[name].reshape(-1)
                slope = slope if cut.where is None else slope[cut.where]
                centre = one.part.centre
                factor = weight * centre if not isinstance(centre, Tensor) and centre else weight
                self._scatter(bank.rows[cut.slot], cut.rows, slope * factor)
                continue
            if name not in matrices:
                matrices[name] = as_matrix(plan, cut, slopes[name])
            slope = matrices[name] if cut.where is None else matrices[name][cut.where]
            assert one.left is not None
            if cut.dense:
                along = float((slope * one.left).sum()) * one.inverse_norm**2 / (cut.height * cut.width)
                slope = torch.add(slope, one.left, alpha=-along).mul_(weight * one.size * one.inverse_norm)
                self._scatter_matrix(bank.rows[cut.slot], cut, slope)
                continue
            assert one.right is not None and cut.master is not None
            assert one.left_gram is not None and one.right_gram is not None
            by_left, by_right = slope @ one.right, slope.mT @ one.left
            along = float((by_left * one.left).sum())
            correction = along * one.inverse_norm**2 / (cut.height * cut.width)
            scale = weight * one.size * one.share * one.inverse_norm
            left = (by_left - correction * (one.left @ one.right_gram)).mul_(scale)
            right = (by_right - correction * (one.right @ one.left_gram)).mul_(scale)
            if cut.shares is not None:
                right = right * cut.shares[:, None]
            self._scatter(bank.rows[cut.slot], cut.rows, left)
            self._scatter(bank.columns[cut.slot], cut.columns, right)
            across = float((slope * cut.master).sum())
            rise = one.inverse_norm * along - one.share / math.sqrt(1 - one.share**2) * across
            self.of(bank.share)[cut.slot] += weight * one.size * rise * one.share * (1 - one.share)

    def _scatter(self, table: nn.Parameter, rows: Tensor | None, slope: Tensor) -> None:
        gradient = self.of(table)
        if rows is None:
            gradient[: len(slope)] += slope
        else:
            gradient.index_add_(0, rows, slope)

    def _scatter_matrix(self, table: nn.Parameter, cut: Cut, slope: Tensor) -> None:
        gradient = self.of(table)
        if cut.shares is not None:
            slope = slope * cut.shares
        if cut.columns is not None:
            slope = slope.new_zeros(cut.height, table.shape[1]).index_add_(1, cut.columns, slope)
        if cut.rows is None:
            gradient[: cut.height, : slope.shape[1]] += slope
        else:
            gradient[:, : slope.shape[1]].index_add_(0, cut.rows, slope)


def as_matrix(plan: ParamPlan, cut: Cut, values: Tensor) -> Tensor:
    """A parameter in the shape that its cuts have side by side; the inverse of ``Layout.restore``."""
    if cut.width == 1:
        return values.reshape(-1, 1)
    layout = plan.layout
    return values.permute(layout.permutation).reshape(layout.rows, layout.columns)


def _rows(table: Tensor, rows: Tensor | None, count: int) -> Tensor:
    return table[:count] if rows is None else table[rows]


def _moved(part: Part, offsets: Tensor, where: Tensor | None) -> Tensor:
    """A vector: its centre, moved in proportion where that is a number other than zero."""
    centre = part.centre
    if isinstance(centre, Tensor):
        return (centre if where is None else centre[where]) + offsets
    return centre * (1 + offsets) if centre else offsets


def _together(part: Part, segments: list[Tensor]) -> Tensor:
    """The segments of a parameter, rows in order."""
    if len(segments) == 1 and part.cuts[0].where is None:
        return segments[0]
    where = torch.cat([cut.where for cut in part.cuts if cut.where is not None])
    whole = segments[0].new_empty(len(where), *segments[0].shape[1:])
    return whole.index_copy_(0, where, torch.cat(segments))
