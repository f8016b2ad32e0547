"""For each rule a graph in which it applies and one in which it does not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.check.graphs import (
    FLOAT,
    HALF,
    INT64,
    branching,
    calling_a_function,
    labels,
    layer_norm,
    model,
    node,
    nonzero,
    one,
    quantized,
    scatter_elements,
    scatter_nd,
    topk,
)

UINT8, DOUBLE = TensorProto.UINT8, TensorProto.DOUBLE
PICTURE = {"shape": (1, 3, 8, 8)}
SCALES = np.array([1, 1, 2, 2], np.float32)


@dataclass(frozen=True)
class Example:
    """Two graphs; ``only`` says why TensorRT-RTX cannot be asked about the first one."""

    wrong: Callable[[], onnx.ModelProto]
    right: Callable[[], onnx.ModelProto]
    only: str = ""


def resize(**attributes):
    return one(
        "Resize", **PICTURE, to=(1, 3, 16, 16), inputs=("x", "", "s"), opset=18, mode="linear", s=SCALES, **attributes
    )


def reduction(*, computed=False, opset=18):
    axes = {} if computed else {"a": np.array([1])}
    graph = one("ReduceMean", shape=(2, 4), to=(2, 1), inputs=("x", "a"), opset=opset, **axes)
    if computed:
        graph.graph.input.append(helper.make_tensor_value_info("a", INT64, (1,)))
    return graph


def pool(operator, **attributes):
    return one(operator, **PICTURE, to=(1, 3, 7, 7) if "dilations" not in attributes else (1, 3, 6, 6), **attributes)


def max_pool(*outputs):
    graph = pool("MaxPool", kernel_shape=[2, 2])
    graph.graph.node[0].output.extend(outputs)
    return graph


def cumulative_sums(*axes):
    steps = [
        helper.make_node("CumSum", ["x", f"a{axis}"], [f"y{number}"], name=f"here/{number}")
        for number, axis in enumerate(axes)
    ]
    constants = {f"a{axis}": np.array(axis) for axis in axes}
    outputs = {f"y{number}": (FLOAT, (3, 4)) for number in range(len(axes))}
    return model(steps, {"x": (FLOAT, (3, 4))}, outputs, **constants)


def grid_sample(*sizes):
    return model(
        [node("GridSample", ["x", "g"], ["y"], mode="linear")],
        {"x": (FLOAT, (1, 3, *sizes)), "g": (FLOAT, (1, *sizes, len(sizes)))},
        {"y": (FLOAT, (1, 3, *sizes))},
        opset=20,
    )


def group_norm(opset, scales):
    weights = {name: np.ones(scales, np.float32) for name in "gb"}
    return one("GroupNormalization", shape=(1, 4, 8, 8), inputs="xgb", opset=opset, num_groups=2, **weights)


def einsum(equation):
    return model(
        [node("Einsum", ["x", "z"], ["y"], equation=equation)],
        {"x": (FLOAT, (2, 3, 4)), "z": (FLOAT, (2, 4, 5))},
        {"y": (FLOAT, (2, 3, 5))},
    )


def attention(kind, heads=(1, 2, 64, 32), **attributes):
    return model(
        [node("Attention", ["q", "k", "v"], ["y"], **attributes)],
        dict.fromkeys("qkv", (kind, heads)),
        {"y": (kind, heads)},
        opset=23,
    )


def cast(source, target):
    return model([node("Cast", ["x"], ["y"], to=target)], {"x": (source, (1, 4))}, {"y": (target, (1, 4))}, opset=21)


def with_scales_of_eight_bits():
    """A type that ONNX has from opset 24 on."""
    if not hasattr(TensorProto, "FLOAT8E8M0"):
        pytest.skip("the installed onnx has no float8e8m0")
    steps = [node("Cast", ["x"], ["y"], to=FLOAT)]
    return model(steps, {"x": (TensorProto.FLOAT8E8M0, (1, 4))}, {"y": (FLOAT, (1, 4))}, opset=24)


def uint8_picture(first):
    """A uint8 input that is cast, and transposed before or after."""
    names = ["x", "between", "y"]
    steps = {"Cast": {"to": FLOAT}, "Transpose": {"perm": [0, 3, 1, 2]}}
    order = sorted(steps, key=lambda each: each != first)
    nodes = [node(each, [names[n]], [names[n + 1]], **steps[each]) for n, each in enumerate(order)]
    return model(nodes, {"x": (UINT8, (1, 8, 8, 3))}, {"y": (FLOAT, (1, 3, 8, 8))})


def large_numbers(value):
    steps = [
        helper.make_node("Cast", ["x"], ["i"], to=INT64),
        helper.make_node("Add", ["i", "c"], ["j"]),
        helper.make_node("Cast", ["j"], ["y"], to=FLOAT),
    ]
    return model(steps, {"x": (FLOAT, (4,))}, {"y": (FLOAT, (4,))}, c=np.array(value))


def with_bias(dtype):
    """A convolution whose bias is dequantized from so many bits."""
    steps = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"]),
        node("DequantizeLinear", ["b8", "s"], ["b"]),
        helper.make_node("Conv", ["d", "w", "b"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w8": np.ones((6, 3, 3, 3), np.int8), "b8": np.ones(6, dtype)}
    return model(steps, {"x": (FLOAT, (1, 3, 8, 8))}, {"y": (FLOAT, (1, 6, 6, 6))}, **constants)


def softmax(*, subtract):
    steps = [helper.make_node("ReduceMax", ["x"], ["m"], axes=[-1]), helper.make_node("Sub", ["x", "m"], ["s"])]
    steps = [
        *(steps if subtract else []),
        node("Exp", ["s" if subtract else "x"], ["e"]),
        helper.make_node("ReduceSum", ["e", "a"], ["sum"]),
        helper.make_node("Div", ["e", "sum"], ["y"]),
    ]
    return model(steps, {"x": (HALF, (3, 4))}, {"y": (HALF, (3, 4))}, a=np.array([-1]))


def relu(**options):
    return one("Relu", **options)


def dropout(training):
    inputs = ("x", "r", "t")
    return one("Dropout", inputs=inputs, r=np.array(0.5, np.float32), t=np.array(training))


PROFILE = "an optimization profile is needed, which the gate does not give"
EXAMPLES = {
    "local-function": Example(calling_a_function, relu),
    "opset-above": Example(lambda: relu(opset=18), relu),
    "opset-below": Example(lambda: relu(opset=8), lambda: relu(opset=9)),
    "operator-unknown": Example(lambda: one("Unique", to=(None,), sorted=1), relu),
    "operator-foreign": Example(lambda: one("Blur", domain="own.operators"), relu),
    "operator-namesake": Example(lambda: one("Gelu", domain="com.microsoft"), lambda: one("Gelu", opset=20)),
    "computed-input": Example(lambda: reduction(computed=True), reduction),
    "reduce-axes": Example(reduction, lambda: one("ReduceMean", shape=(2, 4), to=(2, 1), axes=[1])),
    "resize-antialias": Example(lambda: resize(antialias=1), resize),
    "resize-coordinates": Example(
        lambda: one(
            "Resize",
            **PICTURE,
            to=(1, 3, 16, 16),
            inputs=("x", "r", "s"),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            r=np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
            s=SCALES,
        ),
        lambda: resize(coordinate_transformation_mode="align_corners"),
    ),
    "resize-aspect": Example(
        lambda: one(
            "Resize",
            **PICTURE,
            to=(1, 3, 16, 16),
            inputs=("x", "", "", "n"),
            opset=18,
            keep_aspect_ratio_policy="not_larger",
            axes=[2, 3],
            n=np.array([16, 16]),
        ),
        resize,
    ),
    "pad-wrap": Example(
        lambda: one("Pad", to=(1, 6), inputs=("x", "p"), opset=19, mode="wrap", p=np.array([0, 1, 0, 1])),
        lambda: one("Pad", to=(1, 6), inputs=("x", "p"), opset=19, mode="reflect", p=np.array([0, 1, 0, 1])),
    ),
    "further-outputs": Example(lambda: max_pool("at"), max_pool),
    "maxpool-indices": Example(lambda: max_pool("at"), lambda: max_pool("")),
    "pool-dilations": Example(
        lambda: pool("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), lambda: pool("MaxPool", kernel_shape=[2, 2])
    ),
    "training": Example(lambda: dropout(True), lambda: dropout(False)),
    "group-norm-21": Example(lambda: group_norm(21, 4), lambda: group_norm(20, 2)),
    "grid-sample-3d": Example(lambda: grid_sample(4, 4, 4), lambda: grid_sample(4, 4)),
    "einsum": Example(lambda: einsum("...ij,...jk->...ik"), lambda: einsum("bij,bjk->bik")),
    "mod-float": Example(
        lambda: one("Mod", inputs=("x", "w"), w=np.ones(4, np.float32)),
        lambda: one("Mod", inputs=("x", "w"), fmod=1, w=np.ones(4, np.float32)),
    ),
    "attention-extras": Example(lambda: attention(HALF, softcap=5.0), lambda: attention(HALF)),
    "attention-float32": Example(lambda: attention(FLOAT), lambda: attention(HALF)),
    "topk-k": Example(lambda: topk(3841), lambda: topk(3840)),
    "topk-k-computed": Example(
        lambda: model(
            [node("TopK", ["x", "k"], ["y", "at"])],
            {"x": (FLOAT, (1, 50)), "k": (INT64, (1,))},
            {"y": (FLOAT, (1, "k"))},
        ),
        lambda: topk(5),
        only=PROFILE,
    ),
    "topk-unsorted": Example(lambda: topk(5, sorted=0), lambda: topk(5)),
    "scatter-elements-reduction": Example(lambda: scatter_elements("add"), lambda: scatter_elements("none")),
    "scatter-nd-reduction": Example(lambda: scatter_nd("add"), lambda: scatter_nd(None)),
    "scatter-nd-none": Example(lambda: scatter_nd("none"), lambda: scatter_nd(None)),
    "scatter-indices": Example(lambda: scatter_elements(None, indices=6), lambda: scatter_elements(None, indices=5)),
    "counts-values": Example(nonzero, relu),
    "cumsum-slow": Example(lambda: cumulative_sums(0), relu),
    "cumsum-mixed": Example(lambda: cumulative_sums(0, 1), lambda: cumulative_sums(1, 1)),
    "type-unknown": Example(lambda: cast(TensorProto.INT16, FLOAT), lambda: cast(TensorProto.INT32, FLOAT)),
    "type-unsure": Example(
        with_scales_of_eight_bits,
        lambda: cast(HALF, FLOAT),
        only="it is about versions of TensorRT proper",
    ),
    "uint8-between": Example(lambda: uint8_picture("Transpose"), lambda: uint8_picture("Cast")),
    "int64-end": Example(lambda: labels(INT64), lambda: labels(UINT8)),
    "int64-output": Example(lambda: labels(INT64), lambda: labels(UINT8)),
    "int64-input": Example(lambda: cast(INT64, FLOAT), lambda: cast(TensorProto.INT32, FLOAT)),
    "int64-clamped": Example(lambda: large_numbers(1 << 40), lambda: large_numbers(1 << 30)),
    "double": Example(lambda: relu(kind=DOUBLE), relu),
    "float8": Example(
        lambda: cast(TensorProto.FLOAT8E4M3FN, FLOAT),
        lambda: cast(HALF, FLOAT),
        only="the gate builds for a card of compute capability 8.6",
    ),
    "zero-point": Example(lambda: quantized(zero_point=3), quantized),
    "quantized-uint8": Example(lambda: quantized(dtype=np.uint8), quantized),
    "quantized-untyped": Example(lambda: quantized(typed=False), quantized),
    "dequantized-int32": Example(lambda: with_bias(np.int32), lambda: with_bias(np.int8)),
    "scale-not-positive": Example(lambda: quantized(scale=0.0), quantized),
    "scale-float16": Example(lambda: quantized(half=True, opset=19), quantized),
    "scale-float16-early": Example(lambda: quantized(half=True), lambda: quantized(half=True, opset=19)),
    "activation-by-channel": Example(lambda: quantized(scale=[0.1] * 4, axis=1), quantized),
    "weight-axis": Example(lambda: quantized(weight_axis=0), lambda: quantized(weight_axis=-1)),
    "norm-float16": Example(lambda: layer_norm(HALF), lambda: layer_norm(FLOAT)),
    "softmax-float16": Example(lambda: softmax(subtract=False), lambda: softmax(subtract=True)),
    "dimensions": Example(lambda: relu(shape=(1,) * 9), lambda: relu(shape=(1,) * 8)),
    "dynamic-shape": Example(lambda: relu(shape=("batch", 4)), relu, only=PROFILE),
    "empty-tensor": Example(lambda: relu(shape=(0, 4)), relu),
    "control-flow": Example(branching, relu),
}
