"""Settings are checked before anything is loaded."""

import pytest
import torch

from ghn.errors import ConfigError
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.tasks import load_tasks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "", "text": ""}, "nothing to learn from"),
        (
            {"text": "", "ghn": {"decoder": {"scope": "tokens"}}},
            "images teach nothing; give text=…, or scope",
        ),
        ({"ghn": {"decoder": 3}}, "decoder must be a mapping"),
        ({"objective": "regresion"}, "Did you mean 'regression'"),
        ({"scale": "ful"}, "Did you mean 'full'"),
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"inner_steps": [9, 3]}, "inner_steps is 9, 3"),
        ({"targets_per_step": 3, "bases": 2}, "2 bases"),
        ({"repeats": 2, "objective": "step0"}, "needs objective='regression'"),
        ({"ema": 1.0}, r"ema in \[0, 1\)"),
        ({"seed": 2**40}, r"less than 2\*\*31"),
        ({"lr": float("nan")}, "positive learning rates"),
        ({"tokenizers": []}, "needs a tokenizer"),
        ({"text": "", "tokenizers": ["gpt2"]}, "no text to read"),
        ({"stepps": 3}, "Did you mean 'steps'"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0; expected more than 0"),
        ({"warmup_steps": -5}, "warmup_steps is -5; expected 0 or more"),
        ({"trust_pace": -0.3}, "trust_pace is -0.3; expected 0 or more"),
        ({"trust_penalty": float("nan")}, "trust_penalty is nan; expected 0 or more"),
        ({"steps": "300"}, "steps is '300'; expected int"),
        ({"steps": True}, "steps is True; expected int"),
        ({"image_size": 16.5}, "image_size is 16.5; expected int"),
        ({"tokenizers": "bytes"}, r"expected tuple, such as \('bytes',\)"),
        ({"inner_steps": 5}, "expected tuple"),
        ({"inner_steps": [1, 2, 3]}, "expected two numbers"),
        ({"ghn": 5}, "ghn is 5; expected GHNConfig"),
        ({"ghn": {"decoder": {"rank": "x"}}}, "decoder.rank is 'x'; expected int"),
        ({"ghn": {"decoder": {"rnk": 3}}}, "Did you mean 'rank'"),
    ],
)
def test_mistakes_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MetaTrainConfig.from_dict(settings)


def test_plain_values_give_the_settings_back() -> None:
    config = MetaTrainConfig(inner_steps=(3, 5), tokenizers=("bytes", "folder"), bases=2)
    assert MetaTrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "scope", "kinds"),
    [
        ({}, "tokens", {"text"}),
        ({"ghn": {"decoder": {"rank": 8}}}, "tokens", {"text"}),
        ({"text": ""}, "edges", {"images"}),
        ({"text": "", "ghn": {"decoder": {"rank": 8}}}, "edges", {"images"}),
        ({"ghn": {"decoder": {"scope": "edges"}}}, "edges", {"images", "text"}),
        ({"images": ""}, "tokens", {"text"}),
        ({"ghn": None}, "tokens", {"text"}),
    ],
)
def test_images_are_learned_from_where_there_is_no_text_or_it_is_asked_for(
    settings: dict, scope: str, kinds: set[str]
) -> None:
    config = MetaTrainConfig.from_dict({"text_tokens": 10_000, **settings})
    assert config.ghn.decoder.scope == scope
    assert load_tasks(config, torch.device("cpu")).keys() == kinds
