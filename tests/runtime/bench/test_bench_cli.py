import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfpp.runtime.backends import backend_names
from sfpp.runtime.bench import BenchReport, rounds
from sfpp.runtime.bench.cli import main, next_command
from sfpp.runtime.bench.peak import MatmulPeak
from sfpp.runtime.bench.settings import BenchSettings
from tests.runtime.bench.models import POSE, row, write_foreign, write_ours
from tests.runtime.planted import plant, write_tested

ONE = ["--backend", "onnxruntime", "--runs", "3", "--warmup", "0", "--threads", "1", "--no-memory"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with models in it; the machine's best is not measured, which takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    write_ours(tmp_path / "ours.onnx")
    write_ours(tmp_path / "pose.onnx", POSE)
    write_foreign(tmp_path / "open.onnx", shape=("n", 3))
    monkeypatch.setattr(rounds, "matmul_peak", lambda **arguments: MatmulPeak(1e12, "8x4", "Library"))
    monkeypatch.setattr(rounds, "copy_bytes_per_s", lambda threads: 2e10)
    return tmp_path


def test_help_is_instant_and_teaches():
    program = """
import sys
from pathlib import Path
from sfpp.runtime.bench.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"cv2", "av", "onnxruntime", "openvino", "matplotlib", "torch", "onnx", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sfpp-bench original.onnx fast.onnx" in done.stdout
    assert all(name in done.stdout.rpartition("Models come before")[2] for name in backend_names())


def test_a_table_json_and_a_chart(here, capsys):
    assert main(["ours.onnx", "pose.onnx", *ONE, "--json", "out.json", "--chart", "out.svg"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split()[:5] == ["model", "backend", "self-test", "p50", "ms"]
    assert [line.split()[0] for line in lines[1:3]] == ["ours", "pose"]
    assert lines[-3:-1] == ["wrote out.json", "wrote out.svg"]
    assert lines[-1].startswith("next: sfpp-run ")
    assert len(json.loads((here / "out.json").read_text())["rows"][1]["samples"]["infer_ms"]) == 3
    assert "pose" in (here / "out.svg").read_text()
    assert "sfpp-bench: loading ours.onnx on onnxruntime" in told.err


def test_a_wrong_answer_is_a_row_without_figures_and_a_failure(here, capfd, monkeypatch):
    write_tested(here / "tested.onnx")
    plant(monkeypatch)
    command = ["tested.onnx", "ours.onnx", *ONE[2:], "--backend"]
    assert main([*command, "openvino", "onnxruntime", "--json", "out.json"]) == 1
    told = capfd.readouterr()
    rows = [line.split()[:4] for line in told.out.splitlines()[1:5]]
    assert rows[0] == ["tested", "openvino", "failed", "(0.00%)"]
    assert told.out.splitlines()[1].split()[4] == "wrong"
    assert rows[1][:3] == ["tested", "onnxruntime:fp32", "passed"]
    assert rows[2][:4] == ["ours", "openvino:fp32", "not", "carried"]
    assert "tested, openvino: Planted 1.0 on the CPU answers wrongly here (0.00% of the labels" in told.out
    assert "wrote out.json\n" in told.out
    assert told.err.splitlines()[-1] == (
        "sfpp-bench: 1 of 4 give wrong results and were not measured; what failed is above"
    )
    wrong, right, *_ = json.loads((here / "out.json").read_text())["rows"]
    assert (wrong["self_test"]["outcome"], wrong["self_test"]["agreement"], wrong["network"]) == ("failed", 0.0, None)
    assert (right["self_test"]["outcome"], right["self_test"]["agreement"]) == ("passed", 1.0)
    # What the runtime chooses is the one that answers rightly, and one line says so.
    assert main([*command, "auto"]) == 0
    told = capfd.readouterr()
    assert re.search(r"tested, auto: runs in ONNX Runtime", told.out)
    assert told.err.count("Planted 1.0 on the CPU answers wrongly here") == 1
    assert main([*command, "openvino", "--no-self-test"]) == 0
    assert "failed" not in capfd.readouterr().out
    assert main(["tested.onnx", *ONE[2:], "--backend", "openvino"]) == 1
    assert "error: nothing could be measured: tested on openvino: Planted 1.0 on the CPU" in capfd.readouterr().err


def test_what_fails_is_a_row_and_alone_an_error(here, capsys):
    assert main(["ours.onnx", "open.onnx", *ONE]) == 0
    assert "open, onnxruntime: the input 'x' has the shape ?x3" in capsys.readouterr().out
    assert main(["open.onnx", *ONE]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "sfpp-bench: error: nothing could be measured: open on onnxruntime" in told.err
    assert main(["open.onnx", *ONE, "--input-shape", "x:4x3"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runs", "0"], "argument --runs: '0' given, expected a whole number from 1"),
        (["--warmup", "-1"], "runs is 30 and warmup -1, expected at least 1 and 0"),
        (["--warmup", "x"], "argument --warmup"),
        (["--seconds", "0"], "seconds is 0.0, expected a number above 0"),
        (["--seconds", "inf"], "expected a number above 0"),
        (["--threads", "x"], "argument --threads"),
        (["--input-shape", "1x2x"], "'1x2x' is not a shape"),
        (["--backend", "onnx"], "backend is 'onnx'"),
        (["--backend", "onnxruntime", "ours.onnx"], "models come before --backend"),
        (["--chart", "chart.pdf"], "cannot draw a chart as 'chart.pdf'"),
    ],
)
def test_wrong_usage_exits_with_2(here, capsys, arguments, words):
    try:
        code = main(["ours.onnx", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--chart"])
def test_a_file_that_cannot_be_written_is_known_before_measuring(here, capsys, option):
    assert main(["ours.onnx", *ONE, option, "ours.onnx/out.svg"]) == 1
    told = capsys.readouterr()
    assert "cannot write ours.onnx/out.svg: " in told.err
    assert "loading" not in told.err


def test_a_chart_without_its_library_is_known_before_measuring(here, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["ours.onnx", *ONE, "--chart", "out.svg"]) == 1
    told = capsys.readouterr()
    assert "pip install 'sfpp[bench]'" in told.err
    assert "loading" not in told.err


# Sends itself Ctrl-C in the middle of the fourth run, which is in the second round.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs this in the background ignores it
from sfpp.runtime.bench.cli import main
from sfpp.runtime.bench.measured_model import MeasuredModel
run, runs = MeasuredModel.run, []
def counted(self, **options):
    runs.append(self)
    if len(runs) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return run(self, **options)
MeasuredModel.run = counted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_prints_and_writes_what_there_is(here):
    command = [sys.executable, "-c", INTERRUPTED, "ours.onnx", "pose.onnx", *ONE, "--json", "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["model", "ours", "pose"]
    assert done.stderr.splitlines()[-1] == "sfpp-bench: stopped early: what was measured until then is above"
    content = json.loads((here / "out.json").read_text())
    assert content["interrupted"] is True
    assert sum(len(each["samples"]["infer_ms"]) for each in content["rows"]) == 3


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"backend": "auto", "task": "segmentation"}, "sfpp-run some/model.onnx demo"),
        ({"backend": "openvino", "task": "segmentation"}, "sfpp-run some/model.onnx demo --backend openvino"),
        (
            {"backend": "openvino:bf16", "task": "pose"},
            "sfpp-run some/model.onnx PEOPLE.mp4 --backend openvino --precision bf16",
        ),
        ({"backend": "auto:bf16", "task": "segmentation"}, "sfpp-run some/model.onnx demo --precision bf16"),
        ({"backend": "auto", "model": "my model.onnx"}, "sfpp-bench 'my model.onnx' --profile"),
        ({"backend": "openvino:fp32"}, "sfpp-bench some/model.onnx --backend openvino:fp32 --profile"),
    ],
)
def test_the_next_command_is_about_the_fastest(here, facts, expected):
    settings = BenchSettings(models=(here / "ours.onnx",))
    rows = (row(infer_ms=(20.0,), model="slow.onnx"), row(infer_ms=(10.0,), **facts), row(infer_ms=(), failure="no"))
    assert next_command(BenchReport(rows=rows, settings=settings, machine={})) == expected


@pytest.mark.parametrize(
    "outputs", [["--json", "ours.onnx"], ["--json", "./pose.onnx"], ["--json", "a.svg", "--chart", "./a.svg"]]
)
def test_nothing_is_written_over_a_model_or_twice(here, capsys, outputs):
    before = (here / "ours.onnx").read_bytes()
    assert main(["ours.onnx", "pose.onnx", *ONE, *outputs]) == 2
    assert f"{outputs[-1]} is named twice, and one would overwrite the other" in capsys.readouterr().err
    assert (here / "ours.onnx").read_bytes() == before


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_links_to_a_model_are_the_model(here, capsys, link):
    (here / "e.engine").write_bytes(b"engine")
    (here / "e.json").write_bytes(b"its contract")
    for target, option in (("ours.onnx", "--json"), ("e.json", "--json"), ("picture.png", "--chart")):
        (here / "picture.png").touch()
        link(here / "out.png", here / target)
        assert main(["ours.onnx", "e.engine", *ONE, "--image", "picture.png", option, "out.png"]) == 2
        assert "out.png is named twice, and one would overwrite the other" in capsys.readouterr().err
        (here / "out.png").unlink()


def test_a_report_through_a_link_and_into_an_open_file(here, capfd):
    (here / "link.json").symlink_to("real.json")
    assert main(["ours.onnx", *ONE, "--json", "link.json"]) == 0
    assert json.loads((here / "real.json").read_text())["rows"]
    assert (here / "link.json").is_symlink()
    reading, writing = os.pipe()
    assert main(["ours.onnx", *ONE, "--json", f"/dev/fd/{writing}"]) == 0
    os.close(writing)
    with os.fdopen(reading) as told:
        assert json.load(told)["rows"]
