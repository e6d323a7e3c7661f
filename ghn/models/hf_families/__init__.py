"""Transformers model types that need more than rules, by what they read: one entry has all that is known of a type."""

from ghn.models.hf_families.family import Family
from ghn.models.hf_families.multimodal import MULTIMODAL
from ghn.models.hf_families.sound import SOUND
from ghn.models.hf_families.text import TEXT
from ghn.models.hf_families.vision import VISION

__all__ = ["FAMILIES", "Family", "family"]

FAMILIES: dict[str, Family] = {**VISION, **MULTIMODAL, **SOUND, **TEXT}
"""Families by model type; ``repairs`` are also looked up by type and class, as ``reformer:ReformerModelWithLMHead``."""

_NOTHING = Family()


def family(kind: str) -> Family:
    """What is known of a model type; nothing of most."""
    return FAMILIES.get(kind, _NOTHING)
