"""Files are timed in pairs, and a fast wrong answer is none."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sfpp.calibration import latency
from sfpp.calibration.latency import checked, default_backends, latencies
from sfpp.calibration.results import Latency
from sfpp.runtime.bench.measured_model import StageTimes
from sfpp.runtime.bench.row import Row, with_samples
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.errors import BackendError
from tests.runtime.planted import plant, write_tested

BACKENDS = (BackendSpec("onnxruntime"), BackendSpec("openvino"))
FILES = Path("m.onnx"), Path("m.int8.onnx")


class Answers:
    """Files whose agreement with float32 is known, by file and backend; None is where it is judged."""

    def __init__(self, agreements):
        self.agreements = agreements

    def evaluate(self, path, *, first, backend=None):
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
    assert wrong[1].failure == "wrong predictions: 93.9% as FP32, but 99.2% in ONNX Runtime"


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
    found = latencies([path], BACKENDS, notify=lambda line: None)
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


@pytest.fixture
def benched(monkeypatch):
    """Let files take times that are known, by file and backend, and return what was measured together."""
    times, together = {}, []

    class Fake:
        def __init__(self, settings, *, notify):
            (self.backend,), self.files = settings.backends, settings.models
            together.append((self.backend.name, [file.name for file in self.files]))

        def load(self):
            assert not is_open
            is_open.append(self)

        def time(self):
            assert is_open == [self]

        def close(self):
            is_open.clear()

        def report(self, *, interrupted):
            taken = [times.get((file.name, self.backend.name)) for file in self.files]
            samples = [[StageTimes(0, ms, 0)] * 3 if ms else [] for ms in taken]
            first = next(filter(None, samples), [])
            failures = [None if ms else "no" for ms in taken]
            rows = [
                Row(str(file), str(self.backend), 1, failure=why)
                for file, why in zip(self.files, failures, strict=True)
            ]
            return SimpleNamespace(rows=[with_samples(*pair, first=first) for pair in zip(rows, samples, strict=True)])

    is_open = []
    monkeypatch.setattr(latency, "Campaign", Fake)
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # the settings look for the models
    return times, together


THREE = Path("m.onnx"), Path("m.fp16.onnx"), Path("m.int8.onnx")


def timed(benched, **times):
    known, _ = benched
    for backend, taken in times.items():
        known.update({(file.name, backend): ms for file, ms in zip(THREE, taken, strict=True)})
    return latencies(THREE, BACKENDS, notify=print)


def test_two_models_are_open_at_a_time_and_each_is_compared_with_the_first(benched):
    found = timed(benched, onnxruntime=(10.0, 5.0, 2.5), openvino=(8.0, 8.0, 4.0))
    assert [len(files) for _, files in benched[1]] == [2] * 4
    assert {file: [(each.backend, each.p50_ms) for each in row] for file, row in found.items()} == {
        THREE[0]: [("onnxruntime", 10.0), ("openvino", 8.0)],
        THREE[1]: [("onnxruntime", 5.0), ("openvino", 8.0)],
        THREE[2]: [("onnxruntime", 2.5), ("openvino", 4.0)],
    }
    assert [each.speedup for each in found[THREE[2]]] == [4.0, 2.0]


def test_a_file_or_a_backend_that_fails_says_why_and_the_others_are_timed(benched):
    found = timed(benched, onnxruntime=(10.0, None, 2.5), openvino=(None, None, None))
    assert [each.failure for each in found[THREE[1]]] == ["no", "no"]
    assert [each.p50_ms for each in found[THREE[2]]] == [2.5, None]


def test_where_nothing_runs_the_reasons_are_raised(benched):
    with pytest.raises(BackendError, match=r"^nothing could be measured: onnxruntime: no; openvino: no$"):
        timed(benched, onnxruntime=(None, None, None), openvino=(None, None, None))
