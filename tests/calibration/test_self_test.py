"""What of float32's self-test is asked of a file of lower precision."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.context import fitted_self_test
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.errors import BackendError, ContractError
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.self_test import self_test, self_test_for

CONTRACT = ModelContract(
    task="segmentation",
    family="test",
    size="tiny",
    variant="original",
    input=InputSpec("frame", 32, 48),
    outputs=(OutputSpec("logits", "logits", 1),),
    classes=("red", "green", "blue"),
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
)
FRAME = np.random.default_rng(8).integers(0, 256, (32, 48, 3), np.uint8)


def strongest_channel(inputs):
    return {"logits": inputs["frame"].astype(np.float32).transpose(0, 3, 1, 2)}


def graph(gains=(1.0, 1.0, 1.0)):
    """Logits are the frame's channels, each times its gain: with other gains some labels differ."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["channels", "gains"], ["logits"]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 32, 48, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 32, 48])
    gains = numpy_helper.from_array(np.array(gains, np.float32).reshape(1, 3, 1, 1), "gains")
    made = helper.make_graph(nodes, "rgb", [frame], [logits], [gains])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def float32():
    """The contract of a float32 file with its self-test."""
    model = Segmenter(FunctionBackend(strongest_channel, {}), CONTRACT)
    return dataclasses.replace(CONTRACT, self_test=self_test_for(model, FRAME, 0.98))


@pytest.mark.parametrize(("precision", "slack"), [("fp16", 0.03), ("int8", 0.04)])
@pytest.mark.parametrize("gain", [1.0, 1.1])
def test_the_threshold_lies_below_what_the_file_was_seen_to_reach(tmp_path, float32, precision, slack, gain):
    contract = dataclasses.replace(float32, precision=precision)
    test = fitted_self_test(graph((1, 1, gain)), contract, tmp_path)

    def as_the_graph(inputs):
        return {"logits": strongest_channel(inputs)["logits"] * np.array([1, 1, gain], np.float32).reshape(1, 3, 1, 1)}

    seen = self_test(Segmenter(FunctionBackend(as_the_graph, {}), contract)).agreement
    assert (seen == 1.0) == (gain == 1.0)
    assert test.threshold == pytest.approx(seen - slack, abs=1e-4)
    assert dataclasses.replace(test, threshold=0.98) == float32.self_test
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_asked_than_of_float32(tmp_path, float32):
    noise = dataclasses.replace(float32.self_test, threshold=0.7)
    contract = dataclasses.replace(float32, precision="fp16", self_test=noise)
    assert fitted_self_test(graph(), contract, tmp_path) == noise


def test_without_one_there_is_none(tmp_path):
    assert fitted_self_test(onnx.ModelProto(), CONTRACT, tmp_path) is None


def test_failures_leave_nothing_behind(tmp_path, float32):
    damaged = dataclasses.replace(float32.self_test, sha256="")
    with pytest.raises(ContractError, match="damaged"):
        fitted_self_test(graph(), dataclasses.replace(float32, self_test=damaged), tmp_path)
    with pytest.raises(BackendError, match="NaN"):
        fitted_self_test(graph((1, 1, np.nan)), float32, tmp_path)
    assert list(tmp_path.iterdir()) == []
