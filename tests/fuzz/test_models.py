"""Model files from elsewhere: their metadata and contracts, detectors, and graphs to be checked or calibrated."""

import json

import numpy as np
from hypothesis import example, strategies as st
from onnx import TensorProto

from sfpp.export.check.reading import read_graph
from sfpp.runtime.model_file import contract_of, load
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.people.detector import OnnxDetector
from sfpp.tooling.graph import read_model
from tests.fuzz.inputs import ODD_TEXTS, changed_bytes, changed_json, changed_texts
from tests.fuzz.judging import fuzzed
from tests.fuzz.models import CONTRACT, POSE, detector_bytes, onnx_bytes

CONTRACTS = [json.loads(each.to_json()) for each in (CONTRACT, POSE)]
MODEL = onnx_bytes(CONTRACT.to_json())
SMALL = onnx_bytes(a="b")
NOT_UTF_8 = b"\x72\x05\x0a\x01\xff\x12\x00"  # an entry of the metadata whose name is one byte


@fuzzed(6.0, data=changed_bytes(MODEL, SMALL))
@example(SMALL + NOT_UTF_8)
@example(SMALL + b"\x72" + b"\xff" * 9 + b"\x01")
def test_metadata(folder, data):
    path = folder / "model.onnx"
    path.write_bytes(data)
    contract_of(path)
    assert all(isinstance(each, str) for pair in metadata_of(path).items() for each in pair)


@fuzzed(1.0, text=changed_json(*CONTRACTS).filter(lambda text: "\ud800" not in text and "\udfff" not in text))
@example('{"schema_version": 1, "x": ' + "1" * 5000 + "}")
@example('{"schema_version": 1, "target": []}')
def test_model(folder, text):
    path = folder / "model.onnx"
    path.write_bytes(onnx_bytes(text))
    with load(path, backend="onnxruntime") as model:
        assert model(np.zeros((8, 12, 3), np.uint8)) is not None or True


@fuzzed(1.0, data=changed_bytes(SMALL))
def test_graph_to_be_checked(folder, data):
    path = folder / "model.onnx"
    path.write_bytes(data)
    read_graph(path)


@fuzzed(1.0, data=changed_bytes(SMALL))
def test_graph_to_be_calibrated(folder, data):
    path = folder / "model.onnx"
    path.write_bytes(data)
    read_model(path)


SIDES = st.sampled_from((0, 1, 2, 7, 32, 64, "side", 100_000, 2**31, 2**62, -1))
TEXTS = st.one_of(st.sampled_from([each for each in ODD_TEXTS if "\ud800" not in each]), changed_texts("person, dog"))
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "sfpp.detector": changed_json({"style": "yolov10", "person_class": 0, "std": [1, 2, 3], "pad_value": 9}),
        "names": TEXTS,
        "imgsz": st.one_of(TEXTS, st.sampled_from(("[32, 32]", "[0000, 0000]", "[9999, 9999]"))),
        "task": st.sampled_from(("detect", "pose", "classify", "")),
    },
).filter(lambda texts: all(each.isprintable() for each in texts.values()))
OUTPUTS = st.sampled_from(((1, 21, 6), (1, 0, 6), (1, 6, 21), (1, 63, 7), (1, 5, 4), (1, 1, 1), (2, 3), (1, 8, 6), ()))


@fuzzed(
    1.0,
    data=st.builds(
        detector_bytes,
        st.one_of(st.tuples(st.just(1), st.just(3), SIDES, SIDES), st.just((1, 3, 32, 32)), st.just((1, 3))),
        OUTPUTS,
        st.sampled_from((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)),
        METADATA,
        st.sampled_from((b"", b"", NOT_UTF_8)),
    ),
)
@example(detector_bytes((1, 3, 0, 32), (1, 0, 6)))
@example(detector_bytes((1, 3, 100_000, 100_000)))
@example(detector_bytes(metadata={"sfpp.detector": '{"style": []}'}))
@example(detector_bytes(behind=NOT_UTF_8))
def test_detector(folder, data):
    path = folder / "detector.onnx"
    path.write_bytes(data)
    detector = OnnxDetector(path)
    assert detector.find(np.zeros((20, 30, 3), np.uint8)).boxes_xywh.shape[1] == 4
    assert detector.description
    detector.close()
