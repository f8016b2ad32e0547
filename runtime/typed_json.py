"""Frozen dataclasses from parsed JSON, each value checked against the type of its field; and plain values for JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from sfpp.runtime.errors import ContractError, SfppError, UsageError, did_you_mean

_T = TypeVar("_T")

# JSON can write halves of surrogate pairs, which UTF-8 cannot: OpenCV crashes on them and protobuf raises. A NUL ends
# the text early in whatever is written in C.
_NO_TEXT = re.compile("[\ud800-\udfff]|\0")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_LONGEST_NAME = 256
_SHOWN = 40  # characters


def dataclass_from_json(cls: type[_T], fields: Any, *, where: str) -> _T:
    """Make the dataclass ``cls`` from a JSON object; fields that it does not have are ignored.

    Args:
        cls: a dataclass whose fields are numbers, strings, literals, tuples, dictionaries or dataclasses, or None.
        fields: what the JSON parser gave.
        where: begins the message of every error.

    Raises:
        ContractError: not an object, a missing field, or a value of the wrong type.
    """
    if not isinstance(fields, Mapping):
        raise ContractError(f"{where} must be a JSON object, not {_shown(fields)}")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, cls)):
        if field.name in fields:
            values[field.name] = _typed(fields[field.name], hints[field.name], f"{where}: {field.name}")
        elif field.default is dataclasses.MISSING:
            raise ContractError(f"{where} lacks the field {field.name!r}; export the model again")
    return cls(**values)


def text_from_file(path: Path, *, where: str, raising: type[SfppError]) -> str:
    """Return the text in a file.

    Args:
        path: the file, in UTF-8 with or without a mark at its beginning.
        where: begins the message of every error.
        raising: the errors' type.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise raising(f"{where} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # what is not UTF-8 is one, and a name that holds a NUL
        raise raising(f"{where} cannot be read as UTF-8 text: {error}") from error


def json_from_file(path: Path, *, where: str, raising: type[SfppError], **parsing: Any) -> Any:
    """Return what a JSON file holds; takes and raises what :func:`text_from_file` and :func:`json_from_text` do."""
    text = text_from_file(path, where=where, raising=raising)
    return json_from_text(text, where=where, raising=raising, **parsing)


def json_from_text(text: str, *, where: str, raising: type[SfppError], advice: str = "", **parsing: Any) -> Any:
    """Return what a text of JSON says, whoever wrote it.

    Args:
        text: the text.
        where: begins the message of every error.
        raising: the errors' type.
        advice: ends the message.
        parsing: for ``json.loads``.
    """
    try:
        return json.loads(text, **parsing)
    # Python reads no integer of more than 4300 digits, and nothing that nests by the thousand.
    except (ValueError, RecursionError, MemoryError) as error:
        raise raising(f"{where} is not valid JSON: {error}{'; ' * bool(advice)}{advice}") from error


def file_named(text: str, known: Iterable[str], *, what: str, file: str) -> Path:
    """Return the file that a user names where one of some known words could stand.

    Args:
        text: the name.
        known: the words, none of which it is.
        what: they are names of.
        file: what such a file is called.

    Raises:
        UsageError: there is no such file; where it looks like a word, the closest one is suggested.
    """
    path = Path(text)
    if os.path.isfile(text):  # noqa: PTH113 - Path's raises where a name is too long, as that of a file written out
        return path
    if path.suffix[1:].isalnum() or path.parent != Path():
        problem = "is a folder; give a file in it" if os.path.isdir(text) else "does not exist"  # noqa: PTH112
        raise UsageError(f"the {file} {path} {problem}")
    words = tuple(known)
    raise UsageError(
        f"unknown {what} {text!r}{did_you_mean(text, words)}; expected one of {', '.join(words)}, or a {file}"
    )


def json_ready(value: Any) -> Any:
    """Return dataclasses, dictionaries and sequences as JSON takes them, all the way down.

    A number that is not finite becomes None, a path its text; arrays, which belong into pictures and files, are left
    out of dataclasses and are None elsewhere.
    """
    if isinstance(value, np.ndarray):
        return None
    if dataclasses.is_dataclass(value):
        fields = ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
        return {name: json_ready(each) for name, each in fields if not isinstance(each, np.ndarray)}
    if isinstance(value, dict):
        return {str(key): json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def text_fault(value: Any) -> str | None:
    """Say which text within ``value`` no library can be given, with what is wrong; None if all can be.

    Args:
        value: a text; or dictionaries, lists, tuples and dataclasses of texts, all the way down.
    """
    pending = [value]  # and no recursion: JSON nests deeper than Python calls
    while pending:
        each = pending.pop()
        if isinstance(each, str) and (found := _NO_TEXT.search(each)):
            what = "a NUL character" if found.group() == "\0" else "half of a surrogate pair, which is no character"
            return f"{each[max(0, found.start() - _SHOWN) :][: 2 * _SHOWN]!r} holds {what}"
        if isinstance(each, Mapping):
            pending += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            pending += each
        elif dataclasses.is_dataclass(each):
            pending += vars(each).values()
    return None


def name_fault(name: str) -> str | None:
    """Say why a text is no name of a class, a keypoint or a tensor; None if it can be one.

    Names stand in legends, tables and terminals, so that none may hold control characters or be endless.
    """
    if len(name) > _LONGEST_NAME:
        return f"{name[:_SHOWN]!r}... has {len(name)} characters, and a name has {_LONGEST_NAME} at most"
    if (fault := text_fault(name)) is not None:
        return fault
    return f"{name!r} holds a control character" if _CONTROL.search(name) else None


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the type ``hint`` or raise; lists become tuples, since JSON has no tuples."""
    if dataclasses.is_dataclass(hint):
        return dataclass_from_json(cast(type[Any], hint), value, where=where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):  # the only ones here are "... | None"; of a Literal, that is the latter
        (present,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _typed(value, present, where)
    if origin is Literal:
        if value not in arguments:
            raise ContractError(f"{where} is {_shown(value)}, expected one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _typed_tuple(value, arguments, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ContractError(f"{where} is {_shown(value)}, expected a JSON object")
        return _with_texts(value, where)
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ContractError(f"{where} is {_shown(value)}, expected {hint.__name__}")
    if hint is not float:
        return _with_texts(value, where)
    try:
        return float(value)
    except OverflowError as error:  # JSON has integers of any length
        raise ContractError(f"{where} is too large to be a number of this model") from error


def _shown(value: Any) -> str:
    """Return a value's repr, or its beginning: an error is a line, whatever the file holds."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a deep {type(value).__name__}"
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}..."


def _with_texts(value: _T, where: str) -> _T:
    if (fault := text_fault(value)) is not None:
        raise ContractError(f"{where}: {fault}; write the text anew")
    return value


def _typed_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ContractError(f"{where} is {_shown(value)}, expected a list")
    if arguments[-1] is Ellipsis:
        return tuple(_typed(item, arguments[0], where) for item in value)
    if len(value) != len(arguments):
        raise ContractError(f"{where} has {len(value)} values, expected {len(arguments)}")
    return tuple(_typed(item, hint, where) for item, hint in zip(value, arguments, strict=True))
