"""Folders of runs: each run is saved when it ends, so that an interrupted comparison or evaluation can go on."""

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
from ghn.finetune.run import Run

Key = tuple[str, int, float]
"""Arm, seed and learning rate of a run."""

SCHEMA = 1
"""Version of ``results.json`` and ``config.json``; keys may be added without a new one."""

_CONFIG = "config.json"
_RUNS = "runs"


class RunFolder:
    """A folder with a file for each finished run and for what all of them have in common.

    A comparison is one. An evaluation is one with others in it: for each case, and there for each arm.

    Args:
        path: The folder.
        after_error: What to do where a file can't be written, as the end of a message.
    """

    def __init__(self, path: Path, after_error: str = "finished runs are kept") -> None:
        self.path = path
        self._after_error = after_error

    def read(self, name: str, after_damage: str) -> dict[str, Any]:
        """An object in a JSON file; empty if there is no such file.

        Raises:
            OutputError: If the file is damaged, with ``after_damage`` as what to do.
        """
        path = self.path / name
        try:
            return dict(json.loads(path.read_text())) if path.exists() else {}
        except (ValueError, TypeError) as error:
            raise OutputError(f"{path} is damaged ({error}); {after_damage}") from error

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a file that is complete or not there."""
        self.write(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file that is complete or not there."""
        write_whole(self.path / name, content, self._after_error)

    def save(self, run: Run) -> None:
        """Keep a finished run."""
        self.write_json(f"{_RUNS}/{run.init}-seed{run.seed}-lr{run.lr!r}.json", run.to_dict())

    def finished(self) -> dict[Key, Run]:
        """Runs that are kept.

        Raises:
            OutputError: If a file was damaged.
        """
        runs = {}
        for path in sorted((self.path / _RUNS).glob("*.json")):
            try:
                run = Run.from_dict(json.loads(path.read_text()))
            except (ValueError, TypeError, KeyError) as error:
                raise OutputError(
                    f"{path} is damaged ({error}); delete it, and its run is done again"
                ) from error
            runs[run.init, run.seed, run.lr] = run
        return runs


class ComparisonFolder(RunFolder):
    """The folder of runs with one configuration.

    Args:
        config: With the folder's path, and whether to continue what is in it.
        label: Names a new folder in ``runs`` if the configuration has no path.
        checkpoint: Fingerprint of the hypernetwork, if an arm needs one.

    Raises:
        OutputError: If it can't be written, or holds something else.
        ConfigError: If it holds runs with another configuration or hypernetwork.
    """

    started: str
    """When the first command ran here, in ISO 8601."""

    def __init__(self, config: CompareConfig, label: str, checkpoint: str = "") -> None:
        path = _new_folder(label) if config.output_dir is None else Path(config.output_dir).expanduser()
        super().__init__(path, f"finished runs are kept: make room, then pass --resume --output-dir {path}")
        content = _checked_content(path)
        if content and _CONFIG not in content:
            raise OutputError(
                f"the output folder {str(path)!r} is not empty and holds no comparison; pass another --output-dir"
            )
        if content:
            self.started = self._continue(config, checkpoint)
        else:
            self.started = datetime.now(UTC).isoformat(timespec="seconds")
            identity = {"config": config.identity(), "checkpoint": checkpoint}
            self.write_json(_CONFIG, {"schema": SCHEMA, "started": self.started, **identity})
        (path / _RUNS).mkdir(exist_ok=True)
        for place in (path, path / _RUNS):
            sweep(place)

    def _continue(self, config: CompareConfig, checkpoint: str) -> str:
        if not config.resume:
            raise OutputError(
                f"the output folder {str(self.path)!r} holds a comparison already; pass --resume to continue it, or "
                "another --output-dir"
            )
        record = self.read(_CONFIG, "pass another --output-dir")
        try:
            before, started = dict(record["config"]), str(record["started"])
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"{self.path / _CONFIG} is damaged ({error}); pass another --output-dir"
            ) from error
        if checkpoint and record.get("checkpoint", "") not in ("", checkpoint):
            raise ConfigError(
                f"can't resume {str(self.path)!r}: --checkpoint has been trained or replaced since; pass the one of "
                "before, or another --output-dir"
            )
        now, default = (json.loads(json.dumps(one.identity())) for one in (config, CompareConfig()))
        before = default | before  # settings that have been added to the library since
        changes = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changes:
            name = changes[0]
            more = f" (changed too: {', '.join(changes[1:])})" if changes[1:] else ""
            raise ConfigError(
                f"can't resume {str(self.path)!r}: --{name.replace('_', '-')} was {json.dumps(before.get(name))}, now "
                f"it is {json.dumps(now.get(name))}{more}; repeat the first command with --resume, or pass another "
                "--output-dir"
            )
        return started


def _checked_content(path: Path) -> set[str]:
    """Make a folder that is not there yet; what is in it, but for files that a killed process left half written."""
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
    return content


def _new_folder(label: str) -> Path:
    slug = re.sub(r"[^\w.-]+", "-", label).strip("-.") or "comparison"
    names = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())
