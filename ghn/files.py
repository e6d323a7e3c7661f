"""Files and folders that are complete or not there."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from ghn.errors import OutputError


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """Hand out a name beside ``path``: what is written there takes its place at the end, on disk, or nothing does.

    Of several processes that write the same file the last one wins; none sees another's half.

    Args:
        path: The file or folder to be.
        remedy: What to do about an error, as the end of its message.

    Raises:
        OutputError: If it can't be written.
    """
    part = part_of(path.absolute())
    try:
        yield part
        for child in (part, *part.rglob("*")):
            if child.is_file():
                with child.open("rb+") as file:
                    os.fsync(file.fileno())
        _put(part, path)
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OutputError(f"can't write {str(path)!r} ({reason}); {remedy}") from error
    finally:
        _remove(part)


def write_whole(path: Path, content: str | bytes, remedy: str) -> None:
    """Write a file that is complete or not there; see ``replacing``."""
    with replacing(path, remedy) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def part_of(path: Path) -> Path:
    """Where this process writes a file before it takes its place."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def sweep(folder: Path) -> None:
    """Remove what a process that was killed left of a file in a folder; no other may be writing there."""
    for part in folder.glob(".*.part"):
        _remove(part)


def sweep_beside(path: Path) -> None:
    """Remove what killed processes of this machine left beside a file or folder that they were writing.

    What a process that runs is writing stays. Where processes can't be asked for, all stays.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        process, _, kind = left.name[len(path.name) + 2 :].partition(".")
        if kind in ("part", "old") and process.isdecimal() and _is_gone(int(process)):
            _remove(left)


def _is_gone(process: int) -> bool:
    if os.name != "posix":  # elsewhere asking ends it
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _put(part: Path, path: Path) -> None:
    if not part.is_dir() or not path.is_dir():
        part.replace(path)
        return
    # A folder can't be replaced in one step everywhere: move the old one aside, and back if the new one won't come.
    old = part.with_suffix(".old")
    path.replace(old)
    try:
        part.replace(path)
    except OSError:
        old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
