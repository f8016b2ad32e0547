"""A library with a fault, in the place of one that would be chosen; and small models that carry a self-test."""

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sfpp.runtime import load
from sfpp.runtime.backends import BackendOptions, OnnxRuntimeBackend, choice
from sfpp.runtime.backends.choice import Machine
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.self_test import self_test_for
from tests.runtime.cli.test_run import write_model
from tests.runtime.video import clips

# Thirds of red, green and blue, so that no answer is right by chance.
FRAME = np.repeat(np.eye(3, dtype=np.uint8)[::-1] * np.uint8(200), 16, axis=0)[None].repeat(36, axis=0)


def store(path, contract):
    """Put a contract into a file."""
    model = onnx.load(path)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


def with_self_test(path, contract=clips.CONTRACT, frame=FRAME):
    """Let a file carry a self-test with what ONNX Runtime answers."""
    with load(path, contract=contract, backend="onnxruntime") as model:
        test = self_test_for(model, frame, 0.98)
    return store(path, dataclasses.replace(contract, self_test=test))


def write_tested(path):
    """A model of three classes that carries a self-test."""
    write_model(path)
    return with_self_test(path)


class Planted:
    """ONNX Runtime under another name, whose classes or keypoints change places if it is ``wrong``."""

    def __init__(self, path, options, *, version, wrong, precision):
        self._real = OnnxRuntimeBackend(path, BackendOptions(threads=options.threads))
        self._wrong = wrong
        self.precision = options.precision or precision
        self.description = f"Planted {version} on the CPU"
        self.metadata, self.inputs = self._real.metadata, self._real.inputs
        self.runs, self.closed = 0, False

    def run(self, inputs):
        self.runs += 1
        outputs = self._real.run(inputs)
        wrong = self._wrong(self) if callable(self._wrong) else self._wrong
        return {name: permuted(values) for name, values in outputs.items()} if wrong else outputs

    def operator_times_ms(self):
        return {}

    def close(self):
        self.closed = True
        self._real.close()


def permuted(values):
    """Logits or heatmaps with the first axis of classes turned on, labels with the next number."""
    return np.roll(values, 1, axis=1) if values.ndim == 4 else (values + 1) % 3


def plant(monkeypatch, *, wrong=True, version="1.0", precision="fp32"):
    """Put it in the place of OpenVINO, on an x86 machine that has ONNX Runtime too; return what is opened.

    ``wrong`` may be a function that is asked with the backend.
    """
    opened = []

    def opener(path, options, notify):
        opened.append(Planted(path, options, version=version, wrong=wrong, precision=precision))
        return opened[-1]

    replace_opener(monkeypatch, "openvino", opener)
    machine = Machine(x86=True, onnxruntime=True, openvino=True, cuda=False)
    monkeypatch.setattr(choice, "this_machine", lambda: machine)
    return opened


def replace_opener(monkeypatch, name, opener):
    """Let a backend be opened by another function."""
    monkeypatch.setitem(choice._BACKENDS, name, opener)


def write_int8_with_concat(path):
    """A model in a form that OpenVINO 2026.4 computes wrong on x86 CPUs without AMX, for no fault of its own.

    A pair of QuantizeLinear and DequantizeLinear with int8 and no zero point stands before a change of layout, and a
    Concat is somewhere in the model.
    """
    step = np.float32(0.005)
    weights = (np.eye(3, dtype=np.int8) * 100).reshape(3, 3, 1, 1)
    constants = {"half": np.float32(128), "step": step, "zero": np.int8(0), "weights": weights}
    constants |= {"scales": np.full(3, 0.01, np.float32), "zeros": np.zeros(3, np.int8)}
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["values", "values"], ["twice"], axis=1),
        helper.make_node("Sub", ["values", "half"], ["centered"]),
        helper.make_node("Mul", ["centered", "step"], ["scaled"]),
        helper.make_node("QuantizeLinear", ["scaled", "step", "zero"], ["quantized"]),
        helper.make_node("DequantizeLinear", ["quantized", "step", "zero"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["kernel"], axis=0),
        helper.make_node("Conv", ["channels", "kernel"], ["logits"], kernel_shape=[1, 1]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 24, 32, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 24, 32])
    twice = helper.make_tensor_value_info("twice", TensorProto.FLOAT, [1, 48, 32, 3])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "int8", [frame], [logits, twice], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    outputs = (dataclasses.replace(clips.CONTRACT.outputs[0], stride=1),)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return with_self_test(path, dataclasses.replace(clips.CONTRACT, outputs=outputs, precision="int8"), noise)
