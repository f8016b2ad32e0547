"""Small ONNX files for the backends to open."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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


def write_sampled(path, size_hw):
    """Write a graph whose logits are every fourth pixel of a frame, (1, H, W, 3) uint8 RGB."""
    ints = {"starts": [0, 0], "ends": list(size_hw), "axes": [1, 2], "steps": [4, 4]}
    nodes = [
        helper.make_node("Slice", ["frame", *ints], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["logits"], perm=[0, 3, 1, 2]),
    ]
    cells = [1, 3, *(side // 4 for side in size_hw)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *size_hw, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, cells)],
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in ints.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
