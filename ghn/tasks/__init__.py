"""What networks are trained on and measured by: one file a task, for meta-training, comparisons and evaluations."""

from ghn.tasks.image_classification import ImageClassification
from ghn.tasks.language_modeling import LanguageModeling
from ghn.tasks.task import Batch, Inputs, Task, call, logits_of, losses

__all__ = [
    "Batch",
    "ImageClassification",
    "Inputs",
    "LanguageModeling",
    "Task",
    "call",
    "logits_of",
    "losses",
]
