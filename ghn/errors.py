"""Every mistake a user can make has a class here; the command line turns them into one line and exit code 2."""

import difflib
from collections.abc import Collection, Iterable


class GhnError(Exception):
    """Base of all errors that tell the user what was found, what was expected and what to do next."""


class TraceError(GhnError):
    """A model could not be traced: bad example inputs, or an operation that needs real values."""


class ModelError(GhnError):
    """A model specification names nothing, or its arguments don't fit."""


class ShapeError(GhnError):
    """Tensors or specifications disagree on a shape."""


class ConfigError(GhnError):
    """A configuration value is out of range, unknown, or from a newer version."""


class CheckpointError(GhnError):
    """A checkpoint is missing, corrupted, of another kind, or refused because it is a pickle."""


class CheckpointConfigError(CheckpointError, ConfigError):
    """The configuration inside of a checkpoint is invalid, or from a newer version: an error of both kinds."""


class PredictionError(GhnError):
    """Predicted weights can't be used: not finite, or there is nothing to predict."""


class DataError(GhnError):
    """A data set is missing, empty, or has the wrong columns or number of classes."""


class OutputError(GhnError):
    """A result can't be written where it was asked for."""


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """Suggest close names, as a sentence to append to an error message (empty if nothing is close)."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def one_line(error: Exception, limit: int = 300) -> str:
    """Text of an error, or its kind if it has none, to end a message of ours with."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit].rstrip(".")


def check_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check that settings exist.

    Raises:
        ConfigError: If one doesn't; suggests another.
    """
    for key in given:
        if key not in known:
            raise ConfigError(f"{what} has no setting {key!r}.{did_you_mean(key, known)}")


def check_type(name: str, value: object, default: object) -> None:
    """Check that a setting has the type of its default; tuples hold any number of such entries, None says nothing.

    Raises:
        ConfigError: If it hasn't.
    """
    if default is None:
        return
    if not _is_like(value, default):
        raise ConfigError(f"{name} is {value!r}; expected {type(default).__name__}, such as {default!r}")


def _is_like(value: object, default: object) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple):
        # An empty list says nothing of its entries.
        return isinstance(value, tuple) and all(not default or _is_like(entry, default[0]) for entry in value)
    return isinstance(value, type(default))
