import contextlib
import os

import onnx
import pytest
from onnx import helper

from sfpp.runtime import onnx_file
from sfpp.runtime.errors import ModelFileError
from sfpp.runtime.onnx_file import metadata_of
from tests.runtime.backends.graphs import write_sums


def delimited(number, payload):
    """A field by hand, for lengths below 128."""
    return bytes([number << 3 | 2, len(payload)]) + payload


GRAPH = delimited(7, b"g")


def written(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    "metadata",
    [{}, {"a": "b"}, {"note": "größer", "sfpp.contract": '{"x": 1}', "empty": "", "long": "x" * 300_000}],
)
def test_metadata_are_those_that_onnx_wrote(tmp_path, metadata):
    path = write_sums(tmp_path / "model.onnx", metadata=metadata)
    assert metadata_of(path) == metadata
    model = onnx.load(path)
    model.doc_string, model.producer_name, model.domain = "d" * 200, "p", "e"
    model.functions.append(helper.make_function("e", "f", ["x"], ["y"], [], []))
    onnx.save(model, path)
    assert metadata_of(str(path)) == metadata


def test_a_large_graph_is_not_read(tmp_path):
    """Four gigabytes that are a hole: reading them would take seconds, and more memory than there may be."""
    path = tmp_path / "large.onnx"
    size = 4 << 30
    length = bytes((size >> shift & 0x7F) | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))
    with path.open("wb") as stream:
        stream.write(bytes([8, 8, 7 << 3 | 2]) + length)
        stream.seek(size, os.SEEK_CUR)
        stream.write(delimited(14, delimited(1, b"k") + delimited(2, b"v")))
    assert metadata_of(path) == {"k": "v"}


def test_unknown_fields_of_every_type_are_skipped(tmp_path):
    fields = bytes([30 << 3 & 0x7F | 0x80, 1, 5])  # number 30, of the type varint
    fields += bytes([15 << 3 | 1]) + bytes(8) + bytes([15 << 3 | 5]) + bytes(4) + delimited(13, b"later")
    entry = delimited(1, b"k") + delimited(9, b"?") + delimited(2, b"v")
    assert metadata_of(written(tmp_path, fields + GRAPH + delimited(14, entry))) == {"k": "v"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it holds no graph"),
        (delimited(7, b""), "it holds no graph"),
        (b"these are notes", "a field 14 of type 4"),
        (b"\x00\x00", "a field 0 of type 0"),
        (b"\x02\x01x", "a field 0 of type 2"),
        (GRAPH + b"\x08", "it ends within a field"),
        (GRAPH + b"\x72\x05abc", "it ends 2 bytes too early"),
        (GRAPH + b"\x79" + bytes(3), "it ends 5 bytes too early"),
        (GRAPH + b"\x72" + b"\xff" * 9 + b"\x01", r"it ends 1844674407370955\d+ bytes too early"),
        (GRAPH + b"\x72" + b"\xff" * 30, "a number of more than 64 bits"),
        (GRAPH + delimited(14, b"\x0a\x09short"), "it ends 4 bytes too early"),
        (GRAPH + delimited(14, delimited(1, b"\xff\xfe")), "can't decode byte"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, data, said):
    with pytest.raises(
        ModelFileError, match=rf"m\.onnx cannot be opened as an ONNX model: .*({said}).*may be truncated"
    ):
        metadata_of(written(tmp_path, data))


def test_every_truncation_is_refused_or_harmless(tmp_path):
    """The fields come in the order of their numbers, so a file that is cut after the graph has lost its metadata."""
    metadata = {"key": "value"}
    whole = write_sums(tmp_path / "model.onnx", metadata=metadata).read_bytes()
    for kept in range(len(whole)):
        path = written(tmp_path, whole[:kept])
        with contextlib.suppress(ModelFileError):
            assert metadata_of(path) == {}


def test_endless_fields_and_metadata_end(tmp_path, monkeypatch):
    many = written(tmp_path, GRAPH + bytes([8, 0]) * 200_000)
    with pytest.raises(ModelFileError, match="it has more than 100000 fields"):
        metadata_of(many)
    monkeypatch.setattr(onnx_file, "_MOST_METADATA_BYTES", 1 << 20)
    path = write_sums(tmp_path / "model.onnx", metadata={str(number): "x" * 400_000 for number in range(3)})
    with pytest.raises(ModelFileError, match="its metadata have more than 1 MB"):
        metadata_of(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelFileError, match=r"cannot read the model .*nothing\.onnx: No such file"):
        metadata_of(tmp_path / "nothing.onnx")
    with pytest.raises(ModelFileError, match=r"cannot read the model .*: Is a directory"):
        metadata_of(tmp_path)
