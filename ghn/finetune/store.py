"""The output folder: each run is saved when it ends, so that an interrupted comparison can go on."""

import itertools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ghn.errors import ConfigError, OutputError
from ghn.files import sweep, write_whole
from ghn.finetune.config import CompareConfig
from ghn.finetune.results import SCHEMA, Run

Key = tuple[str, int, float]
"""Arm, seed and learning rate of a run."""

_CONFIG = "config.json"
_RUNS = "runs"


class Store:
    """A folder for one comparison.

    Args:
        path: The folder, which exists and can be written.
        started: When the comparison was first started, in ISO 8601.
    """

    def __init__(self, path: Path, started: str) -> None:
        self.path = path
        self.started = started

    @classmethod
    def open(cls, config: CompareConfig, label: str, checkpoint: str = "") -> "Store":
        """Make or check the folder.

        Args:
            config: With the folder's path, and whether to continue what is in it.
            label: Names a new folder in ``runs`` if the configuration has no path.
            checkpoint: Fingerprint of the hypernetwork, if an arm needs one.

        Raises:
            OutputError: If it can't be written, or holds something else.
            ConfigError: If it holds a comparison with another configuration or hypernetwork.
        """
        path = _new_folder(label) if config.output_dir is None else Path(config.output_dir).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
            content = {child.name for child in path.iterdir() if child.suffix != ".part"}
            probe = path / ".write-test.part"  # a name that is no content, should this process end here
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"can't write to the output folder {str(path)!r} ({error.strerror}); pass another --output-dir"
            ) from error
        if content and _CONFIG not in content:
            raise OutputError(
                f"the output folder {str(path)!r} is not empty and holds no comparison; pass another --output-dir"
            )
        if _CONFIG in content:
            store = cls(path, _continue(path, config, checkpoint))
        else:
            store = cls(path, datetime.now(UTC).isoformat(timespec="seconds"))
            known = {"config": config.identity(), "checkpoint": checkpoint}
            store.write_json(_CONFIG, {"schema": SCHEMA, "started": store.started, **known})
        (path / _RUNS).mkdir(exist_ok=True)
        for place in (path, path / _RUNS):
            sweep(place)
        return store

    def save(self, run: Run) -> None:
        """Keep a finished run."""
        self.write_json(f"{_RUNS}/{run.init}-seed{run.seed}-lr{run.lr!r}.json", run.to_dict())

    def finished(self) -> dict[Key, Run]:
        """See ``finished_runs``."""
        return finished_runs(self.path)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a file that is complete or not there."""
        self.write(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file that is complete or not there."""
        remedy = f"finished runs are kept: make room, then pass --resume --output-dir {self.path}"
        write_whole(self.path / name, content, remedy)


def finished_runs(folder: Path) -> dict[Key, Run]:
    """Runs that a comparison's folder holds.

    Raises:
        OutputError: If a file was damaged.
    """
    found = {}
    for path in sorted((folder / _RUNS).glob("*.json")):
        try:
            run = Run.from_dict(json.loads(path.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(f"{path} is damaged ({error}); delete it, and its run is done again") from error
        found[run.init, run.seed, run.lr] = run
    return found


def _continue(path: Path, config: CompareConfig, checkpoint: str) -> str:
    if not config.resume:
        raise OutputError(
            f"the output folder {str(path)!r} holds a comparison already; pass --resume to continue it, or another "
            "--output-dir"
        )
    try:
        stored = json.loads((path / _CONFIG).read_text())
        before, started = dict(stored["config"]), str(stored["started"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path / _CONFIG} is damaged ({error}); pass another --output-dir") from error
    if checkpoint and stored.get("checkpoint", "") not in ("", checkpoint):
        raise ConfigError(
            f"can't resume {str(path)!r}: --checkpoint has been trained or replaced since; pass the one of before, or "
            "another --output-dir"
        )
    now, default = (json.loads(json.dumps(one.identity())) for one in (config, CompareConfig()))
    before = default | before  # settings that have been added to the library since
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        more = f" (changed too: {', '.join(changed[1:])})" if changed[1:] else ""
        raise ConfigError(
            f"can't resume {str(path)!r}: --{name.replace('_', '-')} was {json.dumps(before.get(name))}, now it is "
            f"{json.dumps(now.get(name))}{more}; repeat the first command with --resume, or pass another --output-dir"
        )
    return started


def _new_folder(label: str) -> Path:
    slug = re.sub(r"[^\w.-]+", "-", label).strip("-.") or "comparison"
    names = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())
