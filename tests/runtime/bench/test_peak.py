import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sfpp.runtime.backends import BackendOptions, FunctionBackend
from sfpp.runtime.bench import peak
from sfpp.runtime.bench.peak import CHAINS, MatmulChain, copy_bytes_per_s, matmul_peak
from sfpp.runtime.errors import BackendError
from tests.runtime.bench.models import Clock


def built(chain):
    """How the shipped files were made."""
    names = ["x", *(f"h{index}" for index in range(1, chain.layers)), "y"]
    weight = helper.make_tensor("value", TensorProto.FLOAT, [1], [1 / chain.width])
    nodes = [helper.make_node("ConstantOfShape", ["sizes"], ["weights"], value=weight)]
    nodes += [helper.make_node("MatMul", [before, "weights"], [after]) for before, after in itertools.pairwise(names)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [chain.rows, chain.width]) for name in "xy")
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [chain.width, chain.width])
    graph = helper.make_graph(nodes, "matmul", [x], [y], [sizes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="sfpp")


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_the_shipped_file_is_the_chain(chain):
    shipped = onnx.load(chain.path)
    assert shipped == built(chain)
    onnx.checker.check_model(shipped)
    assert chain.path.stat().st_size < 1000


def test_multiply_adds_are_those_of_the_products():
    """Counted one by one: each value of a product is a sum over ``width``."""
    chain = MatmulChain(rows=3, width=4, layers=5)
    assert chain.multiply_adds == sum(4 for _ in range(5) for _ in range(3) for _ in range(4))


def fake_chains(monkeypatch, clock, durations_s, *, function=None):
    """Small chains in backends that are functions, each taking its time; return the arguments of each opening."""
    chains = {MatmulChain(8, 4, layers): duration for layers, duration in enumerate(durations_s, start=1)}
    opened = []

    def open_backend(path, **arguments):
        opened.append(arguments)
        duration_s = list(chains.values())[len(opened) - 1]

        def run(inputs):
            clock.now += duration_s
            return {"y": np.broadcast_to(inputs["x"].mean(axis=1, keepdims=True), inputs["x"].shape)}

        return FunctionBackend(function or run, metadata={}, description=f"library {len(opened)}"), "no reason"

    monkeypatch.setattr(peak, "CHAINS", tuple(chains))
    monkeypatch.setattr(peak, "open_backend", open_backend)
    return opened


def test_the_best_chain_counts(monkeypatch):
    clock = Clock()
    opened = fake_chains(monkeypatch, clock, (0.1, 0.1, 0.5))
    options = BackendOptions(threads=2, precision="fp32")
    best = matmul_peak(backend="some", options=options, clock=clock)
    assert best.multiply_adds_per_s == pytest.approx(2 * 8 * 4 * 4 / 0.1)
    assert best.description == "library 2"
    assert opened == [{"backend": "some", "options": options}] * 3


def test_a_backend_that_does_not_multiply_is_caught(monkeypatch):
    fake_chains(monkeypatch, Clock(), (0.1,), function=lambda inputs: {"y": inputs["x"]})
    with pytest.raises(BackendError, match=r"gets matrix products wrong: .*--no-peak"):
        matmul_peak(backend=None, options=BackendOptions())


def test_the_fastest_run_counts():
    clock = Clock()
    durations_s = [[9.0, 0.5, 0.2, 0.4, 0.5, 0.6, 0.3], [0.01, 2.0, 2.0, 3.0, 2.0, 2.0, 1.0]]
    left = [iter(each) for each in durations_s]

    def work(index):
        clock.now += next(left[index])

    # The first round is for warming up; five are the least, in which 13.2 seconds pass.
    works = [lambda: work(0), lambda: work(1)]
    assert peak._fastest_s(works, seconds=13.5, clock=clock) == pytest.approx([0.2, 1.0])
    assert [next(each, None) for each in left] == [None, None]


def test_a_real_library_multiplies(monkeypatch, tmp_path):
    chain = MatmulChain(64, 32, 3)
    onnx.save(built(chain), tmp_path / "matmul.onnx")
    monkeypatch.setattr(MatmulChain, "path", tmp_path / "matmul.onnx")
    monkeypatch.setattr(peak, "CHAINS", (chain,))
    best = matmul_peak(backend="onnxruntime", options=BackendOptions(threads=1, cache=False), seconds=0.001)
    assert best.multiply_adds_per_s > 0
    assert best.chain == "64x32"
    assert "ONNX Runtime" in best.description


@pytest.mark.parametrize("threads", [1, 3])
def test_a_copy_reads_and_writes(monkeypatch, threads):
    monkeypatch.setattr(peak, "_COPIED_BYTES", 3 * 2**20)
    clock = Clock()

    def copied(target, source):
        target[:] = source
        clock.now += 0.25 / threads

    monkeypatch.setattr(peak.np, "copyto", copied)
    rate = copy_bytes_per_s(threads=threads, seconds=0, clock=clock)
    assert rate == pytest.approx(2 * 3 * 2**20 / 0.25)
