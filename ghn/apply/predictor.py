"""What writing predictions needs of a hypernetwork."""

from typing import Protocol

from ghn.base import RuleSet
from ghn.decoder import Learned, Prediction
from ghn.graph.graph import ComputationGraph


class Predictor(Protocol):
    """A hypernetwork, such as ``GHN``, as far as writing what it predicts is concerned."""

    def check_weights(self) -> None:
        """Raise a PredictionError if it can't predict."""

    def rules(self, rules: RuleSet | None) -> RuleSet:
        """How parameters start if asked for by ``rules``; None is the default."""

    def predict_graph(
        self, graph: ComputationGraph, seed: int, learned: Learned, rules: RuleSet | None
    ) -> Prediction:
        """As ``GHN.predict_graph``."""
