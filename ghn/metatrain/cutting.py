"""Weights of a network cut out of slots, and the backward pass of that: from their gradients to those of the tables.

Written by hand: autograd through the prediction would take several times as long.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.plan import ParamPlan
from ghn.decoder.slots import COHERENT, FRESH, Cut, CutParam, SlotBank, whole_matrix


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
class Extract(ABC):
    """One cut of a parameter, and what its backward pass needs.

    ``take`` of each kind makes the values and this.
    """

    cut_param: CutParam
    cut: Cut

    @abstractmethod
    def add(self, gradients: "Gradients", grad: Tensor, weight: float) -> None:
        """Add to the tables' gradients.

        Args:
            gradients: Of the tables.
            grad: Gradient of the values, shape ``(height, width)``.
            weight: Factor on it.
        """


@dataclass(frozen=True)
class VectorExtract(Extract):
    """Of a vector: its table moves the vector's centre."""

    @classmethod
    def take(cls, bank: SlotBank, cut_param: CutParam, cut: Cut) -> tuple[Tensor, "VectorExtract"]:
        """Values, shape ``(height,)``, and the extract."""
        rows = _rows(bank.rows[cut.slot].detach(), cut.rows, cut.height)
        return _moved(cut_param, rows, cut.where), cls(cut_param, cut)

    def add(self, gradients: "Gradients", grad: Tensor, weight: float) -> None:
        """See ``Extract.add``."""
        centre = self.cut_param.centre
        factor = weight * centre if not isinstance(centre, Tensor) and centre else weight
        gradients.add_rows(gradients.bank.rows[self.cut.slot], self.cut.rows, grad.reshape(-1) * factor)


@dataclass(frozen=True)
class MatrixExtract(Extract):
    """Of a matrix that is learned itself."""

    block: Tensor
    """What was taken of the table."""
    inverse_norm: float
    """One over its root mean square."""
    size: float
    """Of the slot's part within the parameter: spread times coherent share."""

    @classmethod
    def take(
        cls, bank: SlotBank, cut_param: CutParam, cut: Cut, size: float
    ) -> tuple[Tensor, "MatrixExtract"]:
        """Values, shape ``(height, width)``, and the extract."""
        block = whole_matrix(bank.rows[cut.slot].detach(), cut)
        inverse = 1 / math.sqrt(max(float(block.square().mean()), 1e-30))
        return block * (size * inverse), cls(cut_param, cut, block, inverse, size)

    def add(self, gradients: "Gradients", grad: Tensor, weight: float) -> None:
        """See ``Extract.add``."""
        cut, block, inverse = self.cut, self.block, self.inverse_norm
        # The block was divided by its root mean square: its length changes nothing.
        along = float((grad * block).sum()) * inverse**2 / (cut.height * cut.width)
        grad = torch.add(grad, block, alpha=-along).mul_(weight * self.size * inverse)
        gradients.add_block(gradients.bank.rows[cut.slot], cut, grad)


@dataclass(frozen=True)
class ProductExtract(Extract):
    """Of two factors beside a fixed matrix."""

    left: Tensor
    """Rows that were taken of the row table, shape ``(height, rank)``."""
    right: Tensor
    """Rows that were taken of the column table, shape ``(width, rank)``."""
    left_gram: Tensor
    right_gram: Tensor
    inverse_norm: float
    """One over the root mean square of the product."""
    share: float
    """Of the product, beside the fixed matrix."""
    size: float
    """As of ``MatrixExtract``."""

    @classmethod
    def take(
        cls, bank: SlotBank, cut_param: CutParam, cut: Cut, size: float, share: float
    ) -> tuple[Tensor, "ProductExtract"]:
        """Values, shape ``(height, width)``, and the extract."""
        assert cut.master is not None
        left = _rows(bank.rows[cut.slot].detach(), cut.rows, cut.height)
        right = _rows(bank.columns[cut.slot].detach(), cut.columns, cut.width)
        if cut.copy_weights is not None:
            right = right * cut.copy_weights[:, None]
        left_gram, right_gram = left.mT @ left, right.mT @ right
        mean_square = float((left_gram * right_gram).sum()) / (cut.height * cut.width)
        inverse = 1 / math.sqrt(max(mean_square, 1e-30))
        fixed, learned = size * math.sqrt(1 - share**2), size * share * inverse
        values = torch.addmm(cut.master, left, right.mT, beta=fixed, alpha=learned)
        return values, cls(cut_param, cut, left, right, left_gram, right_gram, inverse, share, size)

    def add(self, gradients: "Gradients", grad: Tensor, weight: float) -> None:
        """See ``Extract.add``."""
        cut, bank, inverse, share = self.cut, gradients.bank, self.inverse_norm, self.share
        assert cut.master is not None
        by_left, by_right = grad @ self.right, grad.mT @ self.left
        along = float((by_left * self.left).sum())  # likewise
        correction = along * inverse**2 / (cut.height * cut.width)
        scale = weight * self.size * share * inverse
        left = (by_left - correction * (self.left @ self.right_gram)).mul_(scale)
        right = (by_right - correction * (self.right @ self.left_gram)).mul_(scale)
        if cut.copy_weights is not None:
            right = right * cut.copy_weights[:, None]
        gradients.add_rows(bank.rows[cut.slot], cut.rows, left)
        gradients.add_rows(bank.columns[cut.slot], cut.columns, right)
        across = float((grad * cut.master).sum())
        rise = inverse * along - share / math.sqrt(1 - share**2) * across
        gradients.of(bank.share)[cut.slot] += weight * self.size * rise * share * (1 - share)


@torch.no_grad()
def cut_out(
    bank: SlotBank, cut_params: Sequence[CutParam], noise: Noise | None
) -> tuple[dict[str, Tensor], list[Extract]]:
    """Make all parameters of a network that have cuts; no gradient is recorded.

    Args:
        bank: The tables.
        cut_params: As ``SlotBank.cut_params`` gives them.
        noise: Fresh numbers, instead of a base; None for none.

    Returns:
        Tensors by name, and what ``Gradients.add`` needs.
    """
    shares = torch.sigmoid(bank.share).tolist()
    gains = bank.gain.exp().tolist()
    values: dict[str, Tensor] = {}
    extracts: list[Extract] = []
    for cut_param in cut_params:
        if not cut_param.cuts:
            continue
        segments = []
        for cut in cut_param.cuts:
            segment, extract = _take(bank, cut_param, cut, shares, gains)
            if noise is not None and not isinstance(extract, VectorExtract):
                noise.add_(segment, cut_param.plan.init.std * FRESH)
            segments.append(segment)
            extracts.append(extract)
        whole = _together(cut_param, segments)
        if cut_param.plan.init.random and cut_param.cuts[0].width > 1:  # a line is in order as it is
            whole = cut_param.plan.layout.restore(whole)
        values[cut_param.plan.spec.name] = whole.reshape(cut_param.plan.spec.shape)
    return values, extracts


def _take(
    bank: SlotBank, cut_param: CutParam, cut: Cut, shares: Sequence[float], gains: Sequence[float]
) -> tuple[Tensor, Extract]:
    if cut.master is None and not cut.dense:
        return VectorExtract.take(bank, cut_param, cut)
    size = cut_param.plan.init.std * (COHERENT * cut.dilution) * gains[cut.slot]
    if cut.dense:
        return MatrixExtract.take(bank, cut_param, cut, size)
    return ProductExtract.take(bank, cut_param, cut, size, shares[cut.slot])


class Gradients:
    """Gradients of a bank's tables: those that nothing has touched have none.

    Their memory is kept from one update to the next: getting it anew takes longer than filling it.
    """

    def __init__(self, bank: SlotBank) -> None:
        self.bank = bank
        self._zeros: dict[nn.Parameter, Tensor] = {}

    def of(self, table: nn.Parameter) -> Tensor:
        """The gradient of a table, zero at first."""
        if table.grad is None:
            zeros = self._zeros.pop(table, None)
            table.grad = torch.zeros_like(table) if zeros is None else zeros
        return table.grad

    def clear(self) -> None:
        """Begin again."""
        for table in self.bank.parameters():
            if table.grad is not None:
                self._zeros[table] = table.grad.zero_()
                table.grad = None

    @torch.no_grad()
    def add(self, extracts: Sequence[Extract], grads: Mapping[str, Tensor], weight: float) -> None:
        """Add the gradient of a loss with respect to what was cut out.

        Args:
            extracts: From ``cut_out``.
            grads: Gradients of the parameters, by name; some may be missing.
            weight: Factor on all of them.
        """
        matrices: dict[str, Tensor] = {}
        for extract in extracts:
            cut, plan = extract.cut, extract.cut_param.plan
            name = plan.spec.name
            if name not in grads:
                continue
            if name not in matrices:
                matrices[name] = as_matrix(plan, cut, grads[name])
            extract.add(self, matrices[name] if cut.where is None else matrices[name][cut.where], weight)

    def add_rows(self, table: nn.Parameter, rows: Tensor | None, grad: Tensor) -> None:
        """Add to rows of a table's gradient; None is the first ones."""
        gradient = self.of(table)
        if rows is None:
            gradient[: len(grad)] += grad
        else:
            gradient.index_add_(0, rows, grad)

    def add_block(self, table: nn.Parameter, cut: Cut, grad: Tensor) -> None:
        """Add to the rows and columns of a table's gradient that a cut has taken."""
        gradient = self.of(table)
        if cut.resize is not None:
            grad = cut.resize.backward(grad)
        if cut.copy_weights is not None:
            grad = grad * cut.by_row(cut.copy_weights)
        if cut.columns is not None:
            whole, columns = grad.new_zeros(cut.taken, table.shape[1]), cut.by_row(cut.columns)
            add = whole.index_add_ if columns.ndim == 1 else whole.scatter_add_
            grad = add(1, columns, grad)
        if cut.rows is None:
            gradient[: cut.taken, : grad.shape[1]] += grad
        else:
            gradient[:, : grad.shape[1]].index_add_(0, cut.rows, grad)


def as_matrix(plan: ParamPlan, cut: Cut, values: Tensor) -> Tensor:
    """A parameter in the shape that its cuts have side by side; the inverse of ``Layout.restore``."""
    if cut.width == 1:
        return values.reshape(-1, 1)
    layout = plan.layout
    return values.permute(layout.permutation).reshape(layout.rows, layout.columns)


def _rows(table: Tensor, rows: Tensor | None, count: int) -> Tensor:
    return table[:count] if rows is None else table[rows]


def _moved(cut_param: CutParam, offsets: Tensor, where: Tensor | None) -> Tensor:
    """A vector: its centre, moved in proportion where that is a number other than zero."""
    centre = cut_param.centre
    if isinstance(centre, Tensor):
        return (centre if where is None else centre[where]) + offsets
    return centre * (1 + offsets) if centre else offsets


def _together(cut_param: CutParam, segments: list[Tensor]) -> Tensor:
    """The segments of a parameter, rows in order."""
    if len(segments) == 1 and cut_param.cuts[0].where is None:
        return segments[0]
    where = torch.cat([cut.where for cut in cut_param.cuts if cut.where is not None])
    whole = segments[0].new_empty(len(where), *segments[0].shape[1:])
    return whole.index_copy_(0, where, torch.cat(segments))
