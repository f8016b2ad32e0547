"""Small graphs to quantize, and ways to run and to ask them."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.int8.qdq import along
from sfpp.calibration.int8.quantizable import ProductIndex
from sfpp.calibration.int8.ranges import Range
from sfpp.tooling.graph import name_of

RNG = np.random.default_rng(7)


def weight(*shape, scale=1.0, rng=RNG):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def model_of(nodes, *, inputs, outputs, constants=None, opset=17, infer=True, domains=()):
    """Return a checked model with the shape of every tensor.

    nodes: (operator, inputs, outputs, attributes) each; a node's name is its first output's with ``node/`` before it.
    inputs, outputs: shape by name, float32.
    constants: array by name.
    """
    graph = helper.make_graph(
        [
            helper.make_node(operator, read, given, name=f"node/{given[0]}", **attributes)
            for operator, read, given, attributes in nodes
        ],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True) if infer else model


def symmetric(magnitudes):
    """Ranges that end at these magnitudes on both sides."""
    return {name: Range(-value, value) for name, value in magnitudes.items()}


def outputs_of(model, **arrays):
    """Run with ONNX Runtime's optimizations off, so that a Q/DQ pair does what it says."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, arrays)


def assert_valid(model):
    """Check types, shapes, attributes and the order of the nodes, as strictly as ONNX can."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    names = [each.name for each in [*model.graph.initializer, *model.graph.value_info]]
    assert len(names) == len(set(names))
    produced = {name for node in model.graph.node for name in node.output}
    assert {each.name for each in model.graph.value_info} <= produced


def initializers(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def node_named(model, name):
    return next(node for node in model.graph.node if node.name == name)


def operators(model, *names):
    """How many nodes there are of these operators."""
    return sum(node.op_type in names for node in model.graph.node)


def fake_quantized(values, threshold):
    """What a pair makes of values: the slow, obvious way."""
    step = np.float32(threshold / 127)
    return np.clip(np.rint(values / step), -128, 127).astype(np.float32) * step


def attention_input(*, also_float=False):
    """A norm's output that one product reads as it is and another as an image; ``also_float`` adds a pooling."""
    nodes = [
        ("Relu", ["tokens"], ["normed"], {}),
        ("MatMul", ["normed", "query_weight"], ["query"], {}),
        ("Transpose", ["normed"], ["channels_first"], {"perm": [0, 2, 1]}),
        ("Reshape", ["channels_first", "image_shape"], ["image"], {}),
        ("Conv", ["image", "reduction_weight", "reduction_bias"], ["reduced"], {"strides": [2, 2]}),
        ("Relu", ["query"], ["answer"], {}),
        ("Relu", ["reduced"], ["context"], {}),
    ]
    outputs = {"answer": [1, 24, 5], "context": [1, 6, 2, 3]}
    if also_float:
        nodes.append(("AveragePool", ["image"], ["pooled"], {"kernel_shape": [2, 2]}))
        outputs["pooled"] = [1, 8, 3, 5]
    constants = {
        "query_weight": weight(8, 5),
        "reduction_weight": weight(6, 8, 2, 2),
        "reduction_bias": weight(6),
        "image_shape": np.array([1, 8, 4, 6], np.int64),
    }
    return model_of(nodes, inputs={"tokens": [1, 24, 8]}, outputs=outputs, constants=constants)


def dequantized_weights(model):
    """What the int8 weights of a model stand for, by the name of the float32 weight that each replaced."""
    stored = {each.name: each for each in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            axis = next(each.i for each in node.attribute if each.name == "axis")
            values, scales = (numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input[:2])
            weights[node.output[0].removesuffix("/dequantized")] = values * along(axis, scales, values.ndim)
    return weights


def classifiers(model):
    """Names of the last products before an output; several where the head is computed in parts."""
    last = ProductIndex(model).last_products()
    return tuple(name_of(node) for node in model.graph.node if name_of(node) in last)
