"""Einsums of two tensors as the matrix products they are, so that attention looks the same however it is written."""

from collections.abc import Sequence

from torch import Tensor


def as_product(equation: str, operands: Sequence[Tensor]) -> Tensor | None:
    """Result of an einsum by way of ``matmul``; None if it isn't one product of matrices along one summed axis."""
    terms, _, result = equation.replace(" ", "").replace("...", ".").partition("->")
    if terms.count(",") != 1 or not result:
        return None
    left, right = operands
    # Axes that an ellipsis stands for get digits, counted from the last.
    first, second = terms.split(",")
    more = [
        operand.dim() - len(term) + 1 if "." in term else 0
        for term, operand in ((first, left), (second, right))
    ]
    first, second, result = (
        term.replace(".", "9876543210"[10 - count :])
        for term, count in ((first, more[0]), (second, more[1]), (result, max(more)))
    )
    either = set(first + second)
    if any(len(set(term)) < len(term) for term in (first, second)) or len(either - set(result)) != 1:
        return None
    rows = [axis for axis in result if axis not in second]
    columns = [axis for axis in result if axis not in first]
    inner = next(iter(either - set(result)))
    if not rows or not columns or inner not in first or inner not in second:
        return None
    if left.shape[first.index(inner)] != right.shape[second.index(inner)]:
        return None
    row, column = rows[-1], columns[-1]
    if result.index(row) > result.index(column):
        first, left, row, second, right, column = second, right, column, first, left, row
    batch = [axis for axis in result if axis not in (row, column)]
    product = _arrange(left, first, [*batch, row, inner]) @ _arrange(right, second, [*batch, inner, column])
    return _arrange(product, "".join([*batch, row, column]), list(result))


def _arrange(tensor: Tensor, axes: str, layout: list[str]) -> Tensor:
    """A tensor with its axes in another order, and of size 1 where it has none."""
    order = [axes.index(axis) for axis in layout if axis in axes]
    tensor = tensor.permute(order) if order != sorted(order) else tensor
    for position, axis in enumerate(layout):
        tensor = tensor if axis in axes else tensor.unsqueeze(position)
    return tensor
