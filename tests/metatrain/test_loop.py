"""Meta-training: exact resume, several processes, groups, a hypernetwork that all learns, and refusals."""

import json
import math
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ghn.encoder import EncoderConfig
from ghn.errors import CheckpointError, ConfigError, DataError
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain import loop
from ghn.metatrain import update as updating
from ghn.metatrain.config import OBJECTIVES, MetaTrainConfig
from ghn.metatrain.graphs import GRAPHS
from ghn.metatrain.loop import CHECKPOINT, LOG, SETTINGS, metatrain
from ghn.metatrain.progress import update_bar
from ghn.metatrain.state import STATE

ROOT = Path(__file__).parents[2]

TINY = MetaTrainConfig(
    text="",
    networks=3,
    steps=3,
    targets_per_step=1,
    warmup_steps=1,
    objective="trajectory",
    inner_steps=(1, 2),
    inner_batch_size=4,
    save_every=1,
    ghn=GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2)),
)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder)]


def train_script(folder: Path, config: MetaTrainConfig) -> list[str]:
    settings = folder.with_suffix(".json")
    settings.write_text(json.dumps(config.to_dict()))
    return [str(ROOT / "scripts/train_ghn.py"), str(folder), "--settings", str(settings), "--device", "cpu"]


HOW = re.compile("seconds|processes")
"""Figures of how a row came about."""


def test_interrupted_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    whole = metatrain(TINY, tmp_path / "whole", device="cpu")
    for _ in range(TINY.steps):  # every call does one update and stops
        parts = metatrain(TINY, tmp_path / "parts", max_seconds=0, device="cpu")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert len(losses(tmp_path / "whole")) == TINY.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_workers_change_nothing_and_may_change(tmp_path: Path) -> None:
    config = replace(TINY, text="python-stdlib", steps=4, targets_per_step=2, networks=1000)
    metatrain(config, tmp_path / "none", device="cpu")
    metatrain(config, tmp_path / "two", max_seconds=0, device="cpu", workers=2)
    metatrain(config, tmp_path / "two", device="cpu", workers=1)
    assert losses(tmp_path / "none") == losses(tmp_path / "two")
    none, two = ((tmp_path / name / STATE).read_bytes() for name in ("none", "two"))
    assert none == two
    with pytest.raises(ConfigError, match="workers is -1"):
        metatrain(config, tmp_path / "never", device="cpu", workers=-1)
    assert not (tmp_path / "never").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_killed_run(tmp_path: Path) -> None:
    config = replace(TINY, text="python-stdlib", steps=1000)
    script = [*train_script(tmp_path / "killed", config), "--workers", "2"]
    run = subprocess.Popen([sys.executable, *script])
    try:
        wait_for(lambda: (tmp_path / "killed" / STATE).exists())
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert len(workers) == 2
    wait_for(lambda: not any(map(running, workers)))


def running(process: str) -> bool:
    """Whether a process is there, and not merely waits for somebody to ask how it ended."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    def kill(done: int, row: dict[str, float]) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()

    config = replace(TINY, steps=100)
    with pytest.raises(ConfigError, match=r"was killed, often for memory.*goes on with fewer --workers"):
        metatrain(config, tmp_path, progress=kill, device="cpu", workers=1)
    assert 1 <= len(rows(tmp_path)) < config.steps


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    config = replace(TINY, text="python-stdlib", steps=8, save_every=2)
    for written in (SETTINGS, STATE):  # before anything is saved, and right after
        run = subprocess.Popen([sys.executable, *train_script(tmp_path / "killed", config)])
        wait_for((tmp_path / "killed" / written).exists)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert 1 <= len(losses(tmp_path / "killed")) < config.steps
    metatrain(config, tmp_path / "killed", device="cpu")
    metatrain(config, tmp_path / "whole", device="cpu")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    killed, whole = ((tmp_path / name / STATE).read_bytes() for name in ("killed", "whole"))
    assert killed == whole


@pytest.mark.parametrize(
    ("objective", "figures", "tolerance"),
    [
        ("step0", ".", 5e-4),
        # Adam's first steps go by the signs of gradients, and so turn what is rounded otherwise into whole steps.
        ("trajectory", "loss", 2e-3),
    ],
)
def test_two_processes_train_like_one_on_the_same_targets(
    tmp_path: Path, objective: str, figures: str, tolerance: float
) -> None:
    # Batch statistics of four images would turn rounding into differences that are seen.
    sizes = {"targets_per_step": 4, "inner_batch_size": 16}
    config = replace(TINY, text="python-stdlib", objective=objective, **sizes)
    # On a CPU ``accelerate launch`` starts a single process, whatever is asked for.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, *train_script(tmp_path / "two", config), "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    metatrain(config, tmp_path / "one", device="cpu")
    assert {row["processes"] for row in rows(tmp_path / "two")} == {2}
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        compared = [name for name in one if re.match(figures, name) and not HOW.search(name)]
        assert {name: two[name] for name in compared} == pytest.approx(
            {name: one[name] for name in compared}, rel=tolerance
        )


def test_rows_after_the_saved_state_are_done_again(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0, device="cpu")
    expected = losses(tmp_path)
    with (tmp_path / LOG).open("a") as log:  # as if killed between writing the log and the state
        log.write('{"step": 1, "lo')
    metatrain(TINY, tmp_path, device="cpu")
    assert losses(tmp_path)[:1] == expected
    assert len(losses(tmp_path)) == TINY.steps
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_checkpoint_of_every_objective_loads_and_has_moved(tmp_path: Path, objective: str) -> None:
    config = replace(TINY, objective=objective)
    average = metatrain(config, tmp_path, device="cpu")
    loaded = GHN.from_pretrained(tmp_path / "checkpoint")
    assert loaded.config == config.ghn
    torch.manual_seed(config.seed)
    start = GHN(config.ghn)
    for name, value in average.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
        assert value.numel() == 1 or not torch.equal(value, start.state_dict()[name]), name


def test_groups_bounded_by_memory_give_the_gradient_of_one(tmp_path: Path) -> None:
    config = replace(TINY, targets_per_step=3, steps=2)
    metatrain(config, tmp_path / "together", device="cpu")
    metatrain(replace(config, held_parameters=1), tmp_path / "alone", device="cpu")
    assert losses(tmp_path / "alone") == pytest.approx(losses(tmp_path / "together"), rel=1e-4)
    norms = [[row["gradient_norm"] for row in rows(tmp_path / name)] for name in ("alone", "together")]
    assert norms[0] == pytest.approx(norms[1], rel=5e-3)


def test_losses_that_are_not_finite_are_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = updating.learn, []

    def sometimes_broken(*given):  # type: ignore[no-untyped-def]
        lesson = learn(*given)
        calls.append(given)
        broken = len(calls) % 2 == 1
        return replace(lesson, loss=lambda p: lesson.loss(p) * math.nan) if broken else lesson

    monkeypatch.setattr(updating, "learn", sometimes_broken)
    average = metatrain(replace(TINY, targets_per_step=2), tmp_path, device="cpu")
    assert [row["skipped"] for row in rows(tmp_path)] == [1, 1, 1]
    assert all(math.isfinite(value) for row in rows(tmp_path) for value in row.values())
    assert all(value.isfinite().all() for value in average.state_dict().values())


def test_an_update_without_a_finite_loss_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = updating.learn
    monkeypatch.setattr(updating, "learn", lambda *given: replace(learn(*given), last_loss=math.inf))
    average = metatrain(TINY, tmp_path, device="cpu")
    found = [(row["skipped"], row["dropped"], row["gradient_norm"]) for row in rows(tmp_path)]
    assert found == [(1, 1, 0.0)] * TINY.steps
    assert unlearned(average)


def test_gradients_that_are_not_finite_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = updating.learn

    def steep(predicted: dict[str, torch.Tensor]) -> torch.Tensor:
        """1, with an infinite slope."""
        moved = sum(values.sum() for values in predicted.values())
        return 1 + (moved - moved.detach()).sqrt()

    monkeypatch.setattr(updating, "learn", lambda *given: replace(learn(*given), loss=steep))
    with update_bar(TINY.steps) as progress:
        average = metatrain(TINY, tmp_path, progress=progress, device="cpu")
    assert [(row["skipped"], row["dropped"]) for row in rows(tmp_path)] == [(0, 1)] * TINY.steps
    assert unlearned(average)
    assert f"not finite: 0 targets, {TINY.steps} updates" in capsys.readouterr().err


def unlearned(net: GHN) -> bool:
    """Whether a hypernetwork of ``TINY`` is as it was made."""
    torch.manual_seed(TINY.seed)
    start = GHN(TINY.ghn).state_dict()
    return all(torch.equal(value, start[name]) for name, value in net.state_dict().items())


def test_bfloat16_and_repeated_updates_learn(tmp_path: Path) -> None:
    config = replace(TINY, objective="regression", repeats=2, trust_penalty=0.1)
    for precision in ("fp32", "bf16"):
        metatrain(replace(config, precision=precision), tmp_path / precision, device="cpu")
    assert all(row["gradient_norm"] > 0 and row["dropped"] == 0 for row in rows(tmp_path / "bf16"))
    firsts = [rows(tmp_path / precision)[0]["first_loss"] for precision in ("fp32", "bf16")]
    assert firsts[0] != firsts[1] == pytest.approx(firsts[0], rel=0.02)


def test_gradients_are_clipped_as_one(tmp_path: Path) -> None:
    config = replace(TINY, steps=1)
    stepped = {}
    for clip in (1e6, 1e-9):  # far below AdamW's epsilon, so that steps shrink with it
        stepped[clip] = metatrain(replace(config, clip_norm=clip), tmp_path / f"{clip}", device="cpu")
    start = loop._learner(config, torch.device("cpu")).net.state_dict()
    moved = {
        clip: max((value - start[name]).abs().max().item() for name, value in net.state_dict().items())
        for clip, net in stepped.items()
    }
    assert 0 < moved[1e-9] < 0.2 * moved[1e6]
    (whole,), (clipped,) = (rows(tmp_path / f"{clip}") for clip in (1e6, 1e-9))
    assert whole["gradient_norm"] == clipped["gradient_norm"] > 1e-9  # as it was before


def test_the_checkpoint_is_the_running_average(tmp_path: Path) -> None:
    nets: dict[float, dict[str, torch.Tensor]] = {}
    for ema in (0.0, 0.9):
        average = metatrain(replace(TINY, ema=ema), tmp_path / f"{ema}", device="cpu")
        nets[ema] = average.state_dict()
        with safe_open(tmp_path / f"{ema}" / STATE, "pt") as state:
            current = {name: state.get_tensor(f"net/{name}") for name in nets[ema]}
        assert all(torch.equal(current[name], nets[0.0][name]) for name in current)
    start = loop._learner(TINY, torch.device("cpu")).net.state_dict()
    # After one update the average is 0.1 of the start, after the next 2/11 of that and 9/11 of the new one, …
    assert not all(torch.equal(nets[0.0][name], nets[0.9][name]) for name in start)
    distances = [sum((net[name] - start[name]).norm() for name in start) for net in (nets[0.9], nets[0.0])]
    assert 0 < distances[0] < distances[1]


def test_losses_of_several_tasks_are_divided_by_their_running_means(tmp_path: Path) -> None:
    """The first update has no mean before, so that its loss counts as 1; without, as what it is."""
    config = replace(TINY, text="python-stdlib", targets_per_step=2, objective="step0", trust_penalty=0.0)
    norms = {}
    for balance in (True, False):
        metatrain(replace(config, balance=balance, steps=1), tmp_path / f"{balance}", device="cpu")
        (norms[balance],) = rows(tmp_path / f"{balance}")
    assert norms[True]["loss"] == norms[False]["loss"]
    tasks = [norms[True][f"loss/{name}"] for name in ("images", "text")]
    ratio = norms[False]["gradient_norm"] / norms[True]["gradient_norm"]
    assert min(tasks) < ratio < max(tasks)


def test_other_settings_and_damaged_states_are_refused(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0, device="cpu")
    larger = replace(TINY.ghn, decoder=replace(TINY.ghn.decoder, max_trust=0.9))
    with pytest.raises(
        ConfigError,
        match=r"other settings \(lr was \S+, now it is 0.1, ghn.decoder.max_trust was \S+, now it is 0.9\)",
    ):
        metatrain(replace(TINY, lr=0.1, ghn=larger), tmp_path, device="cpu")
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        metatrain(TINY, tmp_path, device="cpu")


def test_a_resumed_run_may_save_at_other_times_and_lack_newer_settings(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0, device="cpu")
    with safe_open(tmp_path / STATE, "pt") as file:
        run = json.loads(file.metadata()["run"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    del run["config"]["repeats"]  # as if saved before the library had it
    save_file(tensors, tmp_path / STATE, {"run": json.dumps(run)})
    metatrain(replace(TINY, save_every=7), tmp_path, device="cpu")
    assert len(losses(tmp_path)) == TINY.steps


def test_settings_left_beside_the_state_start_the_same_run(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0, device="cpu")
    assert MetaTrainConfig.from_dict(json.loads((tmp_path / SETTINGS).read_text())) == TINY


def test_other_data_under_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    text = tmp_path / "texts" / "train.txt"
    text.write_text("the quick brown fox " * 500)
    config = replace(TINY, images="", text=str(tmp_path / "texts"))
    metatrain(config, tmp_path / "run", max_seconds=0, device="cpu")
    text.write_text("jumps over the lazy dog " * 500)
    with pytest.raises(ConfigError, match="on other data than the text of now"):
        metatrain(config, tmp_path / "run", device="cpu")


def test_more_processes_than_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_accelerator", lambda *_: SimpleNamespace(num_processes=3))
    with pytest.raises(ConfigError, match=r"3 processes share targets_per_step=2"):
        metatrain(replace(TINY, targets_per_step=2), tmp_path)


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.safetensors.12345.part").write_text("half")
    (tmp_path / GRAPHS).mkdir()
    (tmp_path / GRAPHS / ".a.json.gz.12345.part").write_text("half")
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / ".model.safetensors.12345.part").write_text("half")
    metatrain(TINY, tmp_path, max_seconds=0, device="cpu")
    assert not list(tmp_path.rglob(".*.part"))


def test_data_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds text"):
        metatrain(replace(TINY, images="python-stdlib"), tmp_path, device="cpu")


def test_unknown_devices_and_trackers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 'auto' or 'cpu'"):
        metatrain(TINY, tmp_path, device="tpu")
    with pytest.raises(ConfigError, match="tracker"):
        metatrain(TINY, tmp_path, device="cpu", trackers=("no-such-tracker",))


def test_tensorboard_shows_the_rows_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metatrain(TINY, tmp_path, device="cpu", trackers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "ghn")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path), rel=1e-6)


def test_trust_is_learned_more_slowly_than_directions(tmp_path: Path) -> None:
    """In its first step AdamW moves every number by its learning rate."""
    learner = loop._learner(TINY, torch.device("cpu"))
    order = [id(parameter) for group in learner.optimizer.param_groups for parameter in group["params"]]
    # As the state file numbers them.
    assert order == [id(parameter) for parameter in learner.net.parameters()]
    before = dict(learner.net.named_parameters())
    metatrain(replace(TINY, steps=1, clip_norm=1e6), tmp_path / "run")
    with safe_open(tmp_path / "run" / STATE, "pt") as state:
        after = {name: state.get_tensor(f"net/{name}") for name in before}
    moved = {name: (after[name] - values).abs().max().item() for name, values in before.items()}
    slow = {name for name in moved if name.startswith("decoder.statistics.")}
    assert max(moved[name] for name in slow) == pytest.approx(TINY.trust_pace * TINY.lr, rel=0.1)
    assert max(moved[name] for name in moved.keys() - slow) == pytest.approx(TINY.lr, rel=0.1)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("step0", [2.5509, 2.6923, 2.776]),
        ("trajectory", [2.943, 2.9735, 3.0982]),
        ("regression", [6.4337e-4, 1.5252e-3, 3.0597e-3]),
    ],
)
def test_golden_losses(tmp_path: Path, objective: str, expected: list[float]) -> None:
    """A short run on digits has the losses that it had when this was written; change them knowingly."""
    metatrain(replace(TINY, objective=objective, targets_per_step=2, inner_batch_size=32), tmp_path)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-3)
