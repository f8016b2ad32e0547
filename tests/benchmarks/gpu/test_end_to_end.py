"""From the graphs to the table, on the CPU and at a size at which no figure means anything."""

import functools
import itertools
import math
import shutil

import onnx
import pytest
import torch

from benchmarks.gpu import results as results_module
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.contestants import Device, Opened, open_pytorch
from benchmarks.gpu.graphs import Weights, checkpoint_weights
from benchmarks.gpu.matrix import COMPILED, SDPA, TINY, Group, graphs_of
from benchmarks.gpu.measure import Bench, Limits, input_of
from benchmarks.gpu.parts import GRAPHS, Parts
from benchmarks.gpu.results import Results, read_gpu_results
from benchmarks.speed.models import save_checkpoint, transformers_contract
from sfpp.export.settings import Resolution

pytest.importorskip("transformers", reason="the Transformers library is not installed")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What ``prepare`` leaves, and the graphs as they were before their weights were taken out."""
    folder = tmp_path_factory.mktemp("prepared")
    whole, strip = [], Weights.strip

    def keep(weights, model):
        whole.append(model.SerializeToString(deterministic=True))
        return strip(weights, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Weights, "strip", keep)
        assert main(["prepare", "--preset", "tiny", "--no-libraries", "--folder", str(folder)]) == 0
    return Parts(folder), whole


@pytest.fixture(scope="module")
def measured(prepared, tmp_path_factory):
    """The folder of a machine that got the pieces alone, and measured."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(prepared[0].folder / "pieces", folder / "pieces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert main(arguments(folder)) == 0
    return folder


def arguments(folder):
    options = ["--preset", "tiny", "--device", "cpu", "--no-tests", "--minutes", "1000", "--step-seconds", "10000"]
    return ["measure", *options, "--folder", str(folder), "--output", str(folder / "out")]


def test_a_filled_graph_is_the_exported_one_to_the_bit(prepared, tmp_path):
    parts, whole = prepared
    weights = checkpoint_weights("b0", tmp_path / "again")
    assert parts.read_list()["weights"] == {"b0": weights.sha256}
    assert weights.sha256.startswith("600420fef8922f13"), "a checkpoint of another machine would have other weights"
    assert len(set(whole)) == len(graphs_of(TINY)) == 4
    for graph in graphs_of(TINY):
        model = onnx.load(parts.content(GRAPHS) / graph.file_name)
        assert model.ByteSize() < 1e6
        weights.fill(model)
        assert model.ByteSize() > 7e6
        assert model.SerializeToString(deterministic=True) in whole


def test_what_was_exported_is_not_exported_again(prepared, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.graphs.write_stripped", lambda *_: pytest.fail("exported"))
    assert main(["prepare", "--preset", "tiny", "--no-libraries", "--folder", str(prepared[0].folder)]) == 0


@pytest.mark.slow
def test_every_contestant_is_timed_and_agrees(measured):
    results = read_gpu_results(measured / "out" / "results_cpu_tiny.json")
    assert [(row.backend, row.name) for row in results.rows] == [
        (group.backend, name) for group in TINY for name in group.names
    ]
    rows = {row.name: row for row in results.rows if row.backend == "gpu:fp32" or row.name == "fast:labels"}
    for row in results.rows:
        assert row.missing is None
        assert row.time.count == len(row.samples_ms) >= 3
        assert row.whole_ms > row.time.p50_ms * 0.9
        assert row.reference == "pytorch:sdpa in fp32"
    for name in ("pytorch", SDPA, "transformers"):
        assert rows[name].labels_as_reference > 0.999
        assert rows[name].logits_error < 1e-4
    # Merging changes labels of random weights; that it is the merging that was asked for shows beside PyTorch's own.
    assert rows["fast"].labels_as_reference < 0.99 < rows["fast"].labels_as_same_merging
    assert rows["fast"].to_sdpa.median > 0
    assert (rows["fast"].fallback_nodes, rows["fast"].copy_nodes) == ({}, 0)
    assert rows["pytorch"].copy_nodes is None
    assert rows["fast:labels"].labels_as_same_merging > 0.8  # float16 settles near ties otherwise
    assert rows["fast:labels"].logits_error is None
    assert results.facts["device"]["torch"] == torch.__version__


@pytest.mark.slow
def test_a_second_run_measures_nothing_that_is_there(measured):
    path = measured / "results_cpu_tiny.json"
    before = path.read_bytes()
    assert main(arguments(measured)) == 0
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_table_is_printed_drawn_and_kept(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results_module, "RESULTS", tmp_path)
    path, chart = measured / "out" / "results_cpu_tiny.json", tmp_path / "gpu.svg"
    assert main(["table", str(path), "--chart", str(chart)]) == 0
    printed = capsys.readouterr().out
    assert "B0 at 128x128, float32:" in printed
    assert "| `fast` |" in printed
    assert chart.stat().st_size > 1000
    assert (tmp_path / "gpu_cpu.json").read_bytes() == path.read_bytes()


def bench_of(parts):
    return Bench(parts, Device("cpu"), notify=lambda line: None)


def missing_after(parts, name):
    group, results = Group("b0", "128x128", "fp32", (name,)), Results([], {})
    bench_of(parts).measure(group, results, Limits(math.inf, 1, 1.0), save=lambda: None)
    return results.row(group, name).missing


def test_what_cannot_be_opened_is_a_row_with_its_reason(prepared, tmp_path):
    parts, _ = prepared
    assert missing_after(parts, "fast:local").startswith("b0-128x128-fast-local-fp32.onnx was not prepared")
    other = Parts(tmp_path)
    shutil.copytree(parts.content(GRAPHS), other.content(GRAPHS))
    other.pack(GRAPHS, weights={"b0": "of other values"})
    assert missing_after(other, "fast").startswith("the weights of b0 that this machine makes are not those")


def test_who_fails_while_timed_leaves_and_keeps_what_it_has(tmp_path):
    """The first run is the one that fetches memory."""
    runs = {"pytorch": itertools.count(), "original": itertools.count(), "fast": itertools.count()}
    last = {"pytorch": 100, "original": 3, "fast": 0}

    def infer(name):
        if next(runs[name]) == last[name]:
            raise RuntimeError("out of memory\nand more")
        return torch.zeros(1)

    group, results = Group("b0", "128x128", "fp32", tuple(runs)), Results([], {})
    opened = {index: Opened(Device("cpu"), functools.partial(str, name), infer) for index, name in enumerate(runs)}
    bench_of(Parts(tmp_path))._time(group, opened, results, Limits(math.inf, 5, 1000.0))
    rows = {name: results.row(group, name) for name in runs}
    assert {name: row.missing for name, row in rows.items()} == {
        "pytorch": None,
        "original": "RuntimeError: out of memory",
        "fast": "RuntimeError: out of memory",
    }
    assert {name: len(row.samples_ms) for name, row in rows.items()} == {"pytorch": 5, "original": 2, "fast": 0}
    assert rows["original"].to_pytorch.median > 0
    assert rows["pytorch"].to_pytorch is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler uses what PyTorch itself deprecates
def test_the_compiled_model_answers_as_the_plain_one(tmp_path):
    checkpoint = save_checkpoint("b0", tmp_path / "b0")
    image = input_of(transformers_contract("b0", Resolution(128, 128)))
    plain, compiled = (open_pytorch(name, checkpoint, image, Device("cpu"), "fp32") for name in (SDPA, COMPILED))
    torch.testing.assert_close(compiled.answer(), plain.answer(), rtol=1e-3, atol=1e-3)
