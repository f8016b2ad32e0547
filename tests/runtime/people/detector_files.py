"""Small detectors with known outputs, as ONNX files."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sfpp.runtime.people.detector_output import METADATA_KEY

STRIDES = (8, 16, 32)


def anchor_count(size_hw):
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in STRIDES)


def cells(size_hw):
    """(stride, column, row) of every anchor, in the order of the output."""
    return [
        (stride, column, row)
        for stride in STRIDES
        for row in range(size_hw[0] // stride)
        for column in range(size_hw[1] // stride)
    ]


def yolov8_output(boxes_cxcywh, size_hw, *, class_index=0, scores=None, classes=80):
    """(1, 4 + classes, A): the boxes, in model pixels, at the first anchors; nothing elsewhere."""
    output = np.zeros((1, 4 + classes, anchor_count(size_hw)), np.float32)
    for anchor, box in enumerate(boxes_cxcywh):
        output[0, :4, anchor] = box
        output[0, 4 + class_index, anchor] = 0.9 if scores is None else scores[anchor]
    return output


def yolox_output(boxes_cxcywh, size_hw, *, decoded, class_index=0, scores=None, classes=80):
    """(1, A, 5 + classes): each box at an anchor of its own; every other anchor has a box near itself and no score."""
    places = cells(size_hw)
    output = np.zeros((1, len(places), 5 + classes), np.float32)
    boxes = {17 * number + 5: box for number, box in enumerate(boxes_cxcywh)}
    for anchor, (stride, column, row) in enumerate(places):
        usual = ((column + 0.5) * stride, (row + 0.5) * stride, stride, stride)
        x, y, width, height = boxes.get(anchor, usual)
        raw = (x / stride - column, y / stride - row, np.log(width / stride), np.log(height / stride))
        output[0, anchor, :4] = (x, y, width, height) if decoded else raw
    for number, anchor in enumerate(boxes):
        score = 0.9 if scores is None else scores[number]
        output[0, anchor, 4] = 0.95
        output[0, anchor, 5 + class_index] = score / 0.95
    return output


def write_detector(
    path,
    *outputs,
    size_hw,
    symbolic=False,
    metadata=None,
    dtype=np.float32,
    pixel=None,
    named=(),
    facts=None,
    sizes=False,
):
    """A graph that gives ``outputs`` whatever it sees; with a ``pixel`` (row, column), times its first channel.

    Whole numbers stay so and are always given. ``named`` are the outputs' names, ``facts`` more metadata; ``sizes``
    adds RT-DETR's input for the frame's size, by which the boxes, relative in the first output, are multiplied.
    """
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = [1, 3, "height", "width"] if symbolic else [1, 3, *size_hw]
    row, column = pixel or (0, 0)
    initializers = [
        numpy_helper.from_array(np.array([0, row, column]), "starts"),
        numpy_helper.from_array(np.array([1, row + 1, column + 1]), "ends"),
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        numpy_helper.from_array(np.array(0 if pixel is None else 1, dtype), "seen"),
        numpy_helper.from_array(np.array(1 if pixel is None else 0, dtype), "unseen"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["corner"]),
        helper.make_node("Reshape", ["corner", "one"], ["flat"]),
        helper.make_node("Mul", ["flat", "seen"], ["weighted"]),
        helper.make_node("Add", ["weighted", "unseen"], ["factor"]),
    ]
    infos = []
    inputs = [helper.make_tensor_value_info("images", kind, shape)]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
        nodes.append(helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=kind))
        nodes.append(helper.make_node("Concat", ["size", "size"], ["sides"], axis=1))
    for index, values in enumerate(outputs):
        whole = values.dtype.kind == "i"
        name = named[index] if named else f"output{index}"
        initializers.append(numpy_helper.from_array(values if whole else values.astype(dtype), f"known{index}"))
        by = "sides" if sizes and index == 0 else "factor"
        nodes.append(helper.make_node("Identity" if whole else "Mul", [f"known{index}", by][: 2 - whole], [name]))
        infos.append(helper.make_tensor_value_info(name, TensorProto.INT64 if whole else kind, list(values.shape)))
    graph = helper.make_graph(nodes, "detector", inputs, infos)
    graph.initializer.extend(initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        facts = {METADATA_KEY: text, **(facts or {})}
    helper.set_model_props(model, facts or {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def float_model(path):
    """A model that is no detector: it takes numbers."""
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "no_detector", [values], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
