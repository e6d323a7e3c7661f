"""What networks are trained on and measured by: one file a task, for meta-training, comparisons and evaluations."""

from ghn.tasks.image_classification import ImageClassification
from ghn.tasks.language_modeling import LanguageModeling
from ghn.tasks.task import Batch, Inputs, Task, call, losses, mean_loss
from ghn.tensors import logits_of

__all__ = [
    "Batch",
    "ImageClassification",
    "Inputs",
    "LanguageModeling",
    "Task",
    "call",
    "logits_of",
    "losses",
    "mean_loss",
]
