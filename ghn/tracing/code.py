"""What a forward pass of some classes can reach by name, so that a change anywhere in its code is noticed."""

import functools
from collections.abc import Callable, Iterable, Iterator
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

ATOMS = (bool, int, float, complex, str, bytes, type(None))

LIBRARIES = frozenset({"torch", "torchvision", "numpy", "builtins", "einops"})
"""Packages whose functions are compared but not entered."""

ENTRIES = frozenset({"forward", "train"})
"""Methods that a trace calls; from there on, only what is mentioned is entered (and ``__special__`` methods)."""

MAX_TABLE = 256
"""Entries of a global dictionary or list up to which they are compared one by one; beyond, their number is."""

MAX_SETS = 64


class Same:
    """Compares by identity and keeps its object alive, so that the identity stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class Code:
    """Methods of some classes and whatever these name, directly or through other functions, in their present state."""

    def __init__(self, classes: Iterable[Any]) -> None:
        self._slots: list[tuple[Any, str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._tables: list[tuple[Any, Any]] = []
        self._classes: list[Any] = []
        self._attributes: dict[Any, dict[str, Any]] = {}
        self._mentions = set(ENTRIES)
        self._values: dict[int, Any] = {}
        pending = list(classes)
        while pending:
            while pending:
                value = pending.pop()
                if id(value) not in self._values:
                    self._values[id(value)] = value
                    pending += self._reach(value)
            pending = [value for value in self._methods() if id(value) not in self._values]

    def is_unchanged(self) -> bool:
        """Whether every name still means what it did."""
        return (
            all(names.get(name, _MISSING) is value for names, name, value in self._slots)
            and all(_size(kind) == size for kind, size in self._classes)
            and all(_content(cell) is value for cell, value in self._cells)
            and all(_freeze(table) == value for table, value in self._tables)
        )

    @functools.cached_property
    def holders(self) -> list[Any]:
        """Values that the code names and that may hold others: containers, objects, caches, functions' defaults."""
        plain = (
            *(ATOMS, type, ModuleType, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType),
            *(GetSetDescriptorType, MemberDescriptorType, property, classmethod, staticmethod),
        )
        return [
            value
            for value in self._values.values()
            if value is not _MISSING
            and not (_keeps_nothing(value) if isinstance(value, FunctionType) else isinstance(value, plain))
        ]

    def restore(self, unwanted: Callable[[Any], bool]) -> None:
        """Give globals, attributes of classes and closures back what they were, where they have become unwanted."""
        for names, name, former in self._slots:
            if isinstance(names, dict) and names.get(name, _MISSING) is not former and unwanted(names[name]):
                if former is _MISSING:
                    del names[name]
                else:
                    names[name] = former
        for kind, attributes in self._attributes.items():
            for name, value in list(vars(kind).items()):
                former = attributes.get(name, _MISSING)
                if value is not former and name not in _BOOKKEEPING and unwanted(value):
                    if former is _MISSING:
                        delattr(kind, name)
                    else:
                        setattr(kind, name, former)
        for cell, former in self._cells:
            if _content(cell) is not former and unwanted(_content(cell)):
                if former is _MISSING:
                    del cell.cell_contents
                else:
                    cell.cell_contents = former

    def _methods(self) -> Iterator[Any]:
        for kind, _ in self._classes:
            if not _is_library(kind):
                for name, value in vars(kind).items():
                    if name in self._mentions or (name.startswith("__") and isinstance(value, FunctionType)):
                        yield value

    def _reach(self, value: Any) -> Iterator[Any]:
        """Note what a value is, and give what can be reached from it."""
        if isinstance(value, type):
            yield from value.__mro__[1:]
            if value is not object:
                names = vars(value)
                self._classes.append((value, _size(value)))
                if not _is_library(value):
                    self._attributes[value] = dict(names)
                self._slots += [
                    (names, name, entry) for name, entry in names.items() if name not in _BOOKKEEPING
                ]
        elif isinstance(value, property):
            yield from filter(None, (value.fget, value.fset))
        elif isinstance(value, staticmethod | classmethod | MethodType):
            yield value.__func__
        elif isinstance(value, functools.cached_property | functools.partial):
            yield value.func
        elif isinstance(value, functools._lru_cache_wrapper):
            yield value.__wrapped__
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, dict | list | set):
            self._tables.append((value, _freeze(value)))

    def _function(self, function: FunctionType) -> Iterator[Any]:
        yield from filter(None, [getattr(function, "__wrapped__", None)])
        for cell in function.__closure__ or ():
            self._cells.append((cell, _content(cell)))
            yield _content(cell)
        if _is_library(function):
            return
        attributes = _Attributes(function)
        self._slots += [(attributes, name, getattr(function, name)) for name in ("__code__", "__defaults__")]
        names = set(_names(function.__code__))
        self._mentions |= names
        for name in names:
            value = function.__globals__.get(name, _MISSING)
            self._slots.append((function.__globals__, name, value))
            yield value
            if isinstance(
                value, ModuleType
            ):  # its functions and flags are named as module.function, module.flag
                space = vars(value)
                for inner in names & space.keys():
                    self._slots.append((space, inner, space[inner]))
                    yield space[inner]


class _Attributes:
    """An object's attributes, read as a mapping's entries are."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def get(self, name: str, default: Any) -> Any:
        return getattr(self._value, name, default)


_MISSING = object()
"""What a name means that isn't global (a builtin, an attribute)."""


_BOOKKEEPING = frozenset({"__slotnames__", "_abc_impl", "__abstractmethods__"})
"""What Python itself writes into a class later: ``copy`` notes slots, for one."""


def _size(kind: Any) -> int:
    return len(vars(kind).keys() - _BOOKKEEPING)


def _keeps_nothing(function: FunctionType) -> bool:
    """Whether a function has neither defaults nor attributes; those it gets later were not there before."""
    state = function.__defaults__ or function.__kwdefaults__ or vars(function)
    return not state or _is_library(function)


def _is_library(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] in LIBRARIES


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function and the functions inside it; strings too, for ``getattr``."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names(constant)


def _freeze(table: Any) -> Any:
    if len(table) > MAX_TABLE:
        return len(table)
    entries = [entry for pair in table.items() for entry in pair] if isinstance(table, dict) else list(table)
    keys = [(type(entry), entry) if isinstance(entry, ATOMS) else Same(entry) for entry in entries]
    return frozenset(keys) if isinstance(table, set) else keys


_codes: dict[frozenset[Any], Code] = {}


def code_of(classes: frozenset[Any]) -> Code:
    """The code of some classes; the same object as before as long as nothing changed."""
    code = _codes.get(classes)
    if code is None or not code.is_unchanged():
        if len(_codes) >= MAX_SETS:
            _codes.clear()
        code = _codes[classes] = Code(classes)
    return code
