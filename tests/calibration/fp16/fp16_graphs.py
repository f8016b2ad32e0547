"""Small graphs written as text, the exported ones, and what the FP16 tests ask of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from sfpp.calibration.fp16.fp16_model import fp16_model, rounded_in_float32
from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.pixels.pictures import read_image
from sfpp.tooling.graph import contract_in

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
EXPORTS = {
    "fast-exact": {"variant": "fast", "res": "320x256"},
    "hq-local-labels": {
        "variant": "hq",
        "matching": "local",
        "target": "tensorrt",
        "opset": 20,
        "output": "labels",
        "res": "320x256",
    },
    "original-onnxruntime": {"target": "onnxruntime", "opset": 19, "input": "float32", "res": "320x256"},
    "2x2-pose": {"variant": "2x2", "task": "pose"},
}


def frame_for(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    contract = contract_in(model, origin="the model")
    picture = demo_person() if contract.task == "pose" else demo_frame()
    return {contract.input.name: batch_from_frames([read_image(picture)], contract.input)[0]}


def graph(text: str, *, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    """Parse ``name (inputs) => (outputs) { nodes }``; weights are initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(each), key) for key, each in weights.items())
    return model


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def agreement(answer: np.ndarray, expected: np.ndarray) -> float:
    """The share of equal labels, 0 if a number is not finite."""
    if answer.ndim == 4:
        if not np.isfinite(answer).all():
            return 0.0
        answer, expected = answer.argmax(1), expected.argmax(1)
    return float(np.mean(answer == expected))


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    inner = onnx.shape_inference.infer_shapes(model).graph
    types = {each.name: each.type.tensor_type.elem_type for each in [*inner.value_info, *inner.input, *inner.output]}
    return types | {each.name: each.data_type for each in inner.initializer}


def node_types(model: onnx.ModelProto) -> dict[str, set[int]]:
    """The float types that each node but casts touches, by its name or first output."""
    types = tensor_types(model)
    return {
        (node.name or node.output[0].removesuffix("/fp16")): {
            types[each] for each in [*node.input, *node.output] if each
        }
        & {FLOAT, FLOAT16}
        for node in model.graph.node
        if node.op_type != "Cast"
    }


def rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def simulated_fp16(model, *, keep=()):
    """What the FP16 graph computes on a GPU, as a float32 graph."""
    return rounded_in_float32(fp16_model(model, keep=keep))
