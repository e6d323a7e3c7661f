"""Sampled networks are trained once, judged untrained, and ranked by what is known of them."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau
from torch.nn.functional import cross_entropy

from ghn.data.order import evaluation_batches
from ghn.encoder import EncoderConfig
from ghn.errors import ConfigError
from ghn.evaluate import rank_correlation, ranking
from ghn.evaluate.rank_correlation import kendall, rank_correlations
from ghn.evaluate.ranking import RankingConfig, sample_networks
from ghn.hypernetwork import GHN, GHNConfig
from ghn.models import load_model


def test_families_take_turns_and_large_networks_are_left_out() -> None:
    config = RankingConfig(max_parameters=200_000)  # few ResNets are as small
    found = list(islice(sample_networks(config, num_classes=10), 18))
    counts = Counter(architecture.family for architecture, _ in found)
    assert sorted(counts.values()) == [1] * 16 + [2]
    assert len({architecture.key for architecture, _ in found}) == 18
    architecture, parameters = found[0]
    model = architecture.build(num_classes=10)
    assert parameters == sum(parameter.numel() for parameter in model.parameters())
    assert max(parameters for _, parameters in found) <= 200_000


def test_tau_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(8, size=30), rng.integers(5, size=30)  # with ties
    assert kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)
    drawn = rng.integers(30, size=30)
    resampled = kendall(first, second, counts=np.bincount(drawn, minlength=30)[None])
    assert resampled == pytest.approx(kendalltau(first[drawn], second[drawn]).statistic)
    assert np.isnan(kendall(first, np.ones(30)))


def test_tau_within_families_leaves_their_differences_out() -> None:
    families = np.array([0, 0, 0, 1, 1, 1])
    accuracy = np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    figure = np.array([3.0, 2.0, 1.0, 9.0, 8.0, 7.0])  # right on families, wrong within each
    assert kendall(figure, accuracy, families) == pytest.approx(-1.0)
    assert kendall(figure, accuracy) == pytest.approx(3 / 15)


def test_a_predictor_that_knows_the_family_alone_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(8), 8)
    accuracy = family + rng.uniform(size=64)
    table = pd.DataFrame(
        {
            "family": family,
            "accuracy": accuracy,
            "parameters": 100 * accuracy,
            "depth": rng.integers(5, size=64),
            "loss_ghn": -family + 1e-3 * rng.uniform(size=64),
            "loss_base": -accuracy,
            "loss_random": rng.uniform(size=64),
        }
    )
    found = rank_correlations(table)
    ghn, base = found["tau"]["ghn"], found["tau"]["base"]
    assert base["overall"]["tau"] == base["within"]["tau"] == pytest.approx(1.0)
    assert ghn["overall"]["tau"] > 0.8 and abs(ghn["within"]["tau"]) < 0.3
    assert ghn["families"]["low"] > 0.8
    noise = found["tau"]["random"]["overall"]
    assert noise["low"] < noise["tau"] < noise["high"] and noise["low"] < 0 < noise["high"]
    assert found["above_parameters"]["overall"]["high"] < 0


def loss_before(network: pd.Series) -> float:
    """Mean over two constructions, on the first images that are evaluated, under their statistics."""
    task = RankingConfig(images="digits", image_size=8).task()
    (images,), labels = task.inputs(next(evaluation_batches(task.evaluation, 40, 40)), torch.device("cpu"))
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = load_model(network["spec"], num_classes=10, **json.loads(network["kwargs"]))
        losses.append(cross_entropy(model.train()(images), labels).item())
    return sum(losses) / 2


def test_the_script_goes_on_and_ranks(
    tmp_path: Path, monkeypatch, capsys, load_script: Callable[[str], ModuleType]
) -> None:
    torch.manual_seed(0)
    GHN(GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2))).save_pretrained(tmp_path / "net")
    monkeypatch.setattr(ranking, "EXAMPLES", 40)
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 20)
    script = load_script("rank_architectures")
    options = {
        "images": "digits",
        "image_size": 8,
        "steps": 2,
        "batch_size": 8,
        "eval_samples": 20,
        "lr": [1e-3],
    }
    out = tmp_path / "out"
    script.rank(out, **options, networks=1)
    first = pd.read_csv(out / "trained.csv")
    assert len(first) == 1 and not (out / "ranking.json").exists()
    script.rank(out, str(tmp_path / "net"), **options, networks=2)
    trained = pd.read_csv(out / "trained.csv")
    pd.testing.assert_frame_equal(trained[:1], first)
    assert trained["family"].nunique() == 2 and trained["accuracy"].between(0, 1).all()
    untrained = pd.read_csv(out / "untrained.csv")
    losses = untrained[["loss_ghn", "loss_base", "loss_random"]]
    assert (losses.nunique(axis=1) == 3).all()
    assert losses.loc[0, "loss_random"] == pytest.approx(loss_before(trained.loc[0]), rel=1e-4)
    results = json.loads((out / "ranking.json").read_text())
    assert results["networks"] == 2
    assert results["tau"]["ghn"]["overall"]["tau"] == pytest.approx(
        kendalltau(-untrained["loss_ghn"], trained["accuracy"]).statistic
    )
    assert (out / "ranking.png").exists()
    assert "ghn − parameters" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="trained with steps=2, now it is 3"):
        script.rank(out, **{**options, "steps": 3}, networks=2)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="networks is 0"):
        RankingConfig(networks=0)
    with pytest.raises(ConfigError, match="one rate or more"):
        RankingConfig(lr=())
