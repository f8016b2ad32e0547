"""Model files with planted faults."""

import dataclasses

import numpy as np
import onnx
from onnx import numpy_helper

from sfpp.runtime.contract import METADATA_KEY, contract_from_json


def contract_of(model):
    return contract_from_json({entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY])


def with_contract(source, path, *, input=None, **changes):
    """Write the file once more with another contract."""
    model = onnx.load(source)
    contract = contract_of(model)
    changes["input"] = dataclasses.replace(contract.input, **(input or {}))
    onnx.helper.set_model_props(model, {METADATA_KEY: dataclasses.replace(contract, **changes).to_json()})
    onnx.save(model, path)
    return path


def with_scaled_layer(source, path, node_name, factor=2.0):
    """Write the file once more with one node's weights times a factor, wherever a conversion has put them."""
    model = onnx.load(source)
    stored = {each.name: each for each in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    node = next(each for each in model.graph.node if each.name == node_name)
    weights = node.input[1]
    while weights in makers:
        node, weights = makers[weights], weights
        # A quantized weight is scaled by its scale.
        position = 1 if node.op_type == "DequantizeLinear" else 0
        if node.input[position] in stored:
            weights = node.input[position]
            break
        weights = node.input[0]
    values = numpy_helper.to_array(stored[weights])
    scaled = numpy_helper.from_array((values * factor).astype(values.dtype), f"{weights}/scaled")
    model.graph.initializer.append(scaled)
    node.input[list(node.input).index(weights)] = scaled.name
    onnx.save(model, path)
    return path


def with_normalization(source, path, mean, std):
    """Write the file once more with another mean and standard deviation in the graph."""
    model = onnx.load(source)
    for name, values in (("Sub/constant_1", mean), ("Div/constant_1", std)):
        stored = next(each for each in model.graph.initializer if each.name == name)
        stored.CopyFrom(numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name))
    onnx.save(model, path)
    return path


def without_names(source, path):
    """Write the file once more with nodes that have no names, as other exporters make it."""
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, path)
    return path
