"""What is looked at inside a graph holds no more of it at a time than the graph itself does."""

import onnx
import pytest
from onnx import TensorProto, helper

from sfpp.calibration.fp16.float16_probe import float16_probe
from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.int8.observe import with_channel_limits, with_samples
from sfpp.export.costs import live_bytes

PARTS, TIMES, WIDTH = 16, 1000, 4000
PART_BYTES = 4 * TIMES * WIDTH


@pytest.fixture
def in_parts():
    """A graph of many large parts that are needed one at a time, in the order that sorting by depth gives."""
    names = [[f"{kind}{part}" for part in range(PARTS)] for kind in ("scores", "softmax", "mixed")]
    nodes = [helper.make_node("Concat", ["x"] * TIMES, [name], name=name, axis=1) for name in names[0]]
    nodes += [helper.make_node("Softmax", [a], [b], name=b, axis=1) for a, b in zip(names[0], names[1], strict=True)]
    nodes += [
        helper.make_node("ReduceMean", [a], [b], name=b, axes=[1]) for a, b in zip(names[1], names[2], strict=True)
    ]
    nodes.append(helper.make_node("Concat", names[2], ["y"], name="y", axis=1))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, WIDTH]), ("y", None))
    )
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    return onnx.shape_inference.infer_shapes(model)


def test_in_parts_one_part_is_held_at_a_time(in_parts):
    assert live_bytes(in_parts) < 3 * PART_BYTES


def test_so_it_is_while_float16_is_measured(in_parts):
    probe = float16_probe(FloatGraph(in_parts), range(len(in_parts.graph.node)))
    assert live_bytes(onnx.shape_inference.infer_shapes(probe)) < 10 * PART_BYTES


@pytest.mark.parametrize(
    "kind", [with_samples, lambda model, names: with_channel_limits(model, dict.fromkeys(names, 0))]
)
def test_so_it_is_while_ranges_are_observed(in_parts, kind):
    names = [name for node in in_parts.graph.node[: 2 * PARTS] for name in node.output]
    assert live_bytes(onnx.shape_inference.infer_shapes(kind(in_parts, names))) < 5 * PART_BYTES
