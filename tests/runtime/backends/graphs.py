"""Small ONNX files for the backends to open."""

import onnx
from onnx import TensorProto, helper

from sfpp.runtime.contract import METADATA_KEY
from tests.runtime.video.clips import CONTRACT


def write_graph(path, nodes, inputs, outputs, *, metadata=None, opsets=(("", 17),)):
    """Write a graph; ``inputs`` and ``outputs`` are shapes by name, of float32."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*each) for each in opsets], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def write_sums(path, *, metadata=None, factor_node="Add"):
    """y = x + x (or x * x with factor_node="Mul") and z = -x for x of shape (2, 3)."""
    nodes = [helper.make_node(factor_node, ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    shape = (2, 3)
    return write_graph(path, nodes, {"x": shape}, {"y": shape, "z": shape}, metadata=metadata)


def write_for_target(path, target):
    """Write the sums with a contract that names this target."""
    text = CONTRACT.to_json().replace('"target":"portable"', f'"target":"{target}"')
    assert f'"target":"{target}"' in text
    return write_sums(path, metadata={METADATA_KEY: text})
