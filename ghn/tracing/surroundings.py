"""What a forward pass leaves outside of the model's copy, in caches, globals and closures, is taken back."""

import functools
import gc
import sys
import weakref
from collections import deque
from collections.abc import Iterator, MutableMapping
from types import CellType, FunctionType
from typing import Any

from torch import Tensor, nn

from ghn.tracing.code import LIBRARIES, code_of
from ghn.tracing.inputs import LEAVES, slots_of, tensors_in

MAX_TABLE = 4096
"""Entries of a table beyond which it is no cache that is worth a copy."""

NO_HOLDERS = LIBRARIES | sys.stdlib_module_names - {"types", "_thread"}
"""Packages whose objects (loggers, say) keep no tensors; namespaces and what belongs to a thread may."""

TABLES = (dict, list, set, deque)

MAX_DEPTH = 4
"""Containers inside of containers that are looked at."""

MAX_STEPS = 4
"""Tuples inside of tuples, around a tensor that nothing else found."""

_MISSING: Any = object()

References = list[weakref.ref[Tensor]]
"""References to the tensors of a run, of which none should live on."""


class Surroundings:
    """Everything that a model's code can reach by name, as it was before a run."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._modules = [(vars(module), dict(vars(module))) for module in modules]
        self._tables: dict[int, tuple[Any, Any]] = {}
        self._caches: dict[int, tuple[Any, int]] = {}
        for attributes, _ in self._modules:
            for value in attributes.values():
                if type(value) in TABLES and value:
                    self._note(value, MAX_DEPTH)
        self._code = code_of(frozenset(map(type, modules)))
        for value in self._code.holders:
            self._note(value, MAX_DEPTH)

    def restore(self, references: References) -> None:
        """Put back what the run changed.

        The model's own modules become what they were. Elsewhere only what holds a tensor of the run is put back:
        imports, registries and counters are nobody's garbage.
        """
        for attributes, former in self._modules:
            if attributes.keys() != former.keys() or any(
                attributes[key] is not former[key] for key in former
            ):
                attributes.clear()
                attributes.update(former)
        if not _alive(references):
            return
        leaks = {id(tensor) for tensor in _alive(references)}
        for cache, misses in self._caches.values():
            if cache.cache_info().misses != misses:
                cache.cache_clear()
        self._code.restore(lambda value: any(id(tensor) in leaks for tensor in tensors_in(value)))
        for table, former in self._tables.values():
            _restore_table(table, former, leaks)
        if _alive(references):
            gc.collect()
        if _alive(references):
            _remove_from_holders(references)

    def _note(self, value: Any, depth: int) -> None:
        """Remember a value's entries, and those of the containers in it."""
        if isinstance(value, functools._lru_cache_wrapper):
            self._caches[id(value)] = (value, value.cache_info().misses)
        elif isinstance(value, FunctionType):
            for entry in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                self._note(entry, depth)
            if vars(value):
                self._note_table(vars(value), depth)
        elif isinstance(value, tuple):
            for entry in value:
                self._note(entry, depth)
        elif depth and not isinstance(value, (*LEAVES, Tensor)):
            if isinstance(value, TABLES):
                self._note_table(value, depth)
            if isinstance(getattr(value, "__dict__", None), dict) and not _is_library(type(value)):
                self._note_table(vars(value), depth)
            slots = _Slots(value)
            if len(slots):
                self._note_table(slots, depth)

    def _note_table(self, table: Any, depth: int) -> None:
        if id(table) in self._tables or len(table) > MAX_TABLE:
            return
        former = _entries(table)
        self._tables[id(table)] = (table, former)
        for entry in former.values() if isinstance(former, dict) else former:
            if not isinstance(entry, (*LEAVES, Tensor)):
                self._note(entry, depth - 1)


def _entries(table: Any) -> Any:
    """A table's entries, past what a subclass may do when it is asked (transformers' registries import modules)."""
    if isinstance(table, dict):
        return dict(dict.items(table))
    return dict(table) if isinstance(table, MutableMapping) else list(table)


class _Slots(MutableMapping[str, Any]):
    """The slots of an object, as a table."""

    def __init__(self, value: Any) -> None:
        kind: Any = type(value)
        self._value, self._names = value, slots_of(kind)

    def __getitem__(self, name: str) -> Any:
        return getattr(self._value, name)

    def __setitem__(self, name: str, entry: Any) -> None:
        object.__setattr__(self._value, name, entry)

    def __delitem__(self, name: str) -> None:
        object.__delattr__(self._value, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if hasattr(self._value, name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _restore_table(table: Any, former: Any, leaks: set[int]) -> None:
    if not isinstance(table, MutableMapping):
        ids = {id(entry) for entry in former}
        if any(_holds(entry, leaks) for entry in table if id(entry) not in ids):
            table.clear()
            (table.update if isinstance(table, set) else table.extend)(former)
        return
    for key, new in _entries(table).items():
        old = former.get(key, _MISSING)
        if old is not new and (_holds(new, leaks) or _holds(key, leaks)):
            if old is _MISSING:
                del table[key]
            else:
                table[key] = old


def _remove_from_holders(references: References) -> None:
    """Remove tensors that live on from whatever the garbage collector says holds them, alone or in a tuple."""
    values: list[Any] = list(_alive(references))
    for _ in range(MAX_STEPS):
        holders = [holder for holder in gc.get_referrers(*values) if holder is not values]
        inner = {id(value) for value in values}
        for holder in holders:
            _remove(holder, inner)
        values = [holder for holder in holders if type(holder) is tuple]
        if not values:
            return


def _remove(holder: Any, inner: set[int]) -> None:
    """Remove some objects from one that holds them."""
    if isinstance(holder, functools._lru_cache_wrapper):
        holder.cache_clear()
    elif isinstance(holder, dict):
        for key in [key for key, value in holder.items() if id(value) in inner or id(key) in inner]:
            del holder[key]
    elif isinstance(holder, set):
        holder -= {value for value in holder if id(value) in inner}
    elif isinstance(holder, list | deque):
        others = [value for value in holder if id(value) not in inner]
        holder.clear()
        holder.extend(others)
    elif isinstance(holder, CellType):
        holder.cell_contents = None
    else:
        names = vars(holder) if isinstance(getattr(holder, "__dict__", None), dict) else {}
        for key in (*names, *_Slots(holder)):
            if id(getattr(holder, key, None)) in inner:
                object.__setattr__(holder, key, None)


def _alive(references: References) -> list[Tensor]:
    return [tensor for reference in references if (tensor := reference()) is not None]


def _holds(value: Any, leaks: set[int]) -> bool:
    """Whether a value is or contains a tensor of the run."""
    return any(id(tensor) in leaks for tensor in tensors_in(value))


def _is_library(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] in NO_HOLDERS
