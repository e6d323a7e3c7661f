"""Files that are complete or not there."""

import os
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
        path: The file to be.
        remedy: What to do about an error, as the end of its message.

    Raises:
        OutputError: If it can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OutputError(f"can't write {str(path)!r} ({reason}); {remedy}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, remedy: str) -> None:
    """Write a file that is complete or not there; see ``replacing``."""
    with replacing(path, remedy) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
