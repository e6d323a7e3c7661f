"""An update: its schedule, its groups, its penalties, its figures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ghn.decoder import DecoderConfig
from ghn.encoder import EncoderConfig
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.loop import LOG, metatrain
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks
from ghn.metatrain.update import PHASES, _groups, outer_schedule, predict_with_trust

TINY = MetaTrainConfig(
    text="",
    networks=2,
    steps=6,
    targets_per_step=1,
    warmup_steps=1,
    objective="trajectory",
    inner_steps=(1, 1),
    inner_batch_size=4,
    ema=0.0,
    ghn=GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2)),
)


def rows(config: MetaTrainConfig, folder: Path, **options: object) -> list[dict[str, float]]:
    metatrain(config, folder, **{"device": "cpu", **options})
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = MetaTrainConfig(steps=100, warmup_steps=10)
    factors = [outer_schedule(step, config) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[100] == pytest.approx(0, abs=1e-9)
    assert max(factors) == max(factors[8:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize(
    ("bound", "sizes"), [(1, [[5], [3], [9], [2]]), (9, [[5, 3], [9], [2]]), (99, [[5, 3, 9, 2]])]
)
def test_groups_hold_what_memory_allows_and_leave_nothing_out(bound: int, sizes: list[list[int]]) -> None:
    targets = [SimpleNamespace(numel=size) for size in (5, 3, 9, 2)]
    grouped = [[target.numel for target in group] for group in _groups(iter(targets), bound)]  # type: ignore[arg-type]
    assert grouped == sizes


def test_predictions_of_several_graphs_are_those_of_each_alone() -> None:
    config = replace(TINY, networks=4)
    targets = Targets(config, load_tasks(config, torch.device("cpu")))
    drawn = [targets.draw(0, number) for number in range(3)]
    torch.manual_seed(0)
    net = GHN(config.ghn)
    for target, (together, trust) in zip(drawn, predict_with_trust(net, drawn), strict=True):
        alone = net(target.graph, target.seed)
        assert together.keys() == alone.keys() and 0 < len(trust) < len(target.data.param_index)
        # Inner matrices have none: their trust is that of nothing.
        assert len(trust) == sum(
            not torch.equal(value, net(target.graph, target.seed, learned=False)[name])
            for name, value in alone.items()
        )
        for name, value in alone.items():
            assert torch.allclose(together[name], value, atol=1e-4), name


def test_penalty_lowers_trust(tmp_path: Path) -> None:
    config = replace(
        TINY, objective="step0", lr=1e-2, ghn=replace(TINY.ghn, decoder=DecoderConfig(max_trust=0.3))
    )
    free, pulled, other = (
        rows(replace(config, image_trust_penalty=images, trust_penalty=text), tmp_path / f"{images} {text}")[
            -1
        ]["trust"]
        for images, text in ((0.0, 0.0), (1e3, 0.0), (0.0, 1e3))
    )
    assert pulled < 0.8 * free
    assert other == free  # of images, all that is seen here


def test_parameter_penalty_shrinks_what_is_predicted(tmp_path: Path) -> None:
    decoder = DecoderConfig(scope="all", output="hyperfan", base="none")  # nothing has a size of its own
    config = replace(TINY, objective="step0", lr=1e-2, ghn=replace(TINY.ghn, decoder=decoder))
    graph = Targets(config, load_tasks(config, torch.device("cpu"))).draw(0, 0).graph
    sizes = []
    for penalty in (0.0, 1e2):
        net = metatrain(replace(config, parameter_penalty=penalty), tmp_path / str(penalty), device="cpu")
        with torch.no_grad():
            sizes.append(torch.stack([value.square().mean() for value in net(graph).values()]).mean())
    assert sizes[1] < 0.9 * sizes[0]


def test_rows_tell_where_the_time_went(tmp_path: Path) -> None:
    for row in rows(TINY, tmp_path):
        assert 0 < sum(row[f"{phase}_seconds"] for phase in PHASES) <= row["seconds"]


@pytest.mark.gpu
def test_a_gpu_learns_in_bfloat16_and_resumes(tmp_path: Path) -> None:
    config = replace(TINY, precision="bf16", save_every=1)
    rows(config, tmp_path, device="auto", max_seconds=0)
    found = rows(config, tmp_path, device="auto")
    assert len(found) == config.steps and all(row["gradient_norm"] > 0 for row in found)
