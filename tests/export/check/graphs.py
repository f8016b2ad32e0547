"""Tiny graphs with one thing wrong each, and the same with it put right."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sfpp.export.check import check_model

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, name=f"here/{operator}", **attributes)


def model(nodes, inputs, outputs, *, opset=17, domains=(), **constants):
    """inputs, outputs: (type, shape) by name; constants: arrays by name."""

    def infos(ends):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in ends.items()]

    stored = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), stored)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def one(operator, *, shape=(1, 4), to=None, kind=FLOAT, result=None, inputs=("x",), opset=17, domain="", **rest):
    """A graph of one node from x to y; arrays in ``rest`` are constants, everything else attributes."""
    constants = {name: value for name, value in rest.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in rest.items() if name not in constants}
    return model(
        [node(operator, list(inputs), ["y"], domain=domain, **attributes)],
        {"x": (kind, shape)},
        {"y": (kind if result is None else result, shape if to is None else to)},
        opset=opset,
        domains=[domain] if domain else (),
        **constants,
    )


def check(graph, folder, **options):
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return check_model(path, **options)


def rules(report, version=None):
    findings = report.findings if version is None else report.verdict(version).findings
    return {each.rule for each in findings}


def outcomes(report):
    return {each.version: each.outcome for each in report.verdicts}


def finding(report, rule):
    """The one finding of a rule."""
    (found,) = [each for each in report.findings if each.rule == rule]
    return found


# The planted violations


def topk(k, sorted=1):
    """The k largest of 5000 values."""
    return model(
        [node("TopK", ["x", "k"], ["y", "at"], sorted=sorted), helper.make_node("Cast", ["at"], ["i"], to=6)],
        {"x": (FLOAT, (1, 5000))},
        {"y": (FLOAT, (1, k)), "i": (TensorProto.INT32, (1, k))},
        k=np.array([k]),
    )


def scatter_elements(reduction, *, indices=3):
    at = np.zeros((indices, 4), np.int64) if reduction else np.arange(indices * 4).reshape(indices, 4) % 5
    return model(
        [node("ScatterElements", ["x", "at", "u"], ["y"], axis=0, **({"reduction": reduction} if reduction else {}))],
        {"x": (FLOAT, (5, 4)), "u": (FLOAT, (indices, 4))},
        {"y": (FLOAT, (5, 4))},
        at=at,
    )


def scatter_nd(reduction):
    return model(
        [node("ScatterND", ["x", "at", "u"], ["y"], **({"reduction": reduction} if reduction else {}))],
        {"x": (FLOAT, (5, 4)), "u": (FLOAT, (2, 4))},
        {"y": (FLOAT, (5, 4))},
        at=np.array([[1], [3]]),
    )


def labels(kind):
    """ArgMax over channels, whose result is given as it is (int64) or as another type."""
    nodes = [node("ArgMax", ["x"], ["y" if kind == INT64 else "at"], axis=1, keepdims=0)]
    nodes += [] if kind == INT64 else [helper.make_node("Cast", ["at"], ["y"], to=kind)]
    return model(nodes, {"x": (FLOAT, (1, 3, 8, 8))}, {"y": (kind, (1, 8, 8))})


def nonzero(fixed=False):
    steps = [node("NonZero", ["x"], ["at"]), helper.make_node("Cast", ["at"], ["y"], to=FLOAT)]
    return model(steps, {"x": (FLOAT, (3, 4))}, {"y": (FLOAT, (2, 12) if fixed else (2, "count"))})


def layer_norm(kind, *, square="Pow"):
    """A layer norm written out, as exporters before opset 17 do."""
    dtype = np.float16 if kind == HALF else np.float32
    steps = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["centered"]),
        helper.make_node(square, ["centered", "two" if square == "Pow" else "centered"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "epsilon"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["deviation"]),
        helper.make_node("Div", ["centered", "deviation"], ["y"]),
    ]
    ends = {"x": (kind, (1, 4, 8))}, {"y": (kind, (1, 4, 8))}
    return model(steps, *ends, two=np.array(2, dtype), epsilon=np.array(1e-5, dtype))


def quantized(*, zero_point=0, dtype=np.int8, scale=0.1, axis=None, weight_axis=1, opset=17, half=False, **options):
    """A MatMul between pairs; ``weight_scales`` 0 gives a computed scale, ``typed`` False leaves the zero point out."""
    kind, floats = (HALF, np.float16) if half else (FLOAT, np.float32)
    along = {} if axis is None else {"axis": axis}
    zero = ["zero"] if options.get("typed", True) else []
    steps = [
        node("QuantizeLinear", ["x", "scale", *zero], ["q"], **along),
        helper.make_node("DequantizeLinear", ["q", "scale", *zero], ["d"], name="here/d", **along),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], name="here/w", axis=weight_axis),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    constants = {
        "scale": np.asarray(scale, floats),
        "w8": np.arange(16, dtype=np.int8).reshape(4, 4),
        "ws": np.full(4, 0.01, floats),
        "wz": np.zeros(4, np.int8),
    }
    if zero:
        constants["zero"] = np.full(np.shape(scale), zero_point, dtype)
    if options.get("computed"):
        del constants["scale"]
        steps.insert(0, helper.make_node("ReduceMax", ["x"], ["scale"], keepdims=0))
    return model(steps, {"x": (kind, (3, 4))}, {"y": (kind, (3, 4))}, opset=opset, **constants)


def with_weights_beside(folder, *, location="weights.bin", stored=64):
    """A MatMul whose weight of 64 bytes lies in a file of its own, of which so many bytes are there."""
    graph = one("MatMul", shape=(4, 4), inputs=("x", "w"), w=np.eye(4, dtype=np.float32))
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "64"}.items():
        tensor.external_data.add(key=key, value=value)
    if stored:
        (folder / "weights.bin").write_bytes(bytes(stored))
    return graph


def branching():
    def branch(operator):
        step = helper.make_node(operator, ["x"], [f"{operator}_y"])
        end = helper.make_tensor_value_info(f"{operator}_y", FLOAT, (1, 4))
        return helper.make_graph([step], operator, [], [end])

    decide = node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Abs"))
    return model([decide], {"x": (FLOAT, (1, 4)), "c": (TensorProto.BOOL, ())}, {"y": (FLOAT, (1, 4))})


def calling_a_function():
    graph = one("Twice", domain="own.functions")
    graph.functions.append(
        helper.make_function(
            "own.functions",
            "Twice",
            ["a"],
            ["b"],
            [onnx.helper.make_node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    return graph
