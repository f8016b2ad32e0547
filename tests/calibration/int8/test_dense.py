"""The dense form for ONNX Runtime: what it computes, what the library makes of it, and what it leaves alone."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest

from sfpp.calibration.int8.dense import prepared
from sfpp.calibration.int8.int8_model import int8_model, tensors_to_observe
from sfpp.calibration.int8.observe import observe
from sfpp.calibration.int8.quantizable import ONNXRUNTIME, PORTABLE, quantizable
from sfpp.calibration.int8.ranges import Range, range_of
from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.pixels.pictures import read_image
from sfpp.tooling.graph import contract_in, read_model
from tests.calibration.int8.int8_graphs import (
    assert_valid,
    initializers,
    model_of,
    node_named,
    operators,
    outputs_of,
    weight,
)

RNG = np.random.default_rng(19)


def quantized(model, ranges, **options):
    return int8_model(model, ranges, form=ONNXRUNTIME, **options)


def optimized(model, folder):
    """The operators of the graph that ONNX Runtime runs, and how often each stands there."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return {name: nodes.count(name) for name in nodes}


def rounded(values, low, high):
    """What a uint8 pair makes of values: the slow, obvious way."""
    step = (high - low) / 255
    zero = round(-low / step)
    steps = [min(max(round(value / step) + zero, 0), 255) - zero for value in np.ravel(values).tolist()]
    return np.array(steps, np.float32).reshape(np.shape(values)) * np.float32(step)


def rounded_weight(values, axis=0):
    moved = np.moveaxis(values, axis, 0)
    steps = [np.abs(channel).max() / 64 or 1.0 for channel in moved]
    channels = [np.rint(channel / step) * step for channel, step in zip(moved, steps, strict=True)]
    return np.moveaxis(np.array(channels, np.float32), 0, axis)


# Two convolutions, the second behind a ReLU, and a matrix product: float at both ends.
CHAIN = [
    ("Neg", ["x"], ["n"], {}),
    ("Conv", ["n", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1]}),
    ("Relu", ["c0"], ["r0"], {}),
    ("Conv", ["r0", "w1"], ["c1"], {}),
    ("Neg", ["c1"], ["answer"], {}),
]
CONSTANTS = {"w0": weight(6, 3, 3, 3), "b0": weight(6), "w1": weight(4, 6, 1, 1)}
RANGES = {"n": Range(-2.5, 1.0), "r0": Range(0.0, 9.0), "c1": Range(-20.0, 12.0)}


@pytest.fixture
def chain():
    return model_of(CHAIN, inputs={"x": [1, 3, 5, 4]}, outputs={"answer": [1, 4, 5, 4]}, constants=CONSTANTS)


def test_each_value_is_what_is_left_after_rounding(chain):
    model = quantized(chain, RANGES)
    assert_valid(model)
    x = RNG.normal(0, 1, (1, 3, 5, 4)).astype(np.float32)
    values = rounded(-x, -2.5, 1.0)
    step = np.abs(CONSTANTS["w0"]).reshape(6, -1).max(1) / 64 * np.float32(3.5 / 255)
    bias = np.rint(CONSTANTS["b0"] / step) * step
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    first = np.einsum("nchwij,ocij->nohw", windows, rounded_weight(CONSTANTS["w0"])) + bias.reshape(1, -1, 1, 1)
    inner = rounded(np.maximum(first, 0), 0.0, 9.0)
    second = np.einsum("nchw,oc->nohw", inner, rounded_weight(CONSTANTS["w1"])[:, :, 0, 0])
    expected = -rounded(second, -20.0, 12.0)
    (answer,) = outputs_of(model, x=x)
    # Where a sum lies between two steps, either is right.
    assert np.abs(answer - expected).max() <= 1.001 * 32 / 255
    assert np.mean(np.abs(answer - expected) < 1e-4) > 0.95


def test_zero_stays_zero(chain):
    for low, high in ((-2.5, 1.0), (0.0, 7.0), (-3.0, 0.0), (-1e-3, 5.0)):
        constants = initializers(quantized(chain, {**RANGES, "n": Range(low, high)}))
        step, zero = constants["n/scale"], int(constants["n/zero_point"])
        assert 0 <= zero <= 255
        assert (0 - zero) * step <= low + step
        assert (255 - zero) * step >= high - step


def test_a_relu_is_taken_along_and_its_input_has_no_pair(chain, tmp_path):
    model = quantized(chain, RANGES)
    pairs = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert pairs == ["n", "r0", "c1"]
    counts = optimized(model, tmp_path)
    assert counts["QLinearConv"] == 2
    assert "Relu" not in counts
    assert "Conv" not in counts


def test_weights_fit_into_sums_of_16_bits(chain):
    stored = initializers(quantized(chain, RANGES))
    assert {np.abs(stored[f"{name}/quantized"].astype(int)).max() for name in ("w0", "w1")} == {64}


def test_a_bias_far_above_its_weights_keeps_its_value():
    """A dead channel's scale would send its bias beyond int32, a channel of zeros would round it to whole steps."""
    constants = {"w": weight(4, 3, 1, 1), "b": np.array([5, -3, 0.25, 0], np.float32)}
    constants["w"][0] *= 1e-12
    constants["w"][1:] *= np.array([0, 1, 0]).reshape(3, 1, 1, 1)
    nodes = [("Neg", ["x"], ["n"], {}), ("Conv", ["n", "w", "b"], ["c"], {}), ("Neg", ["c"], ["answer"], {})]
    model = model_of(nodes, inputs={"x": [1, 3, 2, 2]}, outputs={"answer": [1, 4, 2, 2]}, constants=constants)
    (answer,) = outputs_of(
        quantized(model, {"n": Range(-1, 1), "c": Range(-8, 8)}), x=np.zeros((1, 3, 2, 2), np.float32)
    )
    np.testing.assert_allclose(-answer[0, :, 0, 0], constants["b"], atol=8 / 255)


def test_only_what_reads_nothing_but_quantized_values_is_quantized():
    nodes = [
        ("Neg", ["x"], ["n"], {}),
        ("Conv", ["n", "w0"], ["c0"], {}),
        ("Conv", ["n", "w1"], ["c1"], {}),
        ("Add", ["c0", "c1"], ["sum"], {}),  # both are quantized
        ("Relu", ["sum"], ["r"], {}),
        ("Add", ["r", "n"], ["mixed"], {}),  # one is float
        ("Sigmoid", ["mixed"], ["answer"], {}),
    ]
    constants = {"w0": weight(3, 3, 1, 1), "w1": weight(3, 3, 1, 1)}
    model = model_of(nodes, inputs={"x": [1, 3, 4, 4]}, outputs={"answer": [1, 3, 4, 4]}, constants=constants)
    wanted = tensors_to_observe(model, ONNXRUNTIME)
    assert wanted == {"n", "c0", "c1", "r"}
    made = quantized(model, dict.fromkeys(wanted, Range(-4.0, 4.0)))
    assert_valid(made)
    assert node_named(made, "node/sum").input[:] == ["c0/dequantized", "c1/dequantized"]
    assert node_named(made, "node/mixed").input[:] == ["r/dequantized", "n"]
    assert node_named(made, "node/answer").input[0] == "mixed"
    # With one of the two in float, the sum is float too.
    part = quantized(model, dict.fromkeys(wanted, Range(-4.0, 4.0)), nodes=["node/c0"])
    assert_valid(part)
    assert node_named(part, "node/sum").input[:] == ["c0/dequantized", "c1"]
    assert node_named(part, "node/mixed").input[:] == ["r", "n"]


@pytest.mark.parametrize("shape", [(1, 7, 6), (2, 1, 7, 6)])
def test_a_linear_layer_stays_int8_whatever_its_rank(shape, tmp_path):
    nodes = [
        ("Neg", ["x"], ["n"], {}),
        ("MatMul", ["n", "w"], ["m"], {}),
        ("Add", ["b", "m"], ["s"], {}),
        ("Sigmoid", ["s"], ["answer"], {}),
    ]
    constants = {"w": weight(6, 5), "b": weight(5)}
    model = model_of(nodes, inputs={"x": shape}, outputs={"answer": [*shape[:-1], 5]}, constants=constants)
    made = quantized(model, {"n": Range(-3.0, 3.0)})
    assert_valid(made)
    x = RNG.normal(0, 1, shape).astype(np.float32)
    expected = rounded(-x, -3.0, 3.0) @ rounded_weight(constants["w"], axis=1) + constants["b"]
    np.testing.assert_allclose(outputs_of(made, x=x)[0], 1 / (1 + np.exp(-expected)), atol=1e-5)
    counts = optimized(made, tmp_path)
    assert counts["MatMulIntegerToFloat"] == 1
    assert counts.get("DequantizeLinear", 0) == 0  # of a weight: in every run


def test_a_matrix_product_of_two_axes_stays_float():
    nodes = [("Neg", ["x"], ["n"], {}), ("MatMul", ["n", "w"], ["m"], {}), ("Neg", ["m"], ["answer"], {})]
    model = model_of(nodes, inputs={"x": [7, 6]}, outputs={"answer": [7, 5]}, constants={"w": weight(6, 5)})
    assert quantizable(model, ONNXRUNTIME) == ()
    assert len(quantizable(model, PORTABLE)) == 1


# The float graph that it starts from

GELU = [
    ("Div", ["x", "root"], ["scaled"], {}),
    ("Erf", ["scaled"], ["erf"], {}),
    ("Add", ["erf", "one"], ["shifted"], {}),
    ("Mul", ["x", "shifted"], ["product"], {}),
    ("Mul", ["product", "half"], ["gelu"], {}),
    ("Sigmoid", ["gelu"], ["answer"], {}),
]
NUMBERS = {name: np.float32(value) for name, value in {"root": math.sqrt(2), "one": 1, "half": 0.5}.items()}


def gelu(nodes=GELU, numbers=NUMBERS):
    return model_of(nodes, inputs={"x": [2, 9]}, outputs={"answer": [2, 9]}, constants=numbers)


def replaced(index, node):
    return [*GELU[:index], node, *GELU[index + 1 :]]


@pytest.mark.parametrize(
    ("nodes", "numbers"),
    [
        (GELU, NUMBERS),
        (replaced(0, ("Mul", ["root", "x"], ["scaled"], {})), {**NUMBERS, "root": np.float32(math.sqrt(0.5))}),
        (replaced(2, ("Add", ["one", "erf"], ["shifted"], {})), NUMBERS),
        (
            [
                *GELU[:3],
                ("Mul", ["half", "shifted"], ["product"], {}),
                ("Mul", ["product", "x"], ["gelu"], {}),
                GELU[-1],
            ],
            NUMBERS,
        ),
    ],
    ids=["as exported", "by a product", "one first", "half first"],
)
def test_gelu_becomes_one_operator(nodes, numbers):
    model = gelu(nodes, numbers)
    joined = prepared(model)
    assert_valid(onnx.shape_inference.infer_shapes(joined))
    assert [node.op_type for node in joined.graph.node] == ["Gelu", "Sigmoid"]
    x = RNG.normal(0, 2, (2, 9)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(joined, x=x)[0], outputs_of(model, x=x)[0], atol=1e-6)
    assert operators(model, "Erf") == 1  # the model itself stays


@pytest.mark.parametrize(
    ("nodes", "numbers"),
    [
        (GELU, {**NUMBERS, "root": np.float32(1.5)}),
        (GELU, {**NUMBERS, "one": np.float32(2)}),
        (GELU, {**NUMBERS, "half": np.float32(0.4)}),
        (replaced(0, ("Div", ["root", "x"], ["scaled"], {})), NUMBERS),
        (replaced(3, ("Mul", ["scaled", "shifted"], ["product"], {})), NUMBERS),
        (replaced(3, ("Mul", ["shifted", "shifted"], ["product"], {})), NUMBERS),
        (replaced(5, ("Mul", ["gelu", "erf"], ["answer"], {})), NUMBERS),
    ],
    ids=["another root", "another one", "another half", "a quotient", "another x", "a square", "erf read twice"],
)
def test_what_is_no_gelu_stays(nodes, numbers):
    assert operators(prepared(gelu(nodes, numbers)), "Gelu") == 0


@pytest.mark.parametrize("bias", [True, False])
def test_a_classifier_becomes_a_matrix_product(bias):
    constants = {"w": weight(5, 3, 1, 1), **({"b": weight(5)} if bias else {})}
    nodes = [("Neg", ["x"], ["n"], {}), ("Conv", ["n", *constants], ["logits"], {})]
    model = model_of(nodes, inputs={"x": [2, 3, 4, 6]}, outputs={"logits": [2, 5, 4, 6]}, constants=constants)
    turned = prepared(model)
    assert_valid(turned)
    x = RNG.normal(0, 1, (2, 3, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(turned, x=x)[0], outputs_of(model, x=x)[0], atol=1e-5)
    (product,) = quantizable(turned, ONNXRUNTIME)
    assert (product.node, product.operator, product.axis) == ("node/logits", "MatMul", 1)
    made = quantized(turned, {"n": Range(-3.0, 3.0)})
    assert_valid(made)
    expected = rounded(-x, -3.0, 3.0).transpose(0, 2, 3, 1) @ rounded_weight(constants["w"])[:, :, 0, 0].T
    expected = expected + constants.get("b", 0)
    np.testing.assert_allclose(outputs_of(made, x=x)[0], expected.transpose(0, 3, 1, 2), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "attributes"), [((5, 3, 3, 3), {"pads": [1, 1, 1, 1]}), ((3, 1, 1, 1), {"group": 3})]
)
def test_other_classifiers_stay_float(shape, attributes):
    nodes = [("Neg", ["x"], ["n"], {}), ("Conv", ["n", "w"], ["logits"], attributes)]
    model = model_of(
        nodes, inputs={"x": [1, 3, 4, 6]}, outputs={"logits": [1, shape[0], 4, 6]}, constants={"w": weight(*shape)}
    )
    assert [node.op_type for node in prepared(model).graph.node] == ["Neg", "Conv"]
    assert quantizable(prepared(model), ONNXRUNTIME) == ()


# Exported networks


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "fast", "matching": "local", "res": "320x192"},
        pytest.param({"variant": "original", "res": "320x192", "output": "labels"}, marks=pytest.mark.slow),
        pytest.param({"variant": "2x2", "res": "480x270", "batch": 2}, marks=pytest.mark.slow),
        pytest.param({"task": "pose", "variant": "hq", "res": "192x256"}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_product_of_a_network_runs_in_int8(options, tmp_path):
    path = export_onnx(path=tmp_path / "model.onnx", target="onnxruntime", **options).path
    model = prepared(read_model(path))
    contract = contract_in(model, origin=path.name)
    frame, _ = batch_from_frames([read_image(demo_frame())] * contract.input.batch, contract.input)
    fed = {contract.input.name: frame}
    ranges = {
        name: range_of(seen, "percentile")
        for name, seen in observe(model, tensors_to_observe(model, ONNXRUNTIME), [fed]).items()
    }
    made = quantized(model, ranges)
    assert_valid(made)
    counts = optimized(made, tmp_path)
    products = quantizable(model, ONNXRUNTIME)
    assert counts["QLinearConv"] == sum(each.operator == "Conv" for each in products)
    assert counts["MatMulIntegerToFloat"] == sum(each.operator == "MatMul" for each in products)
    assert counts["Gelu"] == 8
    assert not {"Conv", "Gemm", "Erf"} & counts.keys()
    # Narrow reductions and the classifier are among them, other than in the portable form.
    assert len(products) > len(quantizable(model, PORTABLE))
    assert len(made.SerializeToString()) < 0.4 * len(model.SerializeToString())
    answer, expected = outputs_of(made, **fed)[0], outputs_of(model, **fed)[0]
    if contract.task == "pose":
        assert np.mean((answer - expected) ** 2) < 0.02 * np.mean(expected**2)
        return
    labels, right = (each if each.dtype == np.uint8 else each.argmax(1) for each in (answer, expected))
    assert np.mean(labels == right) > 0.95  # measured: 96.0 %, with ranges of this one frame
