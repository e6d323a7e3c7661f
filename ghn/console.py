"""How commands and scripts end: one line that helps on stderr and an exit code, not a traceback for a mistake."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ghn.errors import GhnError

USER_ERROR = 2
"""Exit code of a mistake that the user can mend; argument parsers end with it too."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

_CPU_MEMORY = re.compile(r"DefaultCPUAllocator|can't allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Wrap the body of a ``main``: what the user can mend becomes one line on stderr and exit code 2.

    Errors of ``ghn.errors`` and running out of memory (of a GPU or the machine) are such; Ctrl-C exits with 130. All
    other exceptions are bugs and keep their traceback.

    Raises:
        SystemExit: In place of those exceptions.
    """
    try:
        yield
    except GhnError as error:
        _exit(str(error), USER_ERROR, error)
    except KeyboardInterrupt as error:
        _exit("interrupted", INTERRUPTED, error)
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        where = _exhausted_memory(error)
        if where is None:
            raise
        _exit(
            f"out of {where} memory: choose a smaller model, --batch-size, --image-size or --sequence-length, "
            "a --dtype or --precision of 16 bits, or another --device, as far as the command has them",
            USER_ERROR,
            error,
        )


def _exhausted_memory(error: Exception) -> str | None:
    torch = sys.modules.get("torch")  # whoever raised its error has imported it; we must stay quick
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    if isinstance(error, MemoryError) or _CPU_MEMORY.search(str(error)):
        return "main"
    return None


def _exit(message: str, code: int, error: BaseException) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code) from error
