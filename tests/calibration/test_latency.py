"""A fast wrong answer is none."""

from pathlib import Path
from types import SimpleNamespace

from sfpp.calibration.latency import checked, default_backends, latencies
from sfpp.calibration.results import Latency
from sfpp.runtime.bench.settings import BackendSpec
from tests.runtime.planted import plant, write_tested

BACKENDS = (BackendSpec("onnxruntime"), BackendSpec("openvino"))
FILES = Path("m.onnx"), Path("m.int8.onnx")


class Answers:
    """Files whose agreement with float32 is known, by file and backend; None is where it is judged."""

    def __init__(self, agreements):
        self.agreements = agreements

    def examine(self, path, *, first, backend=None):
        name = "reference" if backend is None else backend.name
        return SimpleNamespace(accuracy=SimpleNamespace(agreement=self.agreements[path.name, name]))


def failures(fp32, int8):
    """Check with these agreements, (judged, on ONNX Runtime, on OpenVINO) of each file; return what failed."""
    names = ("reference", "onnxruntime", "openvino")
    agreements = {
        (file.name, name): share
        for file, shares in zip(FILES, (fp32, int8), strict=True)
        for name, share in zip(names, shares, strict=True)
    }
    timed = {file: (Latency("onnxruntime", 10.0, 1.0), Latency("openvino", 5.0, 1.0)) for file in FILES}
    found = checked(timed, BACKENDS, Answers(agreements), frames=3)
    return {(file.name, each.backend): each for file in FILES for each in found[file] if each.failure}


def test_right_answers_keep_their_times():
    assert not failures((1.0, 1.0, 0.999), (0.99, 0.99, 0.985))


def test_a_backend_that_answers_otherwise_is_named_and_not_timed():
    (wrong,) = failures((1.0, 1.0, 1.0), (0.992, 0.992, 0.939)).items()
    assert wrong[0] == ("m.int8.onnx", "openvino")
    assert wrong[1].p50_ms is None
    assert wrong[1].failure == "answers wrongly: 93.9% as FP32, but 99.2% in ONNX Runtime"


def test_what_a_backends_own_precision_moves_is_no_fault():
    assert not failures((1.0, 1.0, 0.93), (0.97, 0.97, 0.92))
    assert set(failures((1.0, 1.0, 0.93), (0.97, 0.97, 0.90))) == {("m.int8.onnx", "openvino")}


def test_the_float32_file_can_be_wrong_too():
    assert ("m.onnx", "openvino") in failures((1.0, 1.0, 0.3), (0.99, 0.99, 0.3))


def test_a_backend_that_failed_is_not_asked():
    timed = {FILES[0]: (Latency("onnxruntime", None, None, failure="no"), Latency("openvino", 5.0, 1.0))}
    agreements = {("m.onnx", "reference"): 1.0, ("m.onnx", "openvino"): 1.0}
    found = checked(timed, BACKENDS, Answers(agreements), frames=1)
    assert found[FILES[0]] == timed[FILES[0]]


def test_what_fails_its_self_test_is_not_timed(tmp_path, monkeypatch):
    """What `sfpp-run` and `sfpp-bench` do not trust has no time here either."""
    plant(monkeypatch)
    path = write_tested(tmp_path / "model.onnx")
    found, _ = latencies([path], BACKENDS, notify=lambda line: None)
    right, wrong = found[path]
    assert right.p50_ms > 0
    assert (wrong.p50_ms, wrong.failure) == (
        None,
        "Planted 1.0 on the CPU answers wrongly here (0.00% of the labels of a stored frame of 32x24 pixels as "
        "exported, 98.00% expected at least)",
    )


def test_backends_follow_what_the_file_was_exported_for():
    assert [each.name for each in default_backends("onnxruntime")] == ["onnxruntime"]
    assert default_backends("portable")[0].name == "onnxruntime"
