"""Inputs that reach deep: what is valid, changed in its structure or in its bytes; and now and then anything at all."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib

import numpy as np
from hypothesis import strategies as st

# Tokens that Python's own writer of JSON does not write, by the texts that stand for them until it is done.
_TOKENS = {
    "@400 digits": "1" + "0" * 399,
    "@-400 digits": "-1" + "0" * 399,
    "@4300 digits": "9" * 4300,
    "@5000 digits": "9" * 5000,
    "@beyond floats": "1e999",
    "@deep": "[" * 900 + "]" * 900,
    "@deeper": "[" * 100_000 + "]" * 100_000,
    "@deep object": '{"a":' * 900 + "1" + "}" * 900,
    "@no token": "nul",
}
_TWICE = "@twice"  # behind a key: it is written once more without
ODD_VALUES = [
    *(None, True, False, 0, 1, -1, 2, 255, 256, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**30),
    *(0.0, -0.0, 0.5, 1e-320, 1e300, 1.7976931348623157e308, 3.5e38, float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "0", "1", "-1", "nan", "\0", "\ud800", "a\udfffb", "\x1b[31m", "\u202e", "\u0663", "é", "\n"),
    *("../a", "x" * 300, "x" * 70_000, [], {}, [[]], [None], [0, 0], [1, 2, 3], [1, 2, 3, 4], ["a"]),
    *({"": None}, {"a": {}}, *_TOKENS),
]
ODD_TEXTS = [
    *("9" * 5000, "1" * 400, "0", "-1", "1e999", "nan", "inf", "1/0", "0x10", "1_0", "\u0663", "\u00b2", "\ud800"),
    *("\0", "%", "%00", "%ff", "%D8%00", "%2525", "?", "&", "=", "#", "://", ":", "@", "[", "]", "[::1]", "//"),
    *("..", "~", "\n", "\r", "\t", " ", "\x1b[2J", "*", "**", "{", "}", "!", '"', "'", "\\", ",", ";", "a" * 5000),
    *("é", "\U0001f600"),
]
_ACTIONS = ("flip", "byte", "number", "number", "cut", "remove", "double", "insert", "zero")
_ODD_NUMBERS = (0, 1, 2, 7, 8, 9, 16, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@st.composite
def changed_json(draw, *documents):
    """Texts of JSON: one of the documents with up to four of its parts replaced, removed, moved or given twice."""
    root = [copy.deepcopy(draw(st.sampled_from(documents)))]
    for _ in range(draw(st.integers(0, 4))):
        _change_part(draw, root)
    text = json.dumps(root[0], ensure_ascii=draw(st.booleans()))
    for name, token in _TOKENS.items():
        text = text.replace(json.dumps(name), token)
    return text.replace(f'{_TWICE}":', '":')


def json_files(*documents):
    """Bytes of a JSON file: changed in structure, in its bytes, or random ones."""
    whole = changed_json(*documents).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(whole, whole, whole, changed_bytes(*(json.dumps(each).encode() for each in documents)))


def _change_part(draw, root):
    places = list(_places(root))
    holder, key = draw(st.sampled_from(places))

    def odd(*more):
        return copy.deepcopy(draw(st.sampled_from([*more, *ODD_VALUES])))

    action = draw(st.sampled_from(("replace", "replace", "replace", "remove", "move", "wrap", "text", "add", "twice")))
    if action == "replace":
        holder[key] = odd()
    elif action == "remove" and holder is not root:
        del holder[key]
    elif action == "move":
        other, name = draw(st.sampled_from(places))
        holder[key] = copy.deepcopy(other[name])
    elif action == "wrap":
        holder[key] = draw(st.sampled_from(([holder[key]], {"a": holder[key]}, [holder[key]] * 3)))
    elif action == "text":
        holder[key] = str(holder[key])
    elif action == "twice" and isinstance(holder, dict):
        holder[f"{key}{_TWICE}"] = odd()
    elif isinstance(holder[key], dict):
        holder[key][draw(st.sampled_from(("", "a", "0", "\ud800", "x" * 300)))] = odd()
    elif isinstance(holder[key], list):
        holder[key].append(odd(*holder[key]))


def _places(holder):
    """Yield where each part of a document lies, the whole first."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


@st.composite
def changed_bytes(draw, *originals):
    """Bytes of one of the originals, flipped, cut, inserted, doubled, or with other numbers in them; or random ones."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 5))):
        place = _place_in(draw, data)
        end = min(len(data), place + draw(st.sampled_from((1, 2, 3, 4, 8, 16, 100))))
        action = draw(
            st.sampled_from(("flip", "byte", "number", "number", "cut", "remove", "double", "insert", "zero"))
        )
        if action == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "byte" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif action == "number":
            size = draw(st.sampled_from("BHIQ"))
            number = draw(st.sampled_from(_ODD_NUMBERS)) % 256 ** struct.calcsize(size)
            data[place : place + struct.calcsize(size)] = struct.pack(draw(st.sampled_from("<>")) + size, number)
        elif action == "cut":
            del data[place:]
        elif action == "remove":
            del data[place:end]
        elif action == "double":
            data[place:place] = data[place:end] * draw(st.sampled_from((1, 2, 50)))
        elif action == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif action == "zero":
            data[place:end] = bytes(end - place)
    return bytes(data)


def _place_in(draw, data):
    """Choose a place: as often as not near the beginning or the end, where formats say what they are."""
    size = len(data)
    edge = draw(st.integers(0, 3))
    if edge == 0:
        return draw(st.integers(0, min(64, size)))
    return max(0, size - draw(st.integers(0, 96))) if edge == 1 else draw(st.integers(0, size))


@st.composite
def changed_texts(draw, *originals):
    """Texts: one of the originals with parts cut out, doubled, or replaced by odd ones; or any text."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.text(st.characters(codec=None), max_size=30))
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 3))):
        start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        new = draw(st.one_of(st.sampled_from(ODD_TEXTS), st.just(""), st.just(text[start:end] * 2)))
        text = text[: start if draw(st.booleans()) else end] + new + text[end:]
    return text


def lines_of(*originals, most=6):
    """Bytes of a text file of lines, each changed."""
    lines = st.lists(changed_texts(*originals), max_size=most)
    whole = lines.map(lambda each: "\n".join(each).encode("utf-8", "surrogatepass"))
    return st.one_of(whole, whole, changed_bytes("\n".join(originals).encode()))


def chunk(kind, data):
    """Return a part of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, color=2, *, data=b"", before=()):
    """Return a PNG of these facts, whatever it holds; parts may stand before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    parts = b"".join(chunk(*each) for each in before)
    return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@st.composite
def pngs(draw):
    """PNGs whose checksums are right and whose facts need not be."""
    side = st.one_of(st.integers(0, 40), st.sampled_from((60_000, 2**31 - 1, 2**32 - 1)))
    width, height = draw(side), draw(side)
    depth, color = draw(st.sampled_from((0, 1, 2, 4, 8, 16, 3, 255))), draw(st.sampled_from((0, 2, 3, 4, 6, 1, 7)))
    small = width <= 40 and height <= 40
    size = height * (1 + width * 8) if small else 20
    data = bytes(size) if draw(st.booleans()) else draw(st.binary(max_size=64)) * (size // 60 + 1)
    kinds = st.sampled_from((b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"iCCP", b"zTXt", b"iTXt", b"gAMA", b"sBIT"))
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, draw(st.integers(0, 9)), 0, 0)
    contents = st.one_of(st.binary(max_size=24), st.just(bytes(range(12))), st.just(bytes(768)), st.just(exif))
    parts = draw(st.lists(st.tuples(kinds, contents), max_size=3))
    return png(width, height, depth, color, data=data, before=parts)


def npy(header, data=b"", version=b"\x01\x00"):
    """Return an array's file with this text as its header."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data


def zipped(members, method=zipfile.ZIP_STORED):
    """Return an archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


_ODD_ARRAYS = [
    *(np.array("a"), np.array(["a"]), np.array([b"\xff"]), np.zeros(0), np.zeros(()), np.zeros((0, 3, 3))),
    *(np.zeros((1, 3)), np.zeros((1, 3, 3)), np.zeros((2, 9)), np.zeros(3, "i4,f8"), np.zeros((1, 3, 3), complex)),
    *(np.full((1, 3, 3), "x"), np.full((1, 3, 3), np.nan), np.full((1, 5), np.inf), np.full((1, 4), 1e300)),
    *(np.zeros((1, 3, 3), "M8[s]"), np.full((1, 3, 3), 2**63, "u8")),
]
_ODD_HEADERS = [
    "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1" + "0" * 400 + ",), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U99999999', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<f8', (99999999,))], 'fortran_order': False, 'shape': (99, 9), }",
    "{'descr': '<f8','shape':(",
    "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f8', 'fortran_order': 5, 'shape': (1, 1, 3), }",
    "(" * 300,
    "{" * 3000,
    "1 + 1",
    "",
    "\0",
]


@st.composite
def npz_files(draw, **arrays):
    """Archives of arrays: valid ones, with members of other types and shapes, or changed in their bytes."""
    members = {f"{name}.npy": _array_bytes(array) for name, array in arrays.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(members)))
        array = st.sampled_from(_ODD_ARRAYS).map(_array_bytes)
        header = st.builds(npy, st.sampled_from(_ODD_HEADERS), st.binary(max_size=9))
        members[name] = draw(st.one_of(array, header, changed_bytes(members[name])))
    method = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    data = zipped(members, method)
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return members[draw(st.sampled_from(sorted(members)))]  # an array alone
    return data if kind < 5 else draw(changed_bytes(data))
