import json

import pytest

from benchmarks.speed import measure as speed
from benchmarks.speed.contestants import EagerContestant, Field
from benchmarks.speed.measure import groups_of, main
from benchmarks.speed.results import read_results
from sfpp.export.settings import Resolution
from sfpp.runtime.bench.measured_model import BenchFrame
from sfpp.runtime.bench.peak import MatmulPeak
from sfpp.runtime.bench.settings import backend_spec
from sfpp.runtime.errors import UsageError

pytest.importorskip("transformers", reason="the Transformers library is not installed")

SMALL, LARGE = Resolution(512, 512), Resolution(3840, 2160)


def test_groups_begin_small_and_the_large_networks_stay_there():
    assert groups_of(["b0", "b5"], [LARGE, SMALL]) == [("b0", SMALL), ("b0", LARGE), ("b5", SMALL)]
    assert groups_of(["b5"], [LARGE, SMALL], all_sizes=True) == [("b5", SMALL), ("b5", LARGE)]
    with pytest.raises(UsageError, match=r"unknown network 'b9', did you mean 'b\d'\?; expected b0, b1"):
        groups_of(["b9"], [SMALL])


def test_what_holds_all_scores_is_left_out_by_its_shapes(tmp_path):
    field = Field("b0", LARGE, tmp_path, tmp_path, BenchFrame(None, fitted=True), 20e9, notify=print)
    entries = field.entries([], [backend_spec("onnxruntime"), backend_spec("openvino:bf16")])
    names = [(each.name, each.backend) for each in entries]
    assert ("pytorch", "pytorch:fp32") in names
    assert names[-2:] == [("transformers", "onnxruntime"), ("transformers", "openvino:bf16")]
    assert {each.missing for each in entries} == {"16 GiB of scores"}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(speed, "matmul_peak", lambda **options: MatmulPeak(1e11, "1024x512", "a library"))
    monkeypatch.setattr(EagerContestant, "peak_bytes", lambda self, frame: 10**8)  # a process that imports PyTorch


def test_one_group_from_checkpoint_to_table_and_chart(quick, tmp_path, capsys):
    output, chart = tmp_path / "speed.json", tmp_path / "growth.svg"
    common = ["--models", "b0", "--sizes", "64x64", "--backends", "onnxruntime", "-o", str(output)]
    assert main([*common, "--variants", "original", "fast:nearby", "--runs", "2", "--chart", str(chart)]) == 0
    rows = {row.name: row for row in read_results(output) if row.backend == "onnxruntime"}
    assert list(rows) == ["transformers", "original", "fast:nearby"]
    assert rows["fast:nearby"].missing.startswith("unknown variant 'fast:nearby', did you mean 'fast'?")
    original = rows["original"]
    assert original.labels_as_reference > 0.999
    assert original.reference == "transformers on onnxruntime"
    assert len(original.samples_ms) == 2
    assert original.to_transformers == original.to_transformers_onnxruntime
    assert original.multiply_adds < rows["transformers"].multiply_adds
    assert original.peak_memory_bytes > 1e7
    rate = original.multiply_adds / (original.time.p50_ms / 1e3)
    assert original.share_of_peak == pytest.approx(rate / 1e11)
    assert chart.stat().st_size > 1000
    table = capsys.readouterr().out
    assert main([*common, "--report"]) == 0
    assert capsys.readouterr().out == table


def test_ctrl_c_keeps_the_groups_before(quick, monkeypatch, tmp_path):
    output = tmp_path / "speed.json"
    seen = []

    def group(network, size, *, settings, peaks):
        seen.append(str(size))
        return [], len(seen) == 2

    monkeypatch.setattr(speed, "measure_group", group)
    sizes = ["64x64", "128x128", "256x256"]
    assert main(["--models", "b0", "--sizes", *sizes, "--backends", "onnxruntime", "-o", str(output)]) == 130
    assert seen == sizes[:2]
    assert json.loads(output.read_text())["peaks"]["onnxruntime"]["multiply_adds_per_s"] == 1e11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report", "-o", "none.json"], "there are no results in none.json: measure first"),
        (["-o", "nowhere/speed.json"], "the folder nowhere does not exist"),
        (["--chart", "growth.pdf"], "give a name that ends in .svg or .png"),
        (["--backends", "openvino:f32"], "the precision in 'openvino:f32' is 'f32'"),
        (["--sizes", "1024"], "expected WIDTHxHEIGHT"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_measured(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "matmul_peak", lambda **options: pytest.fail("measured"))
    assert main(arguments) in (1, 2)
    assert message in capsys.readouterr().err
