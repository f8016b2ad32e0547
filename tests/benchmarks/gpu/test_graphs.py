import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.gpu.graphs import Weights
from sfpp.runtime.errors import ModelFileError


def test_each_type_and_order_of_a_tensor_is_known():
    tensor = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)
    other = tensor + 1
    constants = {"a": tensor, "b": tensor.T, "c": tensor.reshape(64, 48), "d": tensor.T.astype(np.float16), "e": other}
    graph = onnx.GraphProto(initializer=[numpy_helper.from_array(np.array(v), k) for k, v in constants.items()])
    weights, model = Weights({"it": tensor}), onnx.ModelProto(graph=graph)
    assert weights.strip(model) == 3 * tensor.nbytes + tensor.nbytes // 2
    assert [each.name for each in model.graph.initializer if each.raw_data] == ["e"]
    weights.fill(model)
    for constant in model.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(constant), constants[constant.name])
    weights.strip(model)
    with pytest.raises(ModelFileError, match="'a' is made of 'it', which the checkpoint lacks"):
        Weights({}).fill(model)
