"""Predicted weights are those of ``weights.json``, so that a change of any prediction is deliberate.

A change that is meant is named in CHANGELOG.md and written down with

    python tests/golden/test_golden.py

which prints what changed. Of each parameter the file holds its role and, for seeds 0, 1 and 2, the root mean square and
a projection of the values on fixed numbers, which any change of any of them changes. Bits may differ between
processors, so values are compared up to ``TOLERANCE``.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghn.base import decisions, default_rules
from ghn.environment import versions
from ghn.hypernetwork import GHN
from ghn.models import load_model
from ghn.models.python_zoo import find
from ghn.tracing.trace import trace

HERE = Path(__file__).parent
FILE = HERE / "weights.json"

SEEDS = (0, 1, 2)

TOLERANCE = 1e-3
"""Share of a parameter's root mean square that values may differ by: QR decompositions amplify the last bit."""

VIT = {"img_size": 32, "patch_size": 8}
GPT = {"vocab_size": 60, "n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 16}
BERT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}

ZOO: dict[str, dict[str, Any]] = {
    "timm:test_resnet": {},
    "timm:test_vit": {},
    "timm:test_convnext": {},
    "timm:test_efficientnet": {},
    "timm:test_nfnet": {},
    "timm:test_mambaout": {},
    "timm:vit_tiny_patch16_224": {
        **VIT,
        "depth": 2,
        "class_token": False,
        "global_pool": "avg",
        "init_values": 0.1,
    },
    "python:ghn.spaces.factories:mlp": {"block": "gmlp", "num_blocks": 2, "embed_dim": 64, **VIT},
    "timm:swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (1, 2),
    },
    "torchvision:squeezenet1_1": {"num_classes": 5},
    "torchvision:mobilenet_v3_small": {"num_classes": 5, "width_mult": 0.25},
    "torchvision:shufflenet_v2_x0_5": {"num_classes": 5},
    "hf:gpt2:AutoModelForCausalLM": GPT,
    "hf:openai-gpt:AutoModelForCausalLM": {**GPT, "vocab_size": 1024, "n_layer": 1, "n_embd": 160},  # words
    "hf:llama:AutoModelForCausalLM": {**BERT, "num_key_value_heads": 1},
    "hf:gpt_neox:AutoModelForCausalLM": BERT,
    "hf:mamba:AutoModelForCausalLM": {
        "vocab_size": 60,
        "hidden_size": 32,
        "state_size": 4,
        "num_hidden_layers": 1,
    },
    "hf:bert:AutoModelForMaskedLM": BERT,
    "hf:t5:AutoModelForSeq2SeqLM": {
        "vocab_size": 60,
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 1,
        "num_heads": 2,
    },
}

NETWORKS = find(f"{HERE / 'networks.py'}:networks")()

KINDS = {"base": ("ghn-small", False), "checkpoint": ("ghn-small", True), "slots": ("ghn-slots", True)}
"""Shipped checkpoint, and whether there is a learned part."""

Nets = Mapping[str, GHN]
"""The shipped checkpoints by name."""

Record = dict[str, dict[str, Any]]
"""Of one model: by parameter, its role and what ``_digest`` makes of its values of each kind, for every seed."""


def build(name: str) -> tuple[nn.Module, Any]:
    """A model and its example inputs."""
    torch.manual_seed(0)
    if name in ZOO:
        model = load_model(name, **ZOO[name])
        return model, torch.ones(2, 3, 32, 32) if name.startswith("python:") else None
    factory, inputs = NETWORKS[name]
    return factory(), inputs


@torch.no_grad()
def record(nets: Nets, name: str) -> Record:
    """What the hypernetworks predict for a model; a kind whose values are the base's is left out."""
    model, inputs = build(name)
    graph = trace(model, inputs)
    found: Record = {spec.name: {"role": spec.role} for spec in graph.params}
    for kind, (checkpoint, learned) in KINDS.items():
        predictions = [nets[checkpoint].predict_graph(graph, seed, learned).params for seed in SEEDS]
        for parameter, entry in found.items():
            digests = [
                _digest(prediction[parameter]) for prediction in predictions if parameter in prediction
            ]
            if digests and digests != entry.get("base"):
                entry[kind] = digests
    return found


def _digest(values: Tensor) -> list[float]:
    """Root mean square and a projection of the same size, to six digits."""
    flat = values.double().flatten()
    # Multiples of the golden ratio are spread evenly and never repeat.
    directions = torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64) * (math.sqrt(5) - 1) * math.pi)
    mean_square = float(flat.square().mean())
    projection = float(flat @ directions) / math.sqrt(len(flat) / 2)
    return [float(f"{number:.6g}") for number in (math.sqrt(mean_square), projection)]


def _agree(found: Any, expected: Any) -> bool:
    if found is None or expected is None:
        return found is expected
    return all(
        abs(new - old) <= TOLERANCE * max(pair[0], 1e-12)
        for pair, former in zip(found, expected, strict=True)
        for new, old in zip(pair, former, strict=True)
    )


def changes(found: Record, expected: Record) -> Iterator[str]:
    """A line for each parameter that differs."""
    for parameter in sorted(found.keys() | expected.keys()):
        new, old = found.get(parameter), expected.get(parameter)
        if new is None or old is None:
            yield f"{parameter}: {'is new' if old is None else 'is gone'}"
        else:
            yield from (f"{parameter}: {change}" for change in _changes(new, old))


def _changes(new: dict[str, Any], old: dict[str, Any]) -> Iterator[str]:
    if new["role"] != old["role"]:
        yield f"role {old['role']!r} -> {new['role']!r}"
    for kind in KINDS:
        # What the checkpoint has not learned is left out: it is as in the base.
        now, before = (entry.get(kind, entry.get("base")) for entry in (new, old))
        if not _agree(now, before):
            yield f"{kind} [rms, projection] {before[0] if before else 'kept'} -> {now[0] if now else 'kept'}"


def load() -> Nets:
    return {name: GHN.from_pretrained(name).eval() for name in {name for name, _ in KINDS.values()}}


@pytest.fixture(scope="module")
def shipped() -> Nets:
    return load()


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(FILE.read_text())


@pytest.mark.parametrize("name", [*ZOO, *NETWORKS])
def test_predicted_weights_are_the_golden_ones(name: str, shipped: Nets, golden: dict[str, Any]) -> None:
    lines = list(changes(record(shipped, name), golden["models"][name]))
    if lines:
        message = (
            f"predictions for {name} changed; if that is meant, name it in CHANGELOG.md and run "
            f"python tests/golden/test_golden.py (last run with {golden['versions']}):"
        )
        pytest.fail("\n  ".join([message, *lines]), pytrace=False)


def test_every_golden_model_is_checked(golden: dict[str, Any]) -> None:
    assert golden["models"].keys() == {*ZOO, *NETWORKS}


def test_every_rule_acts_in_a_golden_model() -> None:
    acting: set[str] = set()
    for name in [*ZOO, *NETWORKS]:
        for decision in decisions(trace(*build(name))).values():
            acting |= {decision.rule, *decision.modifiers}
    assert acting == {*default_rules().names}


def test_a_change_of_one_entry_is_named(tiny_ghn: GHN) -> None:
    nets = {"ghn-small": tiny_ghn, "ghn-slots": tiny_ghn}
    before, after = record(nets, "mlp"), record(nets, "mlp")
    assert not list(changes(after, before))
    values = torch.ones(50, 40)
    before["2.weight"] = {"role": "linear", "base": [_digest(values)] * 3}
    values[17, 3] += 1
    after["2.weight"] = {"role": "linear", "base": [_digest(values)] * 3}
    assert {line.partition(" [")[0] for line in changes(after, before)} == {
        "2.weight: base",
        "2.weight: checkpoint",
        "2.weight: slots",
    }


def main() -> None:
    """Write the file anew and print what changed."""
    nets = load()
    before = json.loads(FILE.read_text())["models"] if FILE.exists() else {}
    models = {}
    for name in [*ZOO, *NETWORKS]:
        found, former = record(nets, name), before.get(name, {})
        lines = list(changes(found, former))
        # What agrees stays as it is written, so that the difference of two versions shows changes alone.
        models[name] = {
            parameter: former[parameter]
            if parameter in former and not list(_changes(entry, former[parameter]))
            else entry
            for parameter, entry in found.items()
        }
        print(f"{name}: {len(lines)} changes", *lines, sep="\n  ", file=sys.stderr)
    rows = [
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in model.items())
        + "\n }"
        for name, model in models.items()
    ]
    made_with = {package: versions()[package] for package in ("torch", "torchvision", "timm", "transformers")}
    header = f'{{"versions": {json.dumps(made_with)},\n"models": {{\n'
    FILE.write_text(header + ",\n".join(rows) + "\n}}\n")


if __name__ == "__main__":
    main()
