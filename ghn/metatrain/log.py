"""``log.jsonl``: a row for every update, and one for every validation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghn.errors import OutputError
from ghn.files import write_whole

LOG = "log.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, without one that a kill has left half-written; none if there is no log."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def append(path: Path, rows: Sequence[Mapping[str, Any]], remedy: str) -> None:
    """Add rows.

    Raises:
        OutputError: If they can't be written.
    """
    try:
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OutputError(f"can't write {str(path)!r} ({error.strerror}); {remedy}") from error


def truncate(path: Path, done: int) -> None:
    """Drop the rows of what the saved state doesn't include.

    Raises:
        OutputError: If the log can't be written.
    """
    rows = [row for row in read(path) if row["update"] <= done]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows), "free some space")
