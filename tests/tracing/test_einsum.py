"""Einsums that are matrix products, and those that aren't."""

import pytest
import torch

from ghn.tracing.einsum import as_product


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("b h i d, b h j d -> b h i j", (2, 3, 4, 5), (2, 3, 6, 5)),
        ("bihd,bjhd->bhij", (2, 4, 3, 5), (2, 6, 3, 5)),
        ("bhij,bjhd->bihd", (2, 3, 4, 6), (2, 6, 3, 5)),
        ("bhjd,bhid->bhij", (2, 3, 6, 5), (2, 3, 4, 5)),
        ("bhid,bjd->bhij", (2, 3, 4, 5), (2, 6, 5)),
        ("bghid,bhjd->bghij", (2, 2, 3, 4, 5), (2, 3, 6, 5)),
        ("...id,...jd->...ij", (2, 3, 4, 5), (3, 6, 5)),
        ("...hd,...jd->...hj", (2, 7, 3, 5), (7, 6, 5)),
        ("ij,jk->ki", (3, 4), (4, 5)),
    ],
)
def test_products_are_what_einsum_says(equation, left, right):
    operands = torch.randn(left), torch.randn(right)
    torch.testing.assert_close(as_product(equation, operands), torch.einsum(equation, operands))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i,j->ij", [(3,), (4,)]),  # nothing summed
        ("bij,bij->b", [(2, 3, 4), (2, 3, 4)]),  # two axes summed
        ("bi,bi->b", [(2, 3), (2, 3)]),  # no rows
        ("bii,bj->bj", [(2, 3, 3), (2, 4)]),  # a diagonal
        ("ik,jd->ij", [(3, 4), (5, 6)]),  # each summed alone
        ("id,jd->ij", [(3, 1), (4, 5)]),  # stretched
        ("id,jd", [(3, 5), (4, 5)]),  # result not said
        ("ij->ji", [(3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ],
)
def test_others_are_left_alone(equation, shapes):
    assert as_product(equation, [torch.randn(shape) for shape in shapes]) is None
