"""Float16 in the graph: where it is, where it is not, and what its simulation computes."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.runtime.errors import ModelFileError, UsageError
from tests.calibration.fp16.fp16_graphs import (
    EXPORTS,
    FLOAT,
    FLOAT16,
    agreement,
    frame_for,
    graph,
    node_types,
    rounded,
    run,
    simulated_fp16,
    tensor_types,
)
from tests.tensorrt_rtx import build_engine

PRODUCTS = {"Conv", "MatMul", "Gemm", "MultiHeadAttention"}
RNG = np.random.default_rng(0)


SLOW = {"hq-local-labels", "2x2-pose"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPORTS]
)
def model(request, demo_export):
    return onnx.load(demo_export(**EXPORTS[request.param]).path)


@pytest.fixture(scope="module")
def converted(model):
    return fp16_model(model)


# What sfpp-export writes


def test_inputs_outputs_and_metadata_stay(model, converted):
    assert list(converted.graph.input) == list(model.graph.input)
    assert list(converted.graph.output) == list(model.graph.output)
    assert list(converted.metadata_props) == list(model.metadata_props)
    assert list(converted.opset_import) == list(model.opset_import)


def test_types_are_declared_as_they_are_inferred(converted):
    onnx.checker.check_model(converted, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(converted)
    del bare.graph.value_info[:]
    inferred = tensor_types(onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True))
    declared = tensor_types(converted)
    assert {name: declared[name] for name in inferred} == inferred
    assert {name for node in converted.graph.node for name in node.output} <= declared.keys()


def test_products_are_float16_but_for_the_choice_of_partners_and_long_sums(model, converted):
    types = node_types(converted)
    assert all(len(each) <= 1 for name, each in types.items())
    nodes = {node.name: node for node in model.graph.node}
    float32 = {name for name, node in nodes.items() if node.op_type in PRODUCTS and types[name] == {FLOAT}}
    similarities = {name for name in nodes if name.rpartition("/")[2] == "similarity"}
    assert similarities <= float32
    assert {name.rpartition("/")[2] for name in float32 - similarities} <= {"added"}
    for name, node in nodes.items():
        if node.op_type in ("LayerNormalization", "Softmax", "Sqrt"):
            assert types[name] == {FLOAT}
        if "/ffn/" in name and node.op_type in ("Erf", "Gelu", "Div", "Mul", "Add"):
            assert types[name] == {FLOAT16}
        if name.rpartition("/")[2].endswith(("_norm", "_square", "_square_sum", "match_destinations")):
            assert types[name] == {FLOAT}
        if name in ("Sub", "Div"):  # pixel normalization
            assert types[name] == {FLOAT}


def test_casts_are_few(converted):
    types = tensor_types(converted)
    casts = [node for node in converted.graph.node if node.op_type == "Cast"]
    targets = Counter((node.input[0], onnx.helper.get_node_attr_value(node, "to")) for node in casts)
    assert set(targets.values()) == {1}
    from_cast = {node.output[0] for node in casts}
    assert not [node.name for node in casts if node.input[0] in from_cast]
    assert not [node.name for node in casts if types[node.input[0]] == types[node.output[0]]]
    ours = [node for node in casts if {types[node.input[0]], types[node.output[0]]} == {FLOAT, FLOAT16}]
    assert all(node.name.endswith(("/cast_fp16", "/cast_fp32")) for node in ours)
    # into and out of each norm and softmax, into the network and out of it, and four at each matching
    operators = Counter(node.op_type for node in converted.graph.node)
    assert len(ours) <= 2 * (operators["LayerNormalization"] + operators["Softmax"] + operators["TopK"] + 1)


def test_weights_are_stored_once_and_in_float16(model, converted):
    types = tensor_types(converted)
    names = [tensor.name for tensor in converted.graph.initializer]
    assert len(names) == len(set(names))
    assert {name.removesuffix("/fp16") for name in names} == {tensor.name for tensor in model.graph.initializer}
    assert all(types[node.input[1]] == FLOAT16 for node in converted.graph.node if node.op_type == "Conv")
    assert converted.ByteSize() < 0.6 * model.ByteSize()


def test_integers_are_untouched(model, converted):
    before, after = tensor_types(model), tensor_types(converted)
    integers = {name: each for name, each in before.items() if each not in (FLOAT, FLOAT16)}
    assert integers
    assert {name: after[name] for name in integers} == integers


def test_answers_hardly_change(model, converted):
    frame = frame_for(model)
    expected = run(model, frame)[0]
    assert agreement(run(converted, frame)[0], expected) > 0.99
    simulated = simulated_fp16(model)
    assert set(tensor_types(simulated).values()) >= {FLOAT, FLOAT16}
    answer = run(simulated, frame)[0]
    assert agreement(answer, expected) > 0.99
    if answer.dtype == np.float32:
        # Which tokens find another partner depends on how the CPU adds up: 0.014 to 0.021 of the mean, tried.
        assert 1e-4 < np.sqrt(np.mean((answer - expected) ** 2) / np.mean(expected**2)) < 3e-2


def test_with_everything_kept_nothing_changes(model):
    frame = frame_for(model)
    keep = {node.name for node in model.graph.node}
    expected = run(model, frame)[0]
    for kept in (fp16_model(model, keep=keep), simulated_fp16(model, keep=keep)):
        assert FLOAT16 not in tensor_types(kept).values()
        np.testing.assert_array_equal(run(kept, frame)[0], expected)


def test_any_node_can_be_kept(model, tmp_path):
    names = sorted(node.name for node in model.graph.node)
    keep = set(np.random.default_rng(0).choice(names, len(names) // 4, replace=False))
    kept = fp16_model(model, keep=keep)
    types = node_types(kept)
    assert all(types[name] <= {FLOAT} for name in keep & types.keys())
    frame = frame_for(model)
    assert agreement(run(kept, frame)[0], run(model, frame)[0]) > 0.99
    assert_builds(kept, tmp_path)


@pytest.mark.slow
def test_tensorrt_builds_it(converted, tmp_path):
    """A strongly typed network refuses any operation on mixed types."""
    assert_builds(converted, tmp_path)


def assert_builds(model, folder):
    if any(node.domain for node in model.graph.node):
        return  # ONNX Runtime's own operators
    onnx.save(model, folder / "model.onnx")
    assert len(build_engine(folder / "model.onnx")) > 100_000


# The rounding


def test_the_simulation_is_float16_step_by_step():
    """Sums in float32, results in float16; integers below 2^24, so that the order of summation does not matter."""
    x = RNG.integers(-3000, 3000, (1, 5, 8)).astype(np.float32)
    w, b = RNG.integers(-9, 9, (8, 6)).astype(np.float32), np.array([2049.0], np.float32)
    text = "g (float[1,5,8] x) => (float[1,5,6] y) { h = MatMul(x, w)  a = Add(h, b)  s = Neg(a)  y = Mul(s, s) }"
    model = graph(text, w=w, b=b)
    product = rounded(rounded(x) @ rounded(w))
    total = rounded(product + rounded(b))
    expected = rounded(total * total)
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(run(simulated_fp16(model), {"x": x})[0], expected)
    assert not np.array_equal(run(model, {"x": x})[0], expected)


def test_the_simulation_overflows_where_a_gpu_does():
    text = "g (float[1] x) => (float[1] y) { h = Mul(x, up)  y = Mul(h, down) }"
    model = graph(text, up=np.float32(1000), down=np.float32(0.5))
    feeds = {"x": np.array([100], np.float32)}
    assert run(model, feeds)[0] == 50_000
    assert np.isinf(run(simulated_fp16(model), feeds)[0])
    names = {"up": "h", "down": "y"}
    assert run(simulated_fp16(model, keep=names.values()), feeds)[0] == 50_000
    # The second node alone cannot help: what it reads is lost already.
    assert np.isinf(run(simulated_fp16(model, keep=["y"]), feeds)[0])


# Constants that float16 cannot hold


@pytest.mark.parametrize(
    ("expression", "constant", "expected"),
    [
        ("Add(x, c)", 1e-5, FLOAT),
        ("Add(x, c)", 1e-12, FLOAT),
        ("Add(x, c)", 1e5, FLOAT),
        ("Add(x, c)", -1e9, FLOAT),
        ("Add(x, c)", 1.0, FLOAT16),
        ("Mul(x, c)", 0.1, FLOAT16),
        ("Max(x, c)", 1e-6, FLOAT),
        ("Div(x, c)", 1.41421354, FLOAT16),
        ("Div(x, c)", [1.0, 1e-9, 2.0, 1.0], FLOAT),
        ("Mul(x, c)", [1.0, 1e-9, 2.0, 1.0], FLOAT16),
        ("MatMul(x, c)", np.full((4, 4), 7e4), FLOAT),
        ("MatMul(x, c)", np.diag([1.0, 1e-9, 2.0, 1.0]), FLOAT16),
    ],
)
def test_a_constant_decides(expression, constant, expected):
    model = graph(f"g (float[4,4] x) => (float[4,4] y) {{ y = {expression} }}", c=np.asarray(constant, np.float32))
    assert node_types(fp16_model(model))["y"] == {expected}


def test_no_denominator_becomes_zero():
    text = "g (float[1,4] x) => (float[1,4] y) { a = Mul(x, x)  b = Add(a, guard)  y = Div(x, b) }"
    model = graph(text, guard=np.float32(1e-12))
    feeds = {"x": np.array([[0, 1, 2, 3]], np.float32)}
    assert np.isfinite(run(simulated_fp16(model, keep=["b", "y"]), feeds)[0]).all()
    assert node_types(fp16_model(model))["b"] == {FLOAT}


# Norms


LAYER_NORM = """
g (float[1,6,16] x) => (float[1,6,8] y) {
    mean = ReduceMean<axes: ints = [-1]>(x)
    centered = Sub(x, mean)
    square = Pow(centered, two)
    variance = ReduceMean<axes: ints = [-1]>(square)
    guarded = Add(variance, guard)
    deviation = Sqrt(guarded)
    unit = Div(centered, deviation)
    weighted = Mul(unit, weight)
    normed = Add(weighted, bias)
    y = MatMul(normed, projection)
}"""


def layer_norm():
    return graph(
        LAYER_NORM,
        two=np.float32(2),
        guard=np.float32(1e-6),
        weight=RNG.normal(1, 0.1, 16).astype(np.float32),
        bias=RNG.normal(0, 0.1, 16).astype(np.float32),
        projection=RNG.normal(0, 1, (16, 8)).astype(np.float32),
    )


def test_a_decomposed_layer_norm_stays_whole_in_float32():
    model = layer_norm()
    types = node_types(fp16_model(model))
    assert types.pop("y") == {FLOAT16}
    assert set(map(frozenset, types.values())) == {frozenset({FLOAT})}
    feeds = {"x": RNG.normal(0, 1000, (1, 6, 16)).astype(np.float32)}  # squares of a million
    np.testing.assert_allclose(run(simulated_fp16(model), feeds)[0], run(model, feeds)[0], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "length",
    [
        "q = Mul(x, x) s = ReduceSum<keepdims: int = 1>(q, axes) r = Sqrt(s) y = Div(x, r)",
        "q = Mul(x, x) s = ReduceSum<keepdims: int = 1>(q, axes) g = Max(s, tiny) r = Sqrt(g) y = Div(x, r)",
        "r = ReduceL2<axes: ints = [-1]>(x) y = Div(x, r)",
        "r = ReduceL2<axes: ints = [-1]>(x) g = Add(r, tiny) y = Div(x, g)",
        "r = ReduceL2<axes: ints = [-1]>(x) c = Clip(r, tiny) e = Expand(c, wide) y = Div(x, e)",
        "q = Mul(x, x) s = ReduceSum<keepdims: int = 1>(q, axes) r = Sqrt(s) i = Div(one, r) y = Mul(x, i)",
        "q = Pow(x, two) s = ReduceMean<axes: ints = [-1]>(q) r = Sqrt(s) i = Reciprocal(r) y = Mul(x, i)",
        "q = Pow(x, two) s = ReduceMean<axes: ints = [-1]>(q) r = Pow(s, inverse_root) y = Mul(x, r)",
    ],
)
def test_lengths_stay_in_float32(length):
    constants = {"axes": np.array([-1]), "two": np.float32(2), "inverse_root": np.float32(-0.5), "tiny": np.float32(1)}
    constants |= {"one": np.float32(1), "wide": np.array([2, 8])}
    used = {name: each for name, each in constants.items() if name in length}
    converted = fp16_model(graph(f"g (float[2,8] x) => (float[2,8] y) {{ {length} }}", **used))
    assert FLOAT16 not in tensor_types(converted).values()


def test_an_attention_mask_and_softmax():
    text = """g (float[1,4,8] q, float[1,8,4] k, bool[1,4,4] masked) => (float[1,4,8] y) {
        scores = MatMul(q, k)  hidden = Where(masked, low, scores)  weights = Softmax(hidden)
        values = Transpose<perm: ints = [0, 2, 1]>(k)  y = MatMul(weights, values) }"""
    model = graph(text, low=np.float32(-1e9))
    types = node_types(fp16_model(model))
    assert (types["hidden"], types["weights"]) == ({FLOAT}, {FLOAT})
    assert (types["scores"], types["values"], types["y"]) == ({FLOAT16}, {FLOAT16}, {FLOAT16})


def test_gelu_has_one_type():
    text = """g (float[1,8] x) => (float[1,8] y) {
        w = MatMul(x, weight) d = Div(w, root) e = Erf(d) a = Add(e, one) m = Mul(w, a) h = Mul(m, half)
        y = MatMul(h, weight) }"""
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    model = graph(text, weight=np.eye(8, dtype=np.float32), **constants)
    chain = {"d", "e", "a", "m", "h"}
    for kept in chain:
        types = node_types(fp16_model(model, keep=[kept]))
        assert {name for name, each in types.items() if each == {FLOAT}} == chain
    assert all(node_types(fp16_model(model))[name] == {FLOAT16} for name in chain)


# Sums over merged tokens


def merge(tokens: int) -> onnx.ModelProto:
    """All tokens that have partner 0 are averaged into it."""
    text = f"""g (float[1,{tokens},4] x, int32[1,1,{tokens}] partner) => (float[1,2,4] y) {{
        hit = Equal(partner, column)  one_hot = Cast<to: int = 1>(hit)
        sum = MatMul(one_hot, x)  count = ReduceSum<keepdims: int = 1>(one_hot, axes)
        safe = Add(count, one)  y = Div(sum, safe) }}"""
    column = np.arange(2, dtype=np.int32).reshape(1, 2, 1)
    return graph(text, column=column, axes=np.array([-1]), one=np.float32(1))


@pytest.mark.parametrize(("tokens", "expected"), [(16, FLOAT16), (3000, FLOAT)])
def test_long_merges_are_summed_in_float32(tokens, expected):
    model = merge(tokens)
    types = node_types(fp16_model(model))
    assert all(types[name] == {expected} for name in ("sum", "count", "safe", "y"))
    feeds = {"x": np.full((1, tokens, 4), 40, np.float32), "partner": np.zeros((1, 1, tokens), np.int32)}
    np.testing.assert_allclose(run(simulated_fp16(model), feeds)[0], run(model, feeds)[0], rtol=2e-3)


# What moves values, and what makes or takes them


def test_what_moves_values_follows_its_neighbors():
    text = """g (float[1,8,4] x) => (float[1,4,8] y, int64[1,8] index) {
        n = LayerNormalization(x, weight)  turned = Transpose<perm: ints = [0, 2, 1]>(n)
        up = MatMul(projection, turned)  back = Transpose<perm: ints = [0, 2, 1]>(up)
        m = LayerNormalization(back, weight)  best, index3 = TopK<axis: int = 2>(m, one)
        index = Reshape(index3, shape)  y = Identity(up) }"""
    constants = {"one": np.array([1]), "shape": np.array([1, 8]), "projection": np.eye(4, dtype=np.float32)}
    types = node_types(fp16_model(graph(text, weight=np.ones(4, np.float32), **constants)))
    assert (types["turned"], types["up"], types["back"]) == ({FLOAT16}, {FLOAT16}, {FLOAT16})
    assert types["best"] == {FLOAT}


@pytest.mark.parametrize(
    ("outputs", "reader"),
    [("float[1,4,4] y, float[1,4,8] z", "z = Softmax(t)"), ("float[1,4,4] y, float[1,4,8] t", "")],
)
def test_what_is_wanted_in_both_types_is_moved_in_float32(outputs, reader):
    """The cast comes after it, so that nothing is lost on the way to those that need float32."""
    text = f"""g (float[1,8,4] x) => ({outputs}) {{
        n = LayerNormalization(x, weight)  t = Transpose<perm: ints = [0, 2, 1]>(n)  {reader}  y = MatMul(t, n) }}"""
    model = graph(text, weight=np.ones(4, np.float32))
    assert node_types(fp16_model(model))["t"] == {FLOAT}
    feeds = {"x": RNG.normal(size=(1, 8, 4)).astype(np.float32)}
    np.testing.assert_array_equal(run(simulated_fp16(model), feeds)[1], run(model, feeds)[1])


def test_a_cast_to_float_becomes_a_cast_to_float16():
    text = """g (bool[1,4] hit, float[4,3] x) => (float[1,3] y, int32[1,3] whole) {
        one_hot = Cast<to: int = 1>(hit)  y = MatMul(one_hot, x)  whole = Cast<to: int = 6>(y) }"""
    converted = fp16_model(graph(text))
    casts = [(node.input[0], node.output[0]) for node in converted.graph.node if node.op_type == "Cast"]
    assert tensor_types(converted)["one_hot"] == FLOAT16
    assert casts == [("hit", "one_hot"), ("x", "x/cast_fp16"), ("y/fp16", "y"), ("y/fp16", "whole")]


def test_an_output_that_is_read_again():
    text = (
        "g (float[1,4] x) => (float[1,4] y, float[1,4] z, float[1,4] s) { y = Mul(x, x) z = Sigmoid(y) s = Softmax(y) }"
    )
    model = graph(text)
    converted = fp16_model(model)
    inputs = {node.op_type: node.input[0] for node in converted.graph.node}
    assert (inputs["Sigmoid"], inputs["Softmax"]) == ("y/fp16", "y")
    feeds = {"x": RNG.normal(size=(1, 4)).astype(np.float32)}
    for answer, simulated in zip(run(converted, feeds), run(simulated_fp16(model), feeds), strict=True):
        np.testing.assert_allclose(answer, simulated, rtol=2e-3, atol=1e-5)


def test_a_constant_of_two_types_is_stored_twice_and_of_one_type_once():
    text = "g (float[1,4] x) => (float[1,4] y) { a = MatMul(x, w) b = MatMul(a, w) y = MatMul(b, w) }"
    w = RNG.normal(size=(4, 4)).astype(np.float32)
    one = fp16_model(graph(text, w=w))
    assert [(each.name, each.data_type) for each in one.graph.initializer] == [("w", FLOAT16)]
    two = fp16_model(graph(text, w=w), keep=["b"])
    assert {each.name: each.data_type for each in two.graph.initializer} == {"w": FLOAT16, "w/fp32": FLOAT}
    none = fp16_model(graph(text, w=w), keep=["a", "b", "y"])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(none.graph.initializer[0]), w)


def test_what_an_operator_wants_in_float32_stays():
    text = """g (float[1,2,4,4] x) => (float[1,2,8,8] y) {
        y = Resize<mode: string = "linear">(x, roi, scales) }"""
    roi, scales = np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)
    converted = fp16_model(graph(text, roi=roi, scales=scales))
    types = tensor_types(converted)
    assert (types["roi"], types["scales"], types["x/cast_fp16"], types["y/fp16"]) == (FLOAT, FLOAT, FLOAT16, FLOAT16)


def test_constant_nodes_and_nodes_without_a_name():
    text = "g (float[1,4] x) => (float[1,4] y) { c = Constant<value_float: float = 2.5>() m = Mul(x, c) y = Sqrt(m) }"
    model = graph(text)
    assert not any(node.name for node in model.graph.node)
    converted = fp16_model(model)
    assert {each.name: each.data_type for each in converted.graph.initializer} == {"c": FLOAT16}
    assert FLOAT16 not in tensor_types(fp16_model(model, keep=["m"])).values()
    assert run(converted, {"x": np.full((1, 4), 10, np.float32)})[0][0, 0] == 5


@pytest.mark.parametrize("constant", ["node", "initializer"])
def test_constants_whose_type_is_declared_as_other_exporters_do(constant):
    node = "c = Constant<value_float: float = 2.5>()" if constant == "node" else ""
    weights = {} if constant == "node" else {"c": np.float32(2.5)}
    model = graph(f"g (float[1,4] x) => (float[1,4] y) {{ {node} m = Mul(x, c) y = Sqrt(m) }}", **weights)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", FLOAT, ()))
    converted = fp16_model(model)
    assert {each.name: each.data_type for each in converted.graph.initializer} == {"c": FLOAT16}
    assert run(converted, {"x": np.full((1, 4), 10, np.float32)})[0][0, 0] == 5
    assert run(simulated_fp16(model), {"x": np.full((1, 4), 10, np.float32)})[0][0, 0] == 5


# INT8


def quantized(opset: int = 19, scale: float = 0.015625, weight_scales=(0.5, 0.25)) -> onnx.ModelProto:
    text = """g (float[1,4] x) => (float[1,2] y) {
        a = Relu(x)
        q = QuantizeLinear(a, scale, zero)  d = DequantizeLinear(q, scale, zero)
        w = DequantizeLinear<axis: int = 1>(stored, scales, zeros)
        y = MatMul(d, w) }"""
    return graph(
        text,
        opset=opset,
        scale=np.float32(scale),
        zero=np.int8(0),
        stored=RNG.integers(-64, 65, (4, 2)).astype(np.int8),  # larger ones overflow on CPUs without VNNI
        scales=np.array(weight_scales, np.float32),
        zeros=np.zeros(2, np.int8),
    )


def test_int8_gets_float16_scales():
    model = quantized()
    converted = fp16_model(model)
    types = tensor_types(converted)
    assert (types["d"], types["w"], types["scales"]) == (FLOAT16, FLOAT16, FLOAT16)
    assert types["stored"] == types["q"] == onnx.TensorProto.INT8
    feeds = {"x": RNG.uniform(0, 2, (1, 4)).astype(np.float32)}
    expected = run(model, feeds)[0]
    np.testing.assert_allclose(run(simulated_fp16(model), feeds)[0], expected, rtol=2e-3, atol=2e-3)
    try:
        answer = run(converted, feeds)[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException as error:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} folds float16 scales as if they were float32: {error}")
    np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=2e-3)


def test_int8_needs_opset_19():
    with pytest.raises(UsageError, match=r"quantized \(QuantizeLinear 'q'\) and has opset 17.*--opset 19"):
        fp16_model(quantized(17))


@pytest.mark.parametrize("scales", [{"scale": 0.1}, {"weight_scales": (0.5, 0.1)}])
def test_a_scale_that_float16_would_change_is_refused(scales):
    with pytest.raises(ModelFileError, match=r"is 0\.1\d*, which is no float16 number"):
        fp16_model(quantized(**scales))


# What is refused


def test_keep_must_name_nodes():
    model = graph("g (float[1,4] x) => (float[1,4] y) { y = Mul(x, x) }")
    model.graph.node[0].name = "blocks.0/product"
    with pytest.raises(UsageError, match=r"keep names 'block\.0/product'.*did you mean 'blocks\.0/product'"):
        fp16_model(model, keep=["block.0/product"])


def test_float16_is_not_converted_again():
    model = fp16_model(graph("g (float[1,4] x) => (float[1,4] y) { y = Mul(x, x) }"))
    with pytest.raises(UsageError, match="is float16 already; give the float32 model"):
        fp16_model(model)


def test_control_flow_is_refused():
    text = """g (float[1,4] x, bool b) => (float[1,4] y) {
        y = If (b) <then_branch = t () => (float[1,4] u) { u = Identity(x) },
                    else_branch = e () => (float[1,4] v) { v = Neg(x) }> }"""
    with pytest.raises(UsageError, match=r"'y' \(If\) has a graph of its own"):
        fp16_model(graph(text))


def test_a_tensor_of_unknown_type_is_refused():
    model = graph("g (float[1,4] x) => (float[1,4] y) { h = Mul(x, x) y = Neg(h) }")
    model.graph.node[0].domain, model.graph.node[0].op_type = "elsewhere", "Thing"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    with pytest.raises(ModelFileError, match="nobody knows the type of tensor 'h', which Thing of 'elsewhere' writes"):
        fp16_model(model)


def test_an_invalid_graph_is_refused():
    model = graph("g (float[1,4] x) => (float[1,4] y) { y = MatMul(x, w) }", w=np.zeros((3, 4), np.float32))
    with pytest.raises(ModelFileError, match="not a valid model"):
        fp16_model(model)


def test_a_graph_that_would_be_invalid_is_refused_with_a_way_on(monkeypatch):
    monkeypatch.setattr("sfpp.calibration.fp16.fp16_model.float16_positions", lambda graph, index: ())
    model = graph("g (float[1,4] x) => (float[1,4] y) { m = Mul(x, x) y = Sqrt(m) }")
    with pytest.raises(ModelFileError, match=r"cannot be written into this graph.*--precision int8"):
        fp16_model(model)


def test_the_given_model_is_left_alone(model):
    before = model.SerializeToString(deterministic=True)
    simulated_fp16(model)
    assert model.SerializeToString(deterministic=True) == before


def test_kmeans_chooses_cells_and_weighs_them_in_float32(demo_export):
    model = onnx.load(demo_export(variant="fast+", res="320x256").path)
    types = node_types(fp16_model(model))
    early = {node.name: node.op_type for node in model.graph.node if node.name.startswith("encoder/stages.0/blocks.0")}
    chosen = [name for name, op in early.items() if name.rpartition("/")[2].startswith("similarity") or op == "Log"]
    assert len(chosen) == 3  # two rounds, and the logs of sizes
    assert {kind for name in chosen for kind in types[name]} == {FLOAT}
    assert types["encoder/stages.0/blocks.0/attention/sized_scores"] == {FLOAT16}
