"""INT8 in the graph: what it computes, where the pairs stand, and that nothing else changes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.observe import observe
from sfpp.calibration.int8.qdq import quantized_weight
from sfpp.calibration.int8.quantizable import ONNXRUNTIME, PORTABLE, TENSORRT, form_for, quantizable
from sfpp.calibration.int8.ranges import Range, range_of
from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.runtime.errors import ModelFileError, UsageError
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.pixels.pictures import read_image
from sfpp.tooling.graph import contract_in, read_model
from tests.calibration.int8.int8_graphs import (
    assert_valid,
    attention_input,
    classifiers,
    dequantized_weights,
    fake_quantized,
    initializers,
    model_of,
    node_named,
    operators,
    outputs_of,
    symmetric,
    weight,
)
from tests.tensorrt_rtx import build_engine

RNG = np.random.default_rng(11)


def hidden_product(operator, shape, *, constants, inputs, **attributes):
    """One product between two ReLUs, so that it is no classifier."""
    return model_of(
        [("Relu", ["x"], ["r"], {}), (operator, inputs, ["y"], attributes), ("Relu", ["y"], ["z"], {})],
        inputs={"x": shape},
        outputs={"z": None},
        constants=constants,
    )


def same_with(model, **arrays):
    """The model with other values in its initializers."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(np.float32), tensor.name))
    return changed


def slowly_quantized(values, axis, largest=127):
    """A weight after INT8, channel by channel and value by value."""
    result = np.empty_like(values)
    for index in range(values.shape[axis]):
        channel = np.take(values, index, axis)
        step = np.float32(max(abs(value) for value in channel.ravel().tolist()) / largest) or np.float32(1)
        rounded = np.array([round(value / step) for value in channel.ravel().tolist()], np.float32) * step
        result[(slice(None),) * axis + (index,)] = rounded.reshape(channel.shape)
    return result


# Arithmetic

PRODUCTS = {
    "conv": ("Conv", [1, 4, 9, 7], (5, 4, 3, 3), ["r", "w", "b"], 0, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", [1, 5, 9, 7], (5, 1, 3, 3), ["r", "w", "b"], 0, {"group": 5}),
    "matmul": ("MatMul", [1, 7, 6], (6, 5), ["r", "w"], 1, {}),
    "matmul, weight first": ("MatMul", [1, 6, 7], (5, 6), ["w", "r"], 0, {}),
    "gemm": ("Gemm", [7, 6], (5, 6), ["r", "w", "b"], 0, {"transB": 1}),
}


@pytest.mark.parametrize(("form", "largest"), [(PORTABLE, 64), (TENSORRT, 127)], ids=["portable", "tensorrt"])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_of_what_is_left_after_rounding(kind, form, largest):
    operator, shape, weight_shape, inputs, axis, attributes = PRODUCTS[kind]
    constants = {"w": weight(*weight_shape), **({"b": weight(5)} if "b" in inputs else {})}
    model = hidden_product(operator, shape, constants=constants, inputs=inputs, **attributes)
    quantized = int8_model(model, symmetric({"r": 1.5}), form=form)
    assert_valid(quantized)
    assert operators(quantized, "QuantizeLinear") == 1
    assert operators(quantized, "DequantizeLinear") == 2
    x = RNG.normal(0, 1, shape).astype(np.float32)
    (answer,) = outputs_of(quantized, x=x)
    # The same product in float, of values that were rounded beforehand; the ReLU leaves what is not negative alone.
    rounded = same_with(model, w=slowly_quantized(constants["w"], axis, largest))
    (expected,) = outputs_of(rounded, x=fake_quantized(np.maximum(x, 0), 1.5))
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert np.abs(answer - outputs_of(model, x=x)[0]).max() > 1e-3  # it does make a difference


def test_values_beyond_the_threshold_are_clipped():
    model = hidden_product("MatMul", [1, 2, 1], constants={"w": np.eye(1, dtype=np.float32)}, inputs=["r", "w"])
    (answer,) = outputs_of(int8_model(model, symmetric({"r": 127.0})), x=np.array([[[1000.0], [3.4]]], np.float32))
    np.testing.assert_allclose(answer.ravel(), [127, 3])


@pytest.mark.parametrize("largest", [127, 64])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_off_by_half_a_step_at_most(axis, largest):
    values = weight(6, 5) * np.array([1e-3, 1, 100, 1e-20, 7], np.float32)
    values[2] = 0
    values[:, 4] = 0
    integers, scales = quantized_weight(values, axis, largest=largest)
    step = scales.reshape((-1, 1) if axis == 0 else (1, -1))
    assert integers.dtype == np.int8
    assert np.abs(integers * step - values).max() <= 0.5001 * step.max()
    assert np.all(np.abs(integers * step - values) <= 0.5001 * step)
    np.testing.assert_allclose(integers * step, slowly_quantized(values, axis, largest), rtol=1e-6)
    others = np.abs(integers).max(axis=1 - axis)
    assert set(others.tolist()) == {0, largest}  # every channel uses the whole range, or is nothing but zeros
    assert scales[[2, 4][axis]] == 1
    assert np.all(scales >= np.abs(values).max(axis=1 - axis) / (largest + 0.001))


# Where the pairs stand


def test_one_pair_for_the_same_values_in_two_layouts():
    quantized = int8_model(attention_input(), symmetric({"normed": 2.0}))
    assert_valid(quantized)
    assert operators(quantized, "QuantizeLinear") == 1
    assert node_named(quantized, "normed/quantized").input[0] == "normed"
    assert node_named(quantized, "node/query").input[0] == "normed/dequantized"
    assert node_named(quantized, "node/channels_first").input[0] == "normed/dequantized"
    assert node_named(quantized, "node/reduced").input[0] == "image"


def test_a_float_node_keeps_the_float_tensor():
    model = attention_input(also_float=True)
    quantized = int8_model(model, symmetric({"normed": 2.0}))
    assert_valid(quantized)
    # The image is pooled in float, so its pair stands behind the change of layout, with the same range.
    assert node_named(quantized, "node/pooled").input[0] == "image"
    assert node_named(quantized, "node/reduced").input[0] == "image/dequantized"
    assert node_named(quantized, "node/channels_first").input[0] == "normed"
    assert node_named(quantized, "node/query").input[0] == "normed/dequantized"
    constants = initializers(quantized)
    assert constants["image/scale"] == constants["normed/scale"] == np.float32(2 / 127)
    x = RNG.normal(0, 1, (1, 24, 8)).astype(np.float32)
    np.testing.assert_array_equal(outputs_of(quantized, tokens=x)[2], outputs_of(model, tokens=x)[2])


def test_some_nodes_only():
    model = attention_input()
    quantized = int8_model(model, symmetric({"normed": 2.0}), nodes=["node/reduced"])
    assert_valid(quantized)
    assert node_named(quantized, "node/query").input[:] == ["normed", "query_weight"]
    assert node_named(quantized, "node/channels_first").input[0] == "normed/dequantized"
    assert set(dequantized_weights(quantized)) == {"reduction_weight"}
    x = RNG.normal(0, 1, (1, 24, 8)).astype(np.float32)
    np.testing.assert_array_equal(outputs_of(quantized, tokens=x)[0], outputs_of(model, tokens=x)[0])


def test_no_nodes_leave_the_model_as_it_is():
    model = attention_input()
    assert int8_model(model, {}, nodes=[]).graph == model.graph


def test_a_graph_input_that_is_read_directly():
    nodes = [("Conv", ["x", "w"], ["y"], {}), ("Relu", ["y"], ["z"], {})]
    model = model_of(
        nodes, inputs={"x": [1, 3, 4, 4]}, outputs={"z": [1, 2, 4, 4]}, constants={"w": weight(2, 3, 1, 1)}
    )
    quantized = int8_model(model, symmetric({"x": 1.0}))
    assert_valid(quantized)
    assert [each.name for each in quantized.graph.input] == ["x"]
    assert node_named(quantized, "node/y").input[0] == "x/dequantized"


def test_an_output_of_the_graph_keeps_its_values():
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("Transpose", ["r"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["t", "w"], ["y"], {}),
        ("Relu", ["y"], ["z"], {}),
    ]
    outputs = {"z": [1, 4, 2], "t": [1, 4, 3]}
    model = model_of(nodes, inputs={"x": [1, 3, 4]}, outputs=outputs, constants={"w": weight(3, 2)})
    quantized = int8_model(model, symmetric({"r": 1.0}))
    assert_valid(quantized)
    assert node_named(quantized, "t/quantized").input[0] == "t"
    x = RNG.normal(0, 1, (1, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(outputs_of(quantized, x=x)[1], np.maximum(x, 0).transpose(0, 2, 1))


# Weights


def twice(second, third=None, **constants):
    """Two products with the same weight."""
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("MatMul", ["r", "w"], ["first"], {}),
        ("Relu", ["first"], ["s"], {}),
        second,
        ("Relu", ["y"], ["z"], {}),
        *([third] if third else []),
    ]
    outputs = {"z": [3, 4], **({third[2][0]: [4, 4]} if third else {})}
    return model_of(nodes, inputs={"x": [3, 4]}, outputs=outputs, constants={"w": weight(4, 4), **constants})


def test_a_weight_of_two_products_is_stored_once():
    quantized = int8_model(twice(("MatMul", ["s", "w"], ["y"], {})), symmetric({"r": 1.0, "s": 1.0}))
    assert_valid(quantized)
    assert list(dequantized_weights(quantized)) == ["w"]
    assert node_named(quantized, "node/first").input[1] == node_named(quantized, "node/y").input[1] == "w/dequantized"


def test_a_weight_along_two_axes_is_stored_twice():
    model = twice(("Gemm", ["s", "w"], ["y"], {"transB": 1}))
    quantized = int8_model(model, symmetric({"r": 1.0, "s": 1.0}))
    assert_valid(quantized)
    assert len(dequantized_weights(quantized)) == 2
    for name, values in dequantized_weights(quantized).items():
        axis = 0 if "axis_0" in name else 1
        np.testing.assert_allclose(values, slowly_quantized(initializers(model)["w"], axis, largest=64))


def test_a_float_copy_stays_only_for_who_reads_it():
    third = ("Sigmoid", ["w"], ["squashed"], {})
    model = twice(("MatMul", ["s", "w"], ["y"], {}), third)
    assert "w" in initializers(int8_model(model, symmetric({"r": 1.0, "s": 1.0})))
    assert "w" in initializers(
        int8_model(twice(("MatMul", ["s", "w"], ["y"], {})), symmetric({"r": 1.0}), nodes=["node/first"])
    )
    assert "w" not in initializers(
        int8_model(twice(("MatMul", ["s", "w"], ["y"], {})), symmetric({"r": 1.0, "s": 1.0}))
    )


def test_a_float_copy_stays_for_a_branch_that_reads_it():
    def branch(name, operator):
        result = helper.make_tensor_value_info(f"{name}_result", TensorProto.FLOAT, [4, 4])
        return helper.make_graph([helper.make_node(operator, ["w"], [f"{name}_result"])], name, [], [result])

    branches = {"then_branch": branch("then", "Relu"), "else_branch": branch("else", "Neg")}
    model = twice(("MatMul", ["s", "w"], ["y"], {}), ("If", ["always"], ["chosen"], branches), always=np.array(True))
    quantized = int8_model(model, symmetric({"r": 1.0, "s": 1.0}))
    assert_valid(quantized)
    assert "w" in initializers(quantized)


def test_a_weight_behind_identity():
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("Identity", ["w"], ["tied"], {}),
        ("MatMul", ["r", "tied"], ["y"], {}),
        ("Relu", ["y"], ["z"], {}),
    ]
    model = model_of(nodes, inputs={"x": [3, 4]}, outputs={"z": [3, 2]}, constants={"w": weight(4, 2)})
    quantized = int8_model(model, symmetric({"r": 1.0}))
    assert_valid(quantized)
    assert "w" not in initializers(quantized)
    assert operators(quantized, "Identity") == 0


# With float16 for the rest


def float16_safe(values):
    half = np.asarray(values, np.float32).astype(np.float16)
    return np.all(half.astype(np.float32) == values) and np.all(half >= np.finfo(np.float16).tiny)


def test_scales_for_float16_are_float16_numbers_before_weights_are_rounded():
    small = weight(6, 5) * np.array([1, 1e-3, 1e-6, 30, 0], np.float32)
    model = hidden_product("MatMul", [1, 7, 6], constants={"w": small}, inputs=["r", "w"])
    quantized = int8_model(model, symmetric({"r": 0.7}), rest="fp16")
    assert_valid(quantized)
    constants = initializers(quantized)
    scales = {name: values for name, values in constants.items() if name.endswith("/scale")}
    assert len(scales) == 2
    assert all(float16_safe(values) for values in scales.values())
    error = np.abs(dequantized_weights(quantized)["w"] - small)
    assert np.all(error <= 0.5001 * scales["w/scale"])


@pytest.mark.parametrize("limit", [1e-9, 0.0078, 0.3, 0.7, 1.1, 2.9, 17.0, 900.0, 8e6])
def test_scales_are_rounded_up_to_float16(limit):
    """Rounded down, the largest value would no longer fit."""
    model = hidden_product("MatMul", [1, 7, 6], constants={"w": weight(6, 5)}, inputs=["r", "w"])
    scale = initializers(int8_model(model, symmetric({"r": limit}), rest="fp16"))["r/scale"]
    assert float16_safe(scale)
    assert limit / 127 * (1 - 1e-6) <= scale <= max(limit / 127 * (1 + 2**-10), np.finfo(np.float16).tiny)


def test_the_opset_is_raised_for_float16_only():
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("MatMul", ["r", "w"], ["y"], {}),
        ("ReduceMax", ["y"], ["m"], {"axes": [-1], "keepdims": 1}),
        ("Relu", ["m"], ["z"], {}),
    ]
    model = model_of(nodes, inputs={"x": [3, 4]}, outputs={"z": [3, 1]}, constants={"w": weight(4, 2)})
    plain, half = int8_model(model, symmetric({"r": 1.0})), int8_model(model, symmetric({"r": 1.0}), rest="fp16")
    assert [plain.opset_import[0].version, half.opset_import[0].version] == [17, 19]
    assert half.ir_version >= 9
    assert_valid(half)
    assert len(node_named(half, "node/m").input) == 2  # the axes became an input with opset 18
    x = RNG.normal(0, 1, (3, 4)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(half, x=x)[0], outputs_of(plain, x=x)[0], rtol=2e-2)


def test_values_beyond_float16():
    model = hidden_product("MatMul", [1, 7, 6], constants={"w": weight(6, 5)}, inputs=["r", "w"])
    with pytest.raises(UsageError, match=r"a scale of 78740.* is beyond float16.*rest='fp32'"):
        int8_model(model, symmetric({"r": 1e7}), rest="fp16")
    int8_model(model, symmetric({"r": 1e7}))


# What cannot be meant


def test_messages():
    model = attention_input()
    with pytest.raises(UsageError, match="'node/querry' is no product that can be INT8, did you mean 'node/query'"):
        int8_model(model, symmetric({"normed": 1.0}), nodes=["node/querry"])
    with pytest.raises(UsageError, match="no range for 'normed'"):
        int8_model(model, {})
    for low, high in ((0.0, 0.0), (1.0, -1.0), (1.0, 2.0), (-1.0, np.nan), (np.nan, 1.0), (-np.inf, np.inf)):
        with pytest.raises(UsageError, match=r"range of 'normed' is .*, expected finite numbers"):
            int8_model(model, {"normed": Range(low, high)})


def test_an_old_opset_is_refused():
    model = attention_input()
    model.opset_import[0].version = 12
    with pytest.raises(ModelFileError, match=r"opset 12, .* needs 13 or more"):
        int8_model(model, symmetric({"normed": 1.0}))


# Exported networks


def ones(model):
    return symmetric({each.activation: 1.0 for each in quantizable(model)})


def ranges_of(model, frame):
    """Ranges on one frame."""
    seen = observe(model, {each.activation for each in quantizable(model)}, [{model.graph.input[0].name: frame}])
    return {name: range_of(each, "percentile") for name, each in seen.items()}


@pytest.fixture(scope="module")
def demo(demo_export):
    """The demonstration network, with merging, and a frame for it."""
    path = demo_export(variant="hq", res="320x192").path
    model = read_model(path)
    return model, batch_from_frames([read_image(demo_frame())], contract_in(model, origin=path.name).input)[0]


def test_sums_of_two_products_fit_into_16_bits_in_the_portable_form(demo):
    model, _ = demo
    for form, largest in ((PORTABLE, 64), (TENSORRT, 127)):
        stored = initializers(int8_model(model, ones(model), form=form))
        weights = [stored[f"{each.weight}/quantized"].astype(int) for each in quantizable(model)]
        assert max(np.abs(each).max() for each in weights) == largest
    assert 2 * 255 * PORTABLE.largest_weight < 2**15


def test_what_a_file_was_exported_for_decides_on_the_form():
    assert [form_for(target) for target in ("portable", "openvino", "tensorrt")] == [PORTABLE, PORTABLE, TENSORRT]
    assert form_for("onnxruntime") is ONNXRUNTIME
    assert form_for("onnxruntime", "fp16") is PORTABLE


def assert_quantized(model, quantized, form=PORTABLE):
    """Every product's weight is int8 only, its input comes from a pair, and nothing but Concat was touched."""
    assert_valid(quantized)
    products = quantizable(model)
    stored, float_weights = initializers(quantized), initializers(model)
    weights = dequantized_weights(quantized)
    assert set(weights) == {each.weight for each in products}
    assert not set(weights) & set(stored)
    for each in products:
        others = [-1 if axis == each.axis else 1 for axis in range(weights[each.weight].ndim)]
        half_steps = stored[f"{each.weight}/scale"].reshape(others) / 2
        assert np.all(np.abs(weights[each.weight] - float_weights[each.weight]) <= 1.001 * half_steps)
    assert operators(quantized, "QuantizeLinear") == len({each.activation for each in products})
    added = {"QuantizeLinear", "DequantizeLinear"}
    names = [node.name for node in model.graph.node if form.keeps_concat or node.op_type != "Concat"]
    kept = [node.name for node in quantized.graph.node if node.op_type not in added]
    assert [name for name in kept if name in names] == names
    assert operators(quantized, "Concat") == (operators(model, "Concat") if form.keeps_concat else 0)
    joined = operators(model, "Concat") - operators(quantized, "Concat")
    assert (len(kept) > len(names)) == (joined > 0)
    readers = {name for node in quantized.graph.node if node.op_type not in added for name in node.input}
    assert not any(name.endswith("/quantized") for name in readers)
    assert classifiers(quantized) == classifiers(model)


def assert_alike(logits, expected):
    # Measured: 98 % of the labels, and an error of 0.0008.
    assert np.mean(expected.argmax(1) == logits.argmax(1)) > 0.96
    assert np.mean((logits - expected) ** 2) < 2e-3 * np.mean(expected**2)


@pytest.mark.parametrize("form", [PORTABLE, TENSORRT], ids=["portable", "tensorrt"])
def test_the_demonstration_network(demo, form):
    model, frame = demo
    quantized = int8_model(model, ranges_of(model, frame), form=form)
    assert_quantized(model, quantized, form)
    assert len(quantized.SerializeToString()) < 0.35 * len(model.SerializeToString())
    assert_alike(*outputs_of(quantized, frame=frame), *outputs_of(model, frame=frame))


def test_the_demonstration_network_for_float16(demo):
    model, frame = demo
    quantized = int8_model(model, ranges_of(model, frame), rest="fp16", form=TENSORRT)
    assert_quantized(model, quantized, TENSORRT)
    assert all(float16_safe(values) for name, values in initializers(quantized).items() if name.endswith("/scale"))
    assert_alike(*outputs_of(quantized, frame=frame), *outputs_of(model, frame=frame))


@pytest.mark.slow
@pytest.mark.parametrize("form", [PORTABLE, TENSORRT], ids=["portable", "tensorrt"])
def test_tensorrt_builds_it(demo, form, tmp_path):
    model, frame = demo
    path = tmp_path / "int8.onnx"
    onnx.save(int8_model(model, ranges_of(model, frame), form=form), str(path))
    assert build_engine(path)


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "options",
    [
        {"variant": "original", "target": "onnxruntime"},
        {"variant": "hq", "target": "openvino", "input": "float32"},
        {"variant": "fast", "matching": "local", "target": "tensorrt"},
        {"variant": "2x2", "output": "labels"},
        {"variant": "kv2x2"},
        {"variant": "downsample"},
        {"task": "pose", "variant": "fast"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_every_kind_of_export(options, rest, tmp_path):
    res = "192x256" if "task" in options else "480x270"  # a grid that does not divide by the cells
    model = read_model(export_onnx(path=tmp_path / "model.onnx", res=res, **options).path)
    form = PORTABLE if options.get("target") == "onnxruntime" else form_for(options.get("target", "portable"))
    quantized = int8_model(model, ones(model), rest=rest, form=form)
    assert_quantized(model, quantized, form)
    if options.get("target") == "onnxruntime":
        assert operators(quantized, "MultiHeadAttention") == 8
        return
    onnx.save(quantized, str(tmp_path / "int8.onnx"))
    assert build_engine(tmp_path / "int8.onnx")
