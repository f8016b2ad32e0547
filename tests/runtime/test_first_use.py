"""A wrong kernel is noticed the first time that it runs, and another library takes over; what has passed is trusted."""

import dataclasses
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from sfpp.runtime import SelfTestError, load, machine, self_test as first_use
from sfpp.runtime.errors import BackendError
from sfpp.runtime.segmentation import Segmenter
from tests.runtime.cli.test_run import write_model
from tests.runtime.planted import (
    FRAME,
    Planted,
    plant,
    replace_opener,
    store,
    write_int8_with_concat,
    write_tested,
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "self-tests"


@pytest.fixture
def path(tmp_path, cache):
    return write_tested(tmp_path / "model.onnx")


@pytest.fixture
def replays(monkeypatch):
    """The descriptions of the models whose self-tests were replayed."""
    seen, real = [], first_use.self_test
    monkeypatch.setattr(first_use, "self_test", lambda model: (seen.append(model.description), real(model))[1])
    return seen


def loaded(path, **options):
    """Load, and return the model and the lines that were said."""
    lines = []
    model = load(path, notify=lines.append, **options)
    model.close()
    return model, lines


def test_a_wrong_kernel_is_noticed_and_the_next_backend_takes_over(path, monkeypatch, caplog):
    opened = plant(monkeypatch)
    with load(path, backend="onnxruntime") as reference:
        expected = reference(FRAME).labels
    for first in (True, False):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sfpp"):
            lines = []
            with load(path, notify=lines.append) as model:
                np.testing.assert_array_equal(model(FRAME).labels, expected)
        assert model.library.startswith("ONNX Runtime ")
        assert str(model.self_test) == "passed"
        (line,) = lines
        assert re.fullmatch(
            r"warning: model\.onnx runs in ONNX Runtime \S+ on the CPU: chosen because Planted 1\.0 on the CPU answers "
            r"wrongly here \(0\.00% of the labels of a stored frame of \S+ pixels as exported, 98\.00% expected at "
            r"least\)",
            line,
        )
        assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", line)]
        assert opened[-1].closed
        assert len(opened) == (1 if first else 2)  # a failure is found again each time


def test_what_has_passed_is_not_replayed(path, cache, replays):
    model, lines = loaded(path)
    assert (model.self_test.outcome, model.self_test.agreement) == ("passed", 1.0)
    assert re.match(r"model\.onnx runs in .*: chosen because ", lines[0])
    assert lines[1].startswith("model.onnx, first use here: self-test passed: 100.00% of the labels")
    for _ in range(2):
        model, lines = loaded(path)
        assert (model.self_test.outcome, model.self_test.agreement) == ("passed", None)
        assert len(lines) == 1
    assert len(replays) == 1
    assert [each.stat().st_size for each in cache.iterdir()] == [0]


def change_the_version(monkeypatch, tmp_path, path):
    plant(monkeypatch, wrong=False, version="1.1")


def change_the_precision(monkeypatch, tmp_path, path):
    plant(monkeypatch, wrong=False, precision="bf16")


def change_the_override(monkeypatch, tmp_path, path):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SOME_ISA")


def change_the_processor(monkeypatch, tmp_path, path):
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2 fma avx512f\n")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")


def change_the_driver(monkeypatch, tmp_path, path):
    (tmp_path / "version").write_text("NVRM version: 999.1\n")
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path)


def change_the_file(monkeypatch, tmp_path, path):
    stat = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times does


def change_the_contract(monkeypatch, tmp_path, path):
    with load(path, self_test=False) as model:
        contract = model.contract
    return {"contract": dataclasses.replace(contract, variant="another")}


@pytest.mark.parametrize(
    "change",
    [
        change_the_version,
        change_the_precision,
        change_the_override,
        change_the_processor,
        change_the_driver,
        change_the_file,
        change_the_contract,
    ],
)
def test_what_is_another_thing_is_replayed(path, tmp_path, monkeypatch, replays, change):
    plant(monkeypatch, wrong=False)
    loaded(path)
    loaded(path)
    assert len(replays) == 1
    options = change(monkeypatch, tmp_path, path) or {}
    for _ in range(2):
        model, _ = loaded(path, **options)
        assert model.self_test.outcome == "passed"
    assert len(replays) == 2


def test_each_file_is_another_thing(path, tmp_path, replays):
    loaded(path)
    loaded(write_tested(tmp_path / "other.onnx"))
    assert len(replays) == 2


def test_off_by_an_option(path, monkeypatch, replays):
    opened = plant(monkeypatch)
    model, lines = loaded(path, self_test=False)
    assert model.library == "Planted 1.0 on the CPU"
    assert str(model.self_test) == "off"
    assert opened[0].runs == 0
    assert len(lines) == 1
    assert replays == []


def test_one_that_was_named_warns_each_time_and_goes_on(path, monkeypatch, caplog):
    plant(monkeypatch)
    for _ in range(2):
        caplog.clear()
        model, (runs, warning) = loaded(path, backend="openvino")
        assert runs == "model.onnx runs in Planted 1.0 on the CPU: as asked for"
        assert warning.startswith("warning: model.onnx: self-test failed: 0.00% of the labels")
        assert "Do not trust its answers here: choose another library for the .onnx file with --backend" in warning
        assert (caplog.records[-1].levelname, caplog.messages[-1]) == ("WARNING", warning)
        assert str(model.self_test) == "failed (0.00%)"
        assert model.library == "Planted 1.0 on the CPU"


def break_file(path):
    """Let the file say another color order than its graph was made for."""
    with load(path, self_test=False) as model:
        contract = model.contract
    store(path, dataclasses.replace(contract, input=dataclasses.replace(contract.input, color_order="BGR")))


def test_where_all_fail_nothing_runs(path, monkeypatch):
    opened = plant(monkeypatch)
    break_file(path)
    with pytest.raises(SelfTestError) as raised:
        load(path)
    planted, other = raised.value.answers
    assert planted.startswith("Planted 1.0 on the CPU answers wrongly here (34.")  # blue is where green was
    assert re.match(r"ONNX Runtime \S+ on the CPU answers wrongly here \(3", other)
    shares = [float(re.search(r"\(([\d.]+)%", each)[1]) / 100 for each in raised.value.answers]
    assert raised.value.agreement == pytest.approx(max(shares), abs=1e-4)
    text = str(raised.value)
    assert text.startswith("no backend here answers as model.onnx did when it was exported: Planted 1.0")
    assert "sfpp-parity" in text
    assert "--backend NAME runs it in one of them all the same, and --no-self-test asks none" in text
    assert isinstance(raised.value, BackendError)
    assert all(each.closed for each in opened[-1:])
    for options in ({"backend": "onnxruntime"}, {"self_test": False}):
        assert isinstance(loaded(path, **options)[0], Segmenter)


def test_what_cannot_take_over_is_named(path, monkeypatch):
    def refuse(path, options, notify):
        raise BackendError("not today")

    replace_opener(monkeypatch, "onnxruntime", refuse)
    plant(monkeypatch, wrong=False)
    loaded(path)  # nobody asks for the other
    plant(monkeypatch, version="2.0")
    with pytest.raises(SelfTestError, match=r"Planted 2\.0 .*; onnxruntime cannot take over \(not today\)\. "):
        load(path)
    replace_opener(monkeypatch, "openvino", refuse)
    with pytest.raises(BackendError, match=r"^not today$"):  # the first of all, as ever
        load(path)


def test_bfloat16_that_nobody_asked_for_gives_way_to_float32(path, monkeypatch):
    opened = plant(monkeypatch, precision="bf16", wrong=lambda backend: backend.precision == "bf16")
    model, (line, _) = loaded(path)
    assert [each.precision for each in opened] == ["bf16", "fp32"]
    assert model.precision == "fp32"
    assert line.startswith("warning: model.onnx runs in Planted 1.0 on the CPU: chosen because Planted 1.0 on the CPU ")
    # Asked for, it does not.
    assert loaded(path, precision="bf16", backend="openvino")[0].self_test.outcome == "failed"
    with pytest.raises(SelfTestError, match="onnxruntime cannot take over"):
        load(path, precision="bf16")


@pytest.mark.parametrize("answer", ["NaN", "an error", "another shape"])
def test_what_does_not_answer_at_all_is_wrong_too(path, monkeypatch, answer):
    class Failing(Planted):
        def run(self, inputs):
            if answer == "an error":
                raise BackendError("out of luck")
            outputs = super().run(inputs)
            return {name: values * np.nan if answer == "NaN" else values[..., 1:-1] for name, values in outputs.items()}

    def opener(path, options, notify):
        return Failing(path, options, version="1.0", wrong=False, precision="fp32")

    plant(monkeypatch)
    replace_opener(monkeypatch, "openvino", opener)
    model, lines = loaded(path)
    assert model.library.startswith("ONNX Runtime")
    assert "chosen because Planted 1.0 on the CPU answers wrongly here (" in lines[0]
    model, lines = loaded(path, backend="openvino")
    assert (model.self_test.outcome, model.self_test.agreement) == ("failed", None)
    assert lines[1].startswith("warning: model.onnx: self-test failed: ")


def test_a_file_without_one_is_a_quiet_line(tmp_path, cache, caplog):
    write_model(tmp_path / "older.onnx")
    with caplog.at_level(logging.INFO, logger="sfpp"):
        model, lines = loaded(tmp_path / "older.onnx")
    assert str(model.self_test) == "not carried"
    assert len(lines) == 1
    (record,) = (each for each in caplog.records if "self-test" in each.message)
    assert record.levelname == "INFO"
    assert record.message.startswith("older.onnx carries no self-test, so nobody knows whether it answers here")


def test_a_damaged_one_is_a_warning_each_time(path, monkeypatch):
    opened = plant(monkeypatch)
    with load(path, self_test=False) as model:
        contract = model.contract
    store(path, dataclasses.replace(contract, self_test=dataclasses.replace(contract.self_test, sha256="")))
    for _ in range(2):
        model, lines = loaded(path)
        assert str(model.self_test) == "damaged"
        assert lines[1].startswith("warning: model.onnx: the self-test in the contract is damaged")
    assert len(opened) == 3  # it says nothing of the backend


@pytest.mark.parametrize("place", ["a file", "read-only", "no home"])
def test_where_nothing_can_be_kept_it_is_replayed_each_time_without_a_word(path, tmp_path, monkeypatch, replays, place):
    if place == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "file"))
    elif place == "read-only":

        def refuse(*arguments, **options):
            raise PermissionError("read-only")

        monkeypatch.setattr(first_use.Path, "touch", refuse)
    else:

        def homeless():
            raise RuntimeError("Could not determine home directory.")

        for name in ("SFPP_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(first_use.Path, "home", homeless)
    for _ in range(2):
        model, lines = loaded(path, backend="onnxruntime")
        assert (model.self_test.outcome, model.self_test.agreement) == ("passed", 1.0)
        assert len(lines) == 1
    assert len(replays) == 2


def test_of_many_passes_the_youngest_are_kept(path, cache, monkeypatch):
    monkeypatch.setattr(first_use, "_KEPT", 3)
    cache.mkdir(parents=True)
    for age in range(4):
        (cache / f"old-{age}").touch()
        os.utime(cache / f"old-{age}", (1000 + age, 1000 + age))
    loaded(path)
    assert {"old-2", "old-3"} < {each.name for each in cache.iterdir()}
    assert len(list(cache.iterdir())) == 3


def test_a_model_that_is_left_in_the_middle_is_closed(path, monkeypatch):
    def interrupted(model):
        raise KeyboardInterrupt

    opened = plant(monkeypatch)
    monkeypatch.setattr(first_use, "self_test", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(path)
    assert opened[0].closed


def test_two_processes_at_once_are_both_fine(path, cache):
    program = "import sys; from sfpp.runtime import load; print(load(sys.argv[1], backend='onnxruntime').self_test)"
    command = [sys.executable, "-c", program, str(path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate() for each in both] == [("passed\n", "")] * 2
    assert len(list(cache.iterdir())) == 1


def test_openvinos_own_fault_is_noticed(tmp_path, cache):
    """An INT8 file of a form that OpenVINO 2026.4 computes wrong where the CPU has no AMX."""
    pytest.importorskip("openvino")
    path = write_int8_with_concat(tmp_path / "int8.onnx")
    named, _ = loaded(path, backend="openvino", precision="fp32")
    if named.self_test.outcome == "passed":
        pytest.skip(f"here {named.library} computes it right")
    model, (line, _) = loaded(path, precision="fp32")
    assert model.library.startswith("ONNX Runtime")
    assert model.self_test.outcome == "passed"
    assert f"chosen because {named.library} answers wrongly here ({named.self_test.agreement:.2%} of the labels" in line
