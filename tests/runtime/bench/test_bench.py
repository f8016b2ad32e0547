import dataclasses
import json

import numpy as np
import pytest

from sfpp.runtime.backends import backend_choices
from sfpp.runtime.bench import BackendSpec, bench, candidate, rounds
from sfpp.runtime.bench.measured_model import MeasuredModel
from sfpp.runtime.bench.rounds import Campaign
from sfpp.runtime.bench.settings import backend_spec
from sfpp.runtime.errors import BackendError, MediaError, ModelFileError, UsageError
from tests.runtime.bench.models import CONTRACT, POSE, write_foreign, write_ours
from tests.runtime.planted import plant, write_tested

QUICK = {"backends": ["onnxruntime"], "runs": 4, "warmup": 1, "threads": 1, "peak": False, "memory": False}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with models of every kind, and a cache of compiled models of its own."""
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    write_ours(tmp_path / "ours.onnx")
    write_ours(tmp_path / "pose.onnx", POSE)
    write_foreign(tmp_path / "foreign.onnx")
    write_foreign(tmp_path / "open.onnx", shape=("n", 3))
    return tmp_path


def test_models_of_all_kinds_side_by_side(here):
    lines = []
    names = ("ours", "pose", "foreign", "open")
    report = bench([here / f"{name}.onnx" for name in names], notify=lines.append, **QUICK)
    ours, pose, foreign, unfed = report.rows
    assert [row.name for row in report.rows] == list(names)
    for row in (ours, pose, foreign):
        assert row.network.count == len(row.samples) == 4
        assert row.network.p50_ms > 0
        assert row.failure is None
        assert "ONNX Runtime" in row.description
        assert row.load_ms > 0
        assert row.cached_load_ms > 0
        assert row.speedup.median > 0
    assert ours.speedup.median == 1
    assert (ours.task, pose.task, foreign.task) == ("segmentation", "pose", None)
    assert (ours.multiply_adds, ours.activation_bytes, foreign.multiply_adds) == (4_000_000, 10_000, None)
    assert ours.whole.p50_ms > ours.network.p50_ms
    assert foreign.whole is None
    assert (here / "ours.onnx").stat().st_size == ours.file_bytes
    assert unfed.network is None
    assert unfed.failure.startswith("the input 'x' has the shape ?x3, whose open sizes must be given")
    assert report.measured == (ours, pose, foreign)
    assert not report.interrupted
    assert "timing 3 in turn: 4 rounds, or 60 seconds" in lines
    assert not any(" runs in " in line for line in lines)


def test_what_answers_wrongly_is_not_measured_and_all_steps_take_what_answers_rightly(here, monkeypatch):
    path = write_tested(here / "tested.onnx")
    asked, opened = [], plant(monkeypatch)
    monkeypatch.setattr(rounds, "matmul_peak", lambda **arguments: asked.append(arguments["backend"]))
    monkeypatch.setattr(rounds, "copy_bytes_per_s", lambda threads: 5.0)
    monkeypatch.setattr(candidate, "model_peak_bytes", lambda request: asked.append(request.backend))
    report = bench([path], **{**QUICK, "backends": ["auto", "openvino"], "peak": True, "memory": True, "profile": True})
    chosen, wrong = report.rows
    assert chosen.description.startswith("ONNX Runtime")
    assert chosen.self_test.outcome == "passed"
    assert chosen.network.count == 4
    assert asked == ["onnxruntime", "onnxruntime"]
    assert chosen.operators_ms
    assert (wrong.network, wrong.self_test.agreement) == (None, 0.0)
    assert wrong.failure.startswith("Planted 1.0 on the CPU answers wrongly here (0.00%")
    assert wrong.failure.endswith("; --no-self-test measures it all the same")
    assert report.wrong == (wrong,)
    assert report.measured == (chosen,)
    assert [each.runs for each in opened if each.runs] == [1, 1]  # only the self-tests
    (timed,) = bench([path], **{**QUICK, "backends": ["openvino"], "self_test": False}).rows
    assert (timed.network.count, str(timed.self_test)) == (4, "off")


def test_open_sizes_can_be_given(here):
    (row,) = bench([here / "open.onnx"], input_shapes={"": (5, 3)}, **QUICK).rows
    assert row.failure is None
    assert row.network.count == 4


def test_every_model_runs_on_every_backend(here):
    lines = []
    report = bench(
        [here / "ours.onnx", here / "foreign.onnx"],
        notify=lines.append,
        **{**QUICK, "backends": ["onnxruntime:fp32", BackendSpec("onnxruntime"), "auto"]},
    )
    assert [(row.name, row.backend) for row in report.rows] == [
        (name, backend) for name in ("ours", "foreign") for backend in ("onnxruntime:fp32", "onnxruntime", "auto")
    ]
    assert all(row.network for row in report.rows)
    chosen = [line.split(":")[0] for line in lines if " runs in " in line]
    assert chosen == [f"{name}.onnx runs in {report.rows[2].description}" for name in ("ours", "foreign")]


def test_the_first_row_with_figures_is_the_one_compared_with(here):
    unfed, first, second = bench([here / name for name in ("open.onnx", "ours.onnx", "foreign.onnx")], **QUICK).rows
    assert unfed.speedup is None
    assert first.speedup.median == 1
    ratios = [a.infer_ms / b.infer_ms for a, b in zip(first.samples, second.samples, strict=True)]
    assert second.speedup.median == pytest.approx(np.median(ratios))


def test_a_model_that_fails_in_its_first_run_is_not_compared_with(here):
    contract = dataclasses.replace(CONTRACT, classes=("a", "b"), palette=((0, 0, 0), (9, 9, 9)))
    write_ours(here / "wrong.onnx", contract)
    wrong, right = bench([here / "wrong.onnx", here / "ours.onnx"], **{**QUICK, "warmup": 0}).rows
    assert wrong.network is None
    assert "the contract does not belong to this model" in wrong.failure
    assert right.speedup.median == 1


def test_everything_at_once_as_json(here):
    report = bench([here / "ours.onnx"], **{**QUICK, "memory": True, "profile": True})
    report.write_json(here / "report.json")
    content = json.loads((here / "report.json").read_text(encoding="utf-8"))
    assert content["settings"]["models"] == [str(here / "ours.onnx")]
    assert content["settings"]["backends"] == [{"name": "onnxruntime", "precision": None}]
    assert content["machine"]["cores"] >= 1
    assert content["interrupted"] is False
    (row,) = content["rows"]
    assert len(row["samples"]["infer_ms"]) == 4
    assert row["peak_memory_bytes"] > 10_000_000
    assert "AveragePool" in row["operators_ms"] or any("Pool" in name for name in row["operators_ms"])


def test_peaks_are_measured_once_for_each_backend(here, monkeypatch):
    asked = []

    def matmul_peak(**arguments):
        asked.append((arguments["backend"], arguments["options"].precision))
        raise BackendError("not today")

    monkeypatch.setattr(rounds, "matmul_peak", matmul_peak)
    monkeypatch.setattr(rounds, "copy_bytes_per_s", lambda threads: 5.0)
    models = [here / "ours.onnx", here / "foreign.onnx"]
    report = bench(models, **{**QUICK, "peak": True, "backends": ["onnxruntime", "onnxruntime:fp32", "auto"]})
    chosen = backend_choices(models[0])[0].name  # what auto has taken
    assert asked == list(dict.fromkeys([("onnxruntime", None), ("onnxruntime", "fp32"), (chosen, None)]))
    assert report.copy_bytes_per_s == 5
    assert all(row.matmul_peak is None for row in report.rows)


def test_nothing_could_be_measured(here):
    with pytest.raises(BackendError, match="nothing could be measured: open on onnxruntime: the input 'x'"):
        bench([here / "open.onnx"], **QUICK)


def interrupting(monkeypatch, *, at):
    """Let Ctrl-C come in the nth run of any model."""
    real, runs = MeasuredModel.run, []

    def run_once(self, **options):
        runs.append(self)
        if len(runs) == at:
            raise KeyboardInterrupt
        return real(self, **options)

    monkeypatch.setattr(MeasuredModel, "run", run_once)


def test_ctrl_c_keeps_what_was_measured(here, monkeypatch):
    interrupting(monkeypatch, at=2 + 2 * 2 + 2)  # warm-ups, two rounds, half a round
    report = bench([here / "ours.onnx", here / "foreign.onnx"], **{**QUICK, "memory": True})
    assert report.interrupted
    assert sorted(row.network.count for row in report.rows) == [2, 3]
    assert all(row.speedup for row in report.rows)
    assert report.rows[0].peak_memory_bytes is None


def test_ctrl_c_in_a_later_step_keeps_the_rounds(here, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Campaign, "measure_memory", interrupted)
    report = bench([here / "ours.onnx"], **QUICK)
    assert report.interrupted
    assert report.rows[0].network.count == 4


def test_ctrl_c_before_anything_was_measured_is_just_that(here, monkeypatch):
    interrupting(monkeypatch, at=1)
    with pytest.raises(KeyboardInterrupt):
        bench([here / "ours.onnx"], **QUICK)


def test_all_models_are_closed_before_the_next_steps(here, monkeypatch):
    closed = []
    real = Campaign.close
    monkeypatch.setattr(Campaign, "close", lambda self: (closed.append("closed"), real(self)))
    monkeypatch.setattr(Campaign, "measure_memory", lambda self: closed.append("memory"))
    bench([here / "ours.onnx"], **QUICK)
    assert closed == ["closed", "memory"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"models": []}, UsageError, "at least one .onnx file"),
        ({"models": ["nothing.onnx"]}, ModelFileError, "nothing.onnx is not a file"),
        ({"runs": 0}, UsageError, "runs is 0"),
        ({"warmup": -1}, UsageError, "warmup -1"),
        ({"seconds": 0}, UsageError, "seconds is 0"),
        ({"seconds": float("nan")}, UsageError, "seconds is nan"),
        ({"backends": ["openvin"]}, UsageError, "backend is 'openvin', expected one of auto, onnxruntime"),
        ({"image": "nothing.png"}, MediaError, "cannot read nothing.png"),
    ],
)
def test_settings_that_cannot_be_meant(here, changes, error, words):
    arguments = {"models": [here / "ours.onnx"], **QUICK, **changes}
    with pytest.raises(error, match=words.replace("?", r"\?")):
        bench(arguments.pop("models"), **arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("openvino:bf16", BackendSpec("openvino", "bf16")),
        ("onnxruntime", BackendSpec("onnxruntime")),
        ("auto", BackendSpec()),
        ("auto:fp32", BackendSpec(None, "fp32")),
    ],
)
def test_backends_as_text_and_back(text, expected):
    assert backend_spec(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "openvino:bf61",
            "the precision in 'openvino:bf61' is 'bf61', expected one of fp32, bf16, fp16, did you mean 'bf16'",
        ),
        ("openvino:", "the precision in 'openvino:' is ''"),
        ("model.onnx", "models come before --backend"),
    ],
)
def test_backends_that_do_not_exist(text, words):
    with pytest.raises(UsageError, match=words):
        backend_spec(text)
