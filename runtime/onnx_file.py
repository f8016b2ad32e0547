"""The metadata of an ONNX file, read without any library and without its weights.

The contract in it says which library can run the file, so it must be known before a library is asked to open it. An
ONNX file is one protocol buffer message, ``ModelProto``: a sequence of fields, each with its number and its length, so
that the graph of a 300 MB file is skipped in one step (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sfpp.runtime.errors import ModelFileError

# Fields of ModelProto, and of the StringStringEntryProto in its metadata_props.
_GRAPH, _METADATA_PROPS = 7, 14
_KEY, _VALUE = 1, 2

_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}
_WIRE_TYPES = {_VARINT, _DELIMITED, *_FIXED_BYTES}
_LONGEST_VARINT = 10  # bytes: 64 bits, 7 in each

# A contract has 25 KB, most of it the self-test, and a model about ten fields: what goes far beyond was not written by
# an exporter.
_MOST_METADATA_BYTES = 64 << 20
_MOST_FIELDS = 100_000


def metadata_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the ``metadata_props`` of an ONNX file; empty where it has none. Takes a millisecond whatever its size.

    Raises:
        ModelFileError: the file cannot be read, is truncated, or is not an ONNX model.
    """
    try:
        with Path(path).open("rb") as stream:
            return _metadata(stream)
    except OSError as error:
        raise ModelFileError(f"cannot read the model {os.fspath(path)}: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise not_an_onnx_model(path, str(error)) from error


def not_an_onnx_model(path: str | os.PathLike[str], detail: str) -> ModelFileError:
    """Return the refusal of a file that is no ONNX model, whoever found it out."""
    return ModelFileError(
        f"{os.fspath(path)} cannot be opened as an ONNX model: {detail}. "
        "If it was copied from elsewhere, it may be truncated; otherwise export it again"
    )


def _metadata(stream: BinaryIO) -> dict[str, str]:
    metadata: dict[str, str] = {}
    has_graph, metadata_bytes = False, 0
    for number, length in _fields(stream, os.fstat(stream.fileno()).st_size):
        has_graph |= number == _GRAPH and length > 0
        if number != _METADATA_PROPS:
            continue
        metadata_bytes += length
        if metadata_bytes > _MOST_METADATA_BYTES:
            raise ValueError(f"its metadata have more than {_MOST_METADATA_BYTES >> 20} MB")
        key, value = _entry(stream.read(length))
        metadata[key] = value
    if not has_graph:
        raise ValueError("it holds no graph")
    return metadata


def _entry(data: bytes) -> tuple[str, str]:
    stream = io.BytesIO(data)
    texts = {number: stream.read(length).decode() for number, length in _fields(stream, len(data))}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield number and length of each delimited field with the stream at its first byte, and skip all other fields."""
    for _ in range(_MOST_FIELDS):
        if stream.tell() >= end:
            return
        tag = _varint(stream)
        number, wire_type = tag >> 3, tag & 7
        if not number or wire_type not in _WIRE_TYPES:
            raise ValueError(f"it has a field {number} of type {wire_type}, which no such file has")
        value = _varint(stream) if wire_type in (_VARINT, _DELIMITED) else 0
        after = stream.tell() + (value if wire_type == _DELIMITED else _FIXED_BYTES.get(wire_type, 0))
        # Before anything of this length is read: a length is the word of whoever wrote the file.
        if after > end:
            raise ValueError(f"it ends {after - end} bytes too early")
        if wire_type == _DELIMITED:
            yield number, value
        stream.seek(after)
    raise ValueError(f"it has more than {_MOST_FIELDS} fields")


def _varint(stream: BinaryIO) -> int:
    """Read a number in groups of 7 bits, the lowest first; the highest bit of a byte says that more follow."""
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it has a number of more than 64 bits")
