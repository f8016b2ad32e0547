"""Measuring float16 node by node: against a slow obvious version, and with faults planted in a network."""

import math

import numpy as np
import onnx
import pytest

from sfpp.calibration.fp16.float16_probe import NodeError, float16_probe, measure_fp16, nodes_to_keep_float32
from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_types import float_types
from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.runtime.errors import UsageError
from tests.calibration.fp16.fp16_graphs import EXPORTS, agreement, frame_for, graph, rounded, run, simulated_fp16

RNG = np.random.default_rng(0)


def two_products(up: float = 1.0, down: float = 1.0) -> onnx.ModelProto:
    text = "g (float[1,64,16] x) => (float[1,64,8] y) { h = MatMul(x, v) a = Add(h, b) y = MatMul(a, w) }"
    v, w, b = RNG.normal(size=(16, 32)), RNG.normal(size=(32, 8)), RNG.normal(size=32)
    return graph(text, v=(up * v).astype(np.float32), w=(down * w).astype(np.float32), b=(up * b).astype(np.float32))


def frames(count: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.normal(size=(1, 64, 16)).astype(np.float32)} for _ in range(count)]


def by_name(errors: tuple[NodeError, ...]) -> dict[str, NodeError]:
    return {each.name: each for each in errors}


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


# The figures


def test_each_error_is_the_nodes_own():
    model, inputs = two_products(), frames()
    weights = weights_of(model)
    noise, signal, largest = {"h": 0.0, "a": 0.0, "y": 0.0}, {"h": 0.0, "a": 0.0, "y": 0.0}, {"h": 0, "a": 0, "y": 0}
    for frame in inputs:
        x = frame["x"]
        h = x @ weights["v"]
        a = h + weights["b"]
        steps = {
            "h": (h, rounded(x) @ rounded(weights["v"]), x),
            "a": (a, rounded(h) + rounded(weights["b"]), h),
            "y": (a @ weights["w"], rounded(a) @ rounded(weights["w"]), a),
        }
        for name, (exact, shadow, read) in steps.items():
            noise[name] += np.sum((exact - rounded(shadow)) ** 2)
            signal[name] += np.sum(exact**2)
            largest[name] = max(largest[name], np.abs(exact).max(), np.abs(read).max())
    found = by_name(measure_fp16(model, iter(inputs)))
    assert list(found) == ["h", "a", "y"]
    for name, each in found.items():
        assert each.error == pytest.approx(math.sqrt(noise[name] / signal[name]), rel=0.02)
        assert each.largest == pytest.approx(largest[name], rel=1e-5)
        assert 1e-4 < each.error < 1e-3
        assert not each.overflows
    assert found["a"].operator == "Add"


def test_what_moves_values_or_stays_float32_is_not_measured():
    text = """g (float[1,8,4] x) => (float[1,8,4] y) {
        n = LayerNormalization(x, weight)  t = Transpose<perm: ints = [0, 2, 1]>(n)  m = MatMul(t, n)
        p = Relu(m)  s = Softmax(p)  y = MatMul(x, s) }"""
    model = graph(text, weight=np.ones(4, np.float32))
    errors = measure_fp16(model, [{"x": RNG.normal(size=(1, 8, 4)).astype(np.float32)}])
    assert [(each.name, each.operator) for each in errors] == [("m", "MatMul"), ("y", "MatMul")]


def test_the_largest_value_is_found_in_any_frame_wherever_it_lies():
    """Only a sample of a large tensor is looked at for the error; the largest magnitude is that of all."""
    model = graph("g (float[1,300000] x) => (float[1,300000] y) { y = Mul(x, x) }")
    low = np.full((1, 300_000), 0.1, np.float32)
    high = low.copy()
    high[0, 77_777] = -30
    errors = measure_fp16(model, [{"x": low}, {"x": high}, {"x": low}])
    assert errors[0].largest == pytest.approx(900)
    assert measure_fp16(model, [{"x": low - 1}])[0].largest == pytest.approx(
        0.9, rel=1e-5
    )  # of what it reads, negative


def test_a_large_tensors_error_is_that_of_a_sample():
    model = graph("g (float[1,300000] x) => (float[1,300000] y) { y = Mul(x, x) }")
    x = RNG.normal(size=(1, 300_000)).astype(np.float32)
    (found,) = measure_fp16(model, [{"x": x}])
    whole = np.sqrt(np.sum((x * x - rounded(rounded(x) ** 2)) ** 2) / np.sum(x**4))
    assert found.error == pytest.approx(whole, rel=0.05)


def test_no_frames():
    with pytest.raises(UsageError, match="nothing to measure on: no frame"):
        measure_fp16(two_products(), [])


def test_each_tensor_is_looked_at_before_the_next_one_is_made():
    """ONNX Runtime works towards the last unread node first, so the first tensors' sums have to come last."""
    float_graph = FloatGraph(two_products())
    model = float16_probe(float_graph, float_types(float_graph).computing)
    read = {name for node in model.graph.node for name in node.input}
    unread = [node.output[0] for node in model.graph.node if not read & set(node.output)]
    order = [name.partition("/")[0] for name in reversed(unread) if "/" in name]
    assert order == sorted(order, key="xhay".index)


# What must stay in float32


def test_reasons_are_given_in_words():
    errors = (
        NodeError("fine", "Conv", 100.0, 5e-4, overflows=False),
        NodeError("full", "Add", 1.2e5, math.nan, overflows=True),
        NodeError("near", "Add", 2.0e4, 5e-4, overflows=False),
        NodeError("rough", "Sub", 10.0, 0.031, overflows=False),
        NodeError("lost", "Sub", 10.0, math.nan, overflows=False),
    )
    assert {each.name: each.reason for each in nodes_to_keep_float32(errors)} == {
        "full": "reaches 1.2e+05, float16 ends at 65504",
        "near": "reaches 2e+04, float16 ends at 65504",
        "rough": "rounding costs 3.1 % of the signal",
        "lost": "rounding costs nan % of the signal",
    }


def test_a_cancellation_is_nodes_to_keep_float32():
    text = "g (float[1,64,16] x) => (float[1,64,16] y) { h = Add(x, far) y = Sub(h, far) }"
    found = nodes_to_keep_float32(measure_fp16(graph(text, far=np.float32(1000)), frames()))
    assert [each.name for each in found] == ["y"]
    assert found[0].reason.startswith("rounding costs")


def test_an_overflow_keeps_its_node_and_those_that_read_it():
    model = two_products(up=1.2e4, down=1e-4)
    found = by_name(measure_fp16(model, frames()))
    assert [name for name, each in found.items() if each.overflows] == ["h", "a", "y"]
    keep = [each.name for each in nodes_to_keep_float32(found.values())]
    assert keep == ["h", "a", "y"]
    frame = frames(1)[0]
    expected = run(model, frame)[0]
    assert not np.isfinite(run(simulated_fp16(model), frame)[0]).all()
    np.testing.assert_allclose(run(simulated_fp16(model, keep=keep), frame)[0], expected, rtol=1e-2, atol=1e-2)


# A network


@pytest.fixture(scope="module")
def network(demo_export):
    return onnx.load(demo_export(**EXPORTS["fast-exact"]).path)


def test_a_sound_network_has_nothing_to_keep(network):
    errors = measure_fp16(network, [frame_for(network)])
    assert nodes_to_keep_float32(errors) == ()
    assert max(each.error for each in errors) < 1e-3
    products = {node.name for node in network.graph.node if node.op_type == "Conv"}
    assert products <= {each.name for each in errors}


def test_a_planted_overflow_is_found_and_cured(network):
    """One layer's weights times 32768, the next one's divided by as much: for float32 exactly the same function."""
    planted = onnx.ModelProto()
    planted.CopyFrom(network)
    block = "encoder.stages.1.blocks.0.ffn"
    factors = {f"{block}.expand.weight": 2**15, f"{block}.expand.bias": 2**15, f"{block}.depthwise.weight": 2**-15}
    for tensor in planted.graph.initializer:
        if tensor.name in factors:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(factors.pop(tensor.name))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert not factors
    frame = frame_for(planted)
    expected = run(planted, frame)[0]
    assert agreement(expected, run(network, frame)[0]) == 1
    kept = nodes_to_keep_float32(measure_fp16(planted, [frame]))
    path = "encoder/stages.1/blocks.0/ffn"
    assert {each.name for each in kept} == {f"{path}/expand/Conv", f"{path}/depthwise/Conv"}
    assert all("float16 ends at 65504" in each.reason for each in kept)
    assert agreement(run(simulated_fp16(planted), frame)[0], expected) < 0.9
    keep = [each.name for each in kept]
    assert agreement(run(simulated_fp16(planted, keep=keep), frame)[0], expected) > 0.99
    assert agreement(run(fp16_model(planted, keep=keep), frame)[0], expected) > 0.99
