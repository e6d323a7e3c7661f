"""What networks that are cut out of slots are judged by, one class a file; the loop knows none by name."""

from ghn.metatrain.objectives.after_k import AfterK
from ghn.metatrain.objectives.objective import Objective, Trial, gradient_of
from ghn.metatrain.objectives.step0 import Step0

OBJECTIVES: dict[str, type[Objective]] = {"step0": Step0, "after_k": AfterK}

__all__ = ["OBJECTIVES", "AfterK", "Objective", "Step0", "Trial", "gradient_of"]
