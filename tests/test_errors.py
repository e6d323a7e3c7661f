"""Errors: one family, each explained, with suggestions for names."""

import pytest

from ghn import errors
from ghn.errors import GhnError, did_you_mean

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_documented_and_of_the_family(kind):
    assert issubclass(kind, GhnError)
    assert kind.__doc__
    with pytest.raises(GhnError, match="what to do"):
        raise kind("what to do")


def test_suggestions():
    assert did_you_mean("resnet81", ["resnet18", "vit"]) == " Did you mean 'resnet18'?"
    assert did_you_mean("resnet", ["resnet18", "resnet34", "vit"]).count(" or ") == 1
    assert did_you_mean("xyz", ["resnet18"]) == ""
