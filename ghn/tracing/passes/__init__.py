"""From the record of a run to a graph worth encoding, one pass a file: none loses a parameter.

A pass changes a dictionary of ``Group`` in place. ``simplify`` runs them in order.
"""

from ghn.tracing.channels import Products
from ghn.tracing.passes.bypass import bypass
from ghn.tracing.passes.drop_unread import drop_unread
from ghn.tracing.passes.fold_constants import fold_constants
from ghn.tracing.passes.fuse_attention import fuse_attention
from ghn.tracing.passes.group import Group, Groups
from ghn.tracing.passes.merge_elementwise import merge_elementwise
from ghn.tracing.roles import RoleFinder

__all__ = ["Group", "Groups", "drop_unread", "simplify"]


def simplify(groups: Groups, finder: RoleFinder) -> dict[int, Products]:
    """Collapse constants, shape operations, elementwise clutter, and attention that is written out.

    Returns:
        The two products of each attention that was fused, by the number of its group.
    """
    fold_constants(groups, finder)
    bypass(groups)
    merge_elementwise(groups)
    return fuse_attention(groups)
