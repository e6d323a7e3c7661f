"""Write an initialization rule of your own, see where it acts, and compare it with the library's.

python examples/write_rule.py
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

import ghn
from ghn.base import Init, ParamContext, Rule, decisions, default_rules


@dataclass(frozen=True, kw_only=True)
class SmallLogits(Rule):
    """Maps that make the model's outputs start a tenth as large, so that a classifier begins undecided."""

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})
    gain: float = 0.1
    """Standard deviation of the outputs of inputs of unit variance."""

    def applies(self, p: ParamContext) -> bool:
        """Whether the map makes an output of the model."""
        return p.feeds_outputs

    def init(self, p: ParamContext) -> Init:
        """Independent normal numbers by the fan-in."""
        return Init(std=self.gain / p.fan_in**0.5, distribution="normal")


def main() -> None:
    """Where the rule acts, and what it does to the first loss."""
    rules = default_rules().adding(SmallLogits())
    graph = ghn.trace(ghn.load_model("timm:test_vit", num_classes=10, device="meta"))
    made = {name: decision.rule for name, decision in decisions(graph, rules).items()}
    print("small_logits acts on", [name for name, rule in made.items() if rule == "small_logits"])
    print("the rest follows", sorted(set(made.values()) - {"small_logits"}))

    net = ghn.GHN.from_pretrained()
    for title, chosen in (("default", None), ("with small_logits", rules)):
        model = ghn.load_model("timm:test_vit", num_classes=10)
        net.init_(model, rules=chosen)
        images = torch.randn(64, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            print(f"{title}: logits have a standard deviation of {float(model(images).std()):.2f}")


if __name__ == "__main__":
    main()
