"""Small models as files, and models that are plain functions."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.bench.measured_model import MeasuredModel, StageTimes
from sfpp.runtime.bench.peak import MatmulPeak
from sfpp.runtime.bench.row import Row, with_samples
from sfpp.runtime.contract import METADATA_KEY, KeypointSpec, OutputSpec
from sfpp.runtime.errors import BackendError
from tests.runtime.video import clips

CONTRACT = dataclasses.replace(clips.CONTRACT, multiply_adds=4_000_000, activation_bytes=10_000)
POSE = dataclasses.replace(
    CONTRACT,
    task="pose",
    outputs=(OutputSpec("logits", "heatmaps", 4),),
    classes=(),
    palette=(),
    keypoints=KeypointSpec(("nose", "left", "right")),
)


def write_ours(path, contract=CONTRACT):
    """The means of 4x4 pixels, as logits or heatmaps, with a contract."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, contract.input.shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3, 6, 8))
    return _save(path, nodes, [frame], [logits], metadata={METADATA_KEY: contract.to_json()})


def write_foreign(path, *, shape=(2, 3)):
    """y = x + x without a contract; a size may be a name."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    return _save(path, [helper.make_node("Add", ["x", "x"], ["y"])], [x], [y])


def write_large(path, *, megabytes):
    """y = x + (a sum over ones that fill so many megabytes while it runs)."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [megabytes * 250_000])
    one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("Add", ["ones", "x"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["y"], keepdims=1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy")
    return _save(path, nodes, [x], [y], initializers=[size])


def _save(path, nodes, inputs, outputs, *, initializers=(), metadata=None):
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def timed_model(clock, *, prepare_ms=1.0, infer_ms=10.0, finish_ms=2.0, log=None, name="", fails_at=None):
    """A model whose stages move ``clock``; it writes its name into ``log``, and fails in its nth run."""
    runs = 0

    def infer(prepared):
        nonlocal runs
        runs += 1
        if runs == fails_at:
            raise BackendError("out of luck")
        clock.now += infer_ms / 1e3
        if log is not None:
            log.append(name)
        return {"y": prepared}

    def prepare():
        clock.now += prepare_ms / 1e3
        return np.zeros(1)

    def finish(outputs, prepared):
        assert outputs["y"] is prepared
        clock.now += finish_ms / 1e3

    backend = FunctionBackend(infer, metadata={})
    return MeasuredModel(backend, None, load_ms=0.0, prepare=prepare, infer=infer, finish=finish)


def row(*, infer_ms=(10.0,), first_ms=None, model="some/model.onnx", backend="onnxruntime", peak=None, **facts):
    """A row with samples of these times; ``peak`` in multiply-adds a second."""
    samples, first = ([StageTimes(1.0, each, 2.0) for each in times] for times in (infer_ms, first_ms or infer_ms))
    known = {"file_bytes": 1000, "precision": "fp32", "description": "Library 1.0 on the CPU", **facts}
    if peak is not None:
        known["matmul_peak"] = MatmulPeak(peak, "1024x512", "Library 1.0 on the CPU")
    return with_samples(Row(model=model, backend=backend, **known), samples, first=first)
