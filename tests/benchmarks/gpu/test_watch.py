import dataclasses
import sys

import pytest

from benchmarks.gpu import watch as module
from benchmarks.gpu.matrix import FULL, PRESETS, TINY, graphs_of
from benchmarks.gpu.parts import GRAPHS, LIBRARIES, Parts
from benchmarks.gpu.results import read_gpu_results
from benchmarks.gpu.watch import Settings, Watch, run_tests
from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.timing import summarize
from tests.benchmarks.gpu.fake_measure import GROUP


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """A function that makes a watch over a process that runs ``module`` instead of the one that measures."""
    monkeypatch.setitem(PRESETS, "fake", (GROUP,))
    parts = Parts(tmp_path / "parts")
    parts.content(GRAPHS).mkdir(parents=True)
    parts.pack(GRAPHS)

    def make(measure="tests.benchmarks.gpu.fake_measure", **settings):
        monkeypatch.setattr(module, "_MEASURE", measure)
        options = {"device": "cpu", "preset": "fake", "tests": False, "step_seconds": 4.0, **settings}
        return Watch(Settings(parts.folder, output=tmp_path / "out", **options), notify=print)

    return make


def test_what_hangs_or_dies_is_a_row_with_its_reason(watch, tmp_path):
    watch().run()
    results = read_gpu_results(tmp_path / "out" / "results_cpu_fake.json")
    reasons = {row.name: row.missing for row in results.rows}
    assert reasons == {
        "hangs": "took longer than 4 s",
        "dies": "the measuring process ended with signal 9",
        "fine": None,
    }
    assert results.row(GROUP, "fine").time.p50_ms == 1.0


def test_a_second_run_goes_on_and_leaves_alone_what_is_there(watch):
    first = watch()
    first._begin()
    results = first._results()
    for name in GROUP.names:
        results.fail(GROUP, name, "so it is")
    results.write(first.results_path)
    watch("no.such.module").run()
    assert {row.missing for row in first._results().rows} == {"so it is"}


def test_what_failed_can_be_tried_again(watch, tmp_path):
    first = watch()
    first._begin()
    results = first._results()
    for name in GROUP.names:
        results.fail(GROUP, name, "so it was")
    results.put(dataclasses.replace(results.row(GROUP, "dies"), time=summarize([7.0]), missing=None))
    results.put(dataclasses.replace(results.row(GROUP, "hangs"), time=summarize([7.0]), missing=None))
    results.write(first.results_path)
    watch(retry=True).run()
    assert {row.name: row.time.p50_ms for row in first._results().rows} == {"dies": 7.0, "hangs": 7.0, "fine": 1.0}
    assert (tmp_path / "out" / "results_cpu_fake.log").is_file()


def test_results_of_other_graphs_are_not_gone_on_with(watch, capsys):
    first = watch()
    first._begin()
    results = first._results()
    results.facts["graphs"] = {"graphs-00": "others"}
    results.fail(GROUP, "fine", "then")
    results.write(first.results_path)
    first._begin()
    assert first._results().rows == []
    assert "is of other graphs: beginning anew" in capsys.readouterr().out


def test_a_process_that_cannot_begin_ends_it(watch):
    with pytest.raises(
        SfppError, match=r"anything the measuring process ended with exit code 1: .*No module named 'no'"
    ):
        watch("no.such.module").run()


def test_without_time_nothing_is_started(watch):
    stopped = watch("no.such.module", minutes=0.0)
    stopped.run()
    assert stopped._results().rows == []


def test_the_processes_look_for_libraries_among_those_that_travelled(watch, monkeypatch):
    parts = watch()._parts
    parts.content(LIBRARIES).mkdir()
    (parts.content(LIBRARIES) / "travelled.py").write_text("raise SystemExit(__file__)")
    parts.pack(LIBRARIES)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SfppError, match=f"exit code 1: {parts.content(LIBRARIES)}/travelled.py"):
        watch("travelled").run()


def test_libraries_of_another_python_are_refused(watch):
    folder = watch()._parts.folder
    Parts(folder).pack(GRAPHS, python="2.7")
    with pytest.raises(UsageError, match=r"the libraries are for Python 2.7 and this is 3.\d+; run with python2.7"):
        watch()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert True", {"passed": 1, "failed": [], "skipped": {}}),
        ("assert False", {"passed": 0, "failed": ["test_card.test_it"], "skipped": {}}),
        ("pytest.skip('no card')", {"passed": 0, "failed": [], "skipped": {"no card": 1}}),
    ],
)
def test_the_tests_for_cards_are_counted(tmp_path, monkeypatch, body, found):
    (tmp_path / "tests").mkdir()
    text = f"import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    {body}\n\n\ndef test_other():\n    assert False\n"
    (tmp_path / "tests" / "test_card.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    counted = run_tests(1000.0)
    assert {**counted, "failed": [name.removeprefix("tests.") for name in counted["failed"]]} == found


def test_tests_that_take_too_long_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    text = "import pytest, time\n\n\n@pytest.mark.gpu\ndef test_it():\n    time.sleep(1000)\n"
    (tmp_path / "tests" / "test_card.py").write_text(text)
    assert run_tests(0.5) == {"cut_off_after_s": 0.5}


def test_every_graph_is_listed_once_and_every_contestant_of_a_group_too():
    graphs = graphs_of(FULL)
    assert len({graph.file_name for graph in graphs}) == len(graphs)
    assert [graph.network for graph in graphs] == sorted(graph.network for graph in graphs)
    for group in (*FULL, *TINY):
        assert len(set(group.names)) == len(group.names)
    assert len({(group.network, group.size, group.precision) for group in FULL}) == len(FULL)
    labels = TINY[1].graphs[-1]
    assert (labels.variant, labels.matching, labels.target, labels.output) == ("fast", None, "onnxruntime", "labels")
    assert labels.file_name == "b0-128x128-fast-labels-fp16.onnx"
